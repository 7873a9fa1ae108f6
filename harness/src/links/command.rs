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
    /// Fail also where a busy machine may be the reason.
    #[arg(long)]
    strict: bool,
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
    let findings = measured.judge(&forth, &back);
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
