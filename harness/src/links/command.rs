//! `harness netem`: measures an emulated link against its profile.

use std::process::ExitCode;
use std::time::Duration;

use netem::selftest::{self, Finding, Options};
use netem::{Backend, LinkProfile};

use crate::cli::Outcome;

/// `harness netem`: two hosts, a link, and whether it does what its profile says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile of both directions, in the words of tc: delay 10ms 1ms rate 1000mbit loss 1% reorder 5% duplicate 1% corrupt 1%
    /// queue 256kib segment 1.
    #[arg(value_name = "PROFILE", num_args = 0..)]
    profile: Vec<String>,
    /// Another profile for the way back.
    #[arg(long, value_name = "PROFILE")]
    back: Option<LinkProfile>,
    /// tc, tun or proxy; the first of them that is possible without it.
    #[arg(long)]
    backend: Option<Backend>,
    /// Seed of everything that happens by chance.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Measure throughput for so long in each direction.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Datagrams sent in each direction.
    #[arg(long, default_value_t = 20_000)]
    datagrams: u32,
    /// Payload bits per second that each direction is to carry at least: 8gbit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    at_least: Option<u64>,
    /// Fail also where a busy machine may be the reason.
    #[arg(long)]
    strict: bool,
}

/// Bits per second, in the words of tc.
fn rate(text: &str) -> Result<u64, String> {
    if text.contains(char::is_whitespace) {
        return Err(format!(
            "rate: {text:?}: expected a number with a unit, 8gbit"
        ));
    }
    let profile = format!("rate {text}").parse::<LinkProfile>();
    let rate = profile.map_err(|error| error.to_string())?.rate_bits;
    rate.ok_or_else(|| format!("rate: {text:?} is none"))
}

/// Runs `harness netem`; status 1 when the link does not do what its profile says.
///
/// # Errors
/// Links that cannot be emulated here.
pub async fn run(args: Args) -> Outcome {
    let forth: LinkProfile = args.profile.join(" ").parse()?;
    let back = args.back.clone().unwrap_or_else(|| forth.clone());
    let options = Options {
        forth: forth.clone(),
        back: back.clone(),
        backend: args.backend,
        seed: args.seed,
        bulk: Duration::try_from_secs_f64(args.seconds)?,
        datagrams: args.datagrams,
    };
    let measured = tokio::task::spawn_blocking(move || selftest::run(&options)).await??;
    println!(
        "{forth} there, {back} back: emulated by {}, seed {}",
        measured.backend, args.seed
    );
    for refusal in &measured.refused {
        println!("  not {refusal}");
    }
    if measured.datagrams.is_none() {
        println!("  a relay of streams carries no datagrams: loss is not measured");
    }
    let findings = measured.judge(&forth, &back, args.at_least);
    for Finding {
        what,
        promised,
        measured,
        holds,
        good,
    } in &findings
    {
        let verdict = match (holds, good) {
            (Some(false), _) => "FAILED",
            (_, true) => "ok",
            (_, false) => "off, which a busy machine may be the reason for",
        };
        println!("  {what}: {measured}; promised {promised}: {verdict}");
    }
    let holds = |finding: &Finding| finding.holds != Some(false) && (finding.good || !args.strict);
    Ok(match findings.iter().all(holds) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_in_profiles() {
        assert_eq!(rate("8gbit"), Ok(8_000_000_000));
        for wrong in ["8", "", "8gb", "-1gbit", "8gbit delay 5ms"] {
            assert!(rate(wrong).unwrap_err().starts_with("rate: "), "{wrong}");
        }
    }
}
