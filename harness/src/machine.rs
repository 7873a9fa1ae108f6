//! Which machine this is, in a line. The benches, most of which link no harness, have this file as a module of their own.

/// Processor, cores and kernel of this machine.
#[must_use]
pub fn here() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor(&cpu);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processor}, {cores} cores, Linux {}", kernel.trim())
}

/// The first processor of `/proc/cpuinfo`: its name, and the numbers of its generation where it has them. Hypervisors give several
/// generations one name, `AMD EPYC`, and figures of one are no measure of another's. Source: proc_cpuinfo(5).
fn processor(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(found, _)| found.trim() == name)?;
        Some(value.trim())
    };
    let name = field("model name").unwrap_or(std::env::consts::ARCH);
    match (field("cpu family"), field("model"), field("stepping")) {
        (Some(family), Some(model), Some(stepping)) => {
            format!("{name} (family {family} model {model} stepping {stepping})")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_one_name_are_told_apart_by_their_generation() {
        let of = |model: u32| {
            format!(
                "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\nstepping\t: 1\n\n\
                 processor\t: 1\nmodel\t\t: 99\n"
            )
        };
        assert_eq!(
            processor(&of(17)),
            "AMD EPYC (family 25 model 17 stepping 1)"
        );
        assert_ne!(processor(&of(17)), processor(&of(1)));
        // Other architectures have no such numbers.
        let other = "processor\t: 0\nCPU implementer\t: 0x41\n";
        assert_eq!(processor(other), std::env::consts::ARCH);
    }
}
