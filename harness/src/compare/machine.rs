//! Whether two reports are of the same machine, as far as they say: `MODEL (family F model M stepping S), N cores, Linux RELEASE`.
//! Hypervisors give processors of several generations one name, and a report from before the generation was written down lacks it.

/// What these are without their kernels, where they are not the same as far as both say.
#[must_use]
pub(super) fn difference<'a>(old: &'a str, new: &'a str) -> Option<(&'a str, &'a str)> {
    let (old, new) = (hardware(old), hardware(new));
    (!is_same(old, new)).then_some((old, new))
}

/// What a reader should know of them besides: another kernel, and a generation that one does not say.
#[must_use]
pub(super) fn notes(old: &str, new: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let kernel = |machine: &str| machine[hardware(machine).len()..].to_owned();
    if difference(old, new).is_none() && kernel(old) != kernel(new) {
        notes.push(format!("another kernel: {old} before, {new} after"));
    }
    notes.extend(silence(hardware(old), hardware(new)));
    notes
}

/// The machine without its kernel.
fn hardware(machine: &str) -> &str {
    machine
        .rsplit_once(", Linux ")
        .map_or(machine, |(hardware, _)| hardware)
}

/// Whether these are the same as far as both say.
fn is_same(old: &str, new: &str) -> bool {
    match (generation(old), generation(new)) {
        (Some(_), Some(_)) | (None, None) => old == new,
        _ => without_generation(old) == without_generation(new),
    }
}

/// A line about the one of two that does not say its processor's generation, where only one does not.
fn silence(old: &str, new: &str) -> Option<String> {
    let side = match (generation(old), generation(new)) {
        (None, Some(_)) => "before",
        (Some(_), None) => "after",
        _ => return None,
    };
    Some(format!(
        "the report {side} is an older one and does not say its processor's family and model: whether both are of the same is not known"
    ))
}

/// Where the generation stands.
fn generation(machine: &str) -> Option<std::ops::Range<usize>> {
    let start = machine.find(" (family ")?;
    let length = machine[start..].find(')')?;
    Some(start..start + length + 1)
}

fn without_generation(machine: &str) -> String {
    let mut machine = machine.to_owned();
    if let Some(place) = generation(&machine) {
        machine.replace_range(place, "");
    }
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: &str = "AMD EPYC, 2 cores";
    const ZEN_3: &str = "AMD EPYC (family 25 model 1 stepping 1), 2 cores";
    const ZEN_4: &str = "AMD EPYC (family 25 model 17 stepping 1), 2 cores";

    #[test]
    fn processors_of_one_name_are_told_apart() {
        assert!(is_same(ZEN_3, ZEN_3) && is_same(OLDER, OLDER));
        assert!(!is_same(ZEN_3, ZEN_4));
        assert_eq!(silence(ZEN_3, ZEN_4), None);
    }

    #[test]
    fn what_an_older_report_does_not_say_is_said() {
        assert!(is_same(OLDER, ZEN_4) && is_same(ZEN_3, OLDER));
        assert!(!is_same("AMD EPYC, 4 cores", ZEN_4));
        let said = silence(OLDER, ZEN_4).unwrap();
        assert!(
            said.starts_with("the report before is an older one"),
            "{said}"
        );
        let said = silence(ZEN_4, OLDER).unwrap();
        assert!(
            said.starts_with("the report after is an older one"),
            "{said}"
        );
        assert_eq!(silence(OLDER, OLDER), None);
    }

    #[test]
    fn the_kernel_is_no_hardware() {
        assert_eq!(hardware("A (b), 2 cores, Linux 6.1"), "A (b), 2 cores");
        assert_eq!(hardware("A, 2 cores"), "A, 2 cores");
        let [old, new] = ["6.1", "6.2"].map(|kernel| format!("{ZEN_4}, Linux {kernel}"));
        assert_eq!(difference(&old, &new), None);
        let expected = format!("another kernel: {old} before, {new} after");
        assert_eq!(notes(&old, &new), [expected]);
        assert_eq!(difference(ZEN_3, &new), Some((ZEN_3, ZEN_4)));
        assert_eq!(notes(ZEN_3, &new), [""; 0], "another machine says enough");
    }
}
