//! `harness demo`: the two-minute tour. Builds the engine, replays a million recorded changes of MySQL and a million of PostgreSQL
//! through it into the embedded broker, one after the other and then both at once, verifies every one, kills the engine on the way the
//! last time, prints a table and writes a page with pictures.

mod page;
mod pictures;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli;
use crate::replay::report::Report;
use crate::replay::scenario::Scenario;
use crate::replay::{self, Outcome};

/// Scenarios of the tour, how often each is run, and what it shows.
const TOUR: [(&str, usize, &str); 4] = [
    ("mysql-1m", 3, "a million changes from MySQL"),
    ("postgres-1m", 3, "a million changes from PostgreSQL"),
    ("both-1m", 3, "both at the same time, into one broker"),
    ("both-kill-1m", 1, "both, the engine killed on the way"),
];

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// `harness demo`: the two-minute tour.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built engine; built anew when absent. It must be of the harness's own commit.
    #[arg(long, value_name = "PATH")]
    walbrook: Option<PathBuf>,
    /// Where to write the page; beside the build's other output when absent.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Scenarios instead of the tour's.
    #[arg(long, value_name = "SCENARIO")]
    scenario: Vec<PathBuf>,
}

/// A scenario of the tour after its runs.
pub(crate) struct Chapter {
    /// What it shows.
    pub(crate) title: String,
    /// Figures.
    pub(crate) report: Report,
    /// The median run.
    pub(crate) outcome: Outcome,
}

/// Runs `harness demo`; status 1 when anything expected does not hold.
///
/// # Errors
/// What keeps the demo from being run.
pub async fn run(args: Args) -> cli::Outcome {
    let program = match &args.walbrook {
        Some(path) => replay::program(Some(path))?,
        None => tokio::task::block_in_place(build)?,
    };
    same_commit(&program)?;
    let tour: Vec<(PathBuf, usize, String)> = match args.scenario.is_empty() {
        true => TOUR
            .iter()
            .map(|(name, runs, title)| (name.into(), *runs, (*title).to_owned()))
            .collect(),
        false => args
            .scenario
            .iter()
            .map(|path| (path.clone(), 1, path.display().to_string()))
            .collect(),
    };
    let mut chapters = Vec::new();
    for (path, runs, title) in tour {
        chapters.push(chapter(&path, runs, title, &program).await?);
    }
    print(&chapters);
    let page = args.report.map_or_else(default_page, Ok)?;
    if let Some(directory) = page.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    std::fs::write(&page, page::html(&chapters)?)
        .map_err(|error| format!("{}: {error}", page.display()))?;
    println!("\nThe pictures: {}", page.display());
    let good = chapters.iter().all(|chapter| chapter.report.verified);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn chapter(
    path: &Path,
    runs: usize,
    title: String,
    program: &Path,
) -> Result<Chapter, Failure> {
    let scenario = Scenario::read(path)?;
    let mut outcomes = Vec::with_capacity(runs);
    for number in 1..=runs {
        let bar = bar(&title, number, runs);
        let progress = {
            let bar = bar.clone();
            move |changes: u64, all: u64| {
                bar.set_length(all);
                bar.set_position(changes);
            }
        };
        let outcome = replay::run_once(&scenario, program, &progress).await?;
        bar.finish_and_clear();
        outcomes.push(outcome);
    }
    let (report, outcome) = replay::summary(&scenario, outcomes, false);
    Ok(Chapter {
        title,
        report,
        outcome,
    })
}

fn bar(title: &str, number: usize, runs: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{title}, run {number} of {runs} …");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg:44} [{bar:30.cyan/blue}] {human_pos:>10} of {human_len} changes",
    );
    let style = style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ");
    ProgressBar::new(0)
        .with_style(style)
        .with_message(format!("{title} ({number}/{runs})"))
}

/// `$CARGO build --release -p engine`; answers where the program is.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("Building walbrook …");
    let output = Command::new(&cargo)
        .args([
            "build",
            "--release",
            "-p",
            "engine",
            "--message-format",
            "json-render-diagnostics",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", cargo.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{} build --release -p engine failed ({})",
            cargo.display(),
            output.status
        ));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "walbrook")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables
        .next_back()
        .ok_or_else(|| "cargo built no walbrook".to_owned())
}

/// Refuses an engine of another commit: its figures would be told as this one's.
fn same_commit(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let commit = env!("WALBROOK_COMMIT");
    if version.ends_with(&format!("({commit})")) {
        return Ok(());
    }
    Err(format!(
        "{shown} is `{version}`, this harness is of commit {commit}: build both from the same commit"
    ))
}

/// `demo/index.html` in the build's target directory.
fn default_page() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("where am I: {error}"))?;
    let target = program
        .parent()
        .and_then(Path::parent)
        .ok_or("where am I: no directory")?;
    Ok(target.join("demo").join("index.html"))
}

fn print(chapters: &[Chapter]) {
    let line = "─".repeat(104);
    println!("{line}");
    println!(
        "{:<44}{:>12}{:>10}{:>10}{:>10}{:>8}",
        "", "changes", "seconds", "M/s", "µs CPU", "MiB"
    );
    println!("{line}");
    for Chapter { title, report, .. } in chapters {
        let figures = &report.figures;
        let verdict = match (report.verified, report.faults.len()) {
            (false, _) => "FAILED".to_owned(),
            (true, 0) => "verified".to_owned(),
            (true, faults) => format!("verified, {faults} kills"),
        };
        println!(
            "{title:<44}{:>12}{:>10.3}{:>10.2}{:>10.3}{:>8.1}  {verdict}",
            grouped(figures.changes),
            figures.seconds,
            figures.changes_per_second / 1e6,
            figures.cpu_us_per_change(),
            figures.rss_mib(),
        );
        report
            .failures
            .iter()
            .for_each(|failure| println!("  {failure}"));
    }
    println!("{line}");
    println!(
        "Seconds from the first byte of the stream to the broker's last append; CPU per change and peak memory of the engine."
    );
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::replay::engine::Sample;
    use crate::replay::report::{Figures, Happened};
    use crate::replay::scenario::Deed;

    /// A made-up chapter with everything that a page can show.
    fn chapter(killed: bool) -> Chapter {
        let start = crate::clock::now() + Duration::from_secs(1);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut histogram = hdrhistogram::Histogram::<u64>::new(3).unwrap();
        (1..2000u64).for_each(|n| histogram.record(2000 + n * n / 50).unwrap());
        let mut bytes = Vec::new();
        use hdrhistogram::serialization::Serializer as _;
        hdrhistogram::serialization::V2Serializer::new()
            .serialize(&histogram, &mut bytes)
            .unwrap();
        use base64::Engine as _;
        let encoded = base64::prelude::BASE64_STANDARD.encode(bytes);
        let figures = Figures {
            changes: 1_000_000,
            records: 1_250_000,
            bytes_in: 57_240_263,
            bytes_out: 81_000_000,
            seconds: 0.5,
            changes_per_second: 2e6,
            cpu_seconds: 0.52,
            rss_max_bytes: 48 << 20,
            latency_ms: serde_json::json!({"p50": 8.0, "p99": 21.0}),
            histogram: if killed {
                serde_json::Value::Null
            } else {
                encoded.into()
            },
            ..Figures::default()
        };
        let fault = Happened {
            deed: Deed::KillEngine,
            link: None,
            at_changes: 400_000,
            at_seconds: Some(0.2),
        };
        let outcome = Outcome {
            figures: figures.clone(),
            failures: Vec::new(),
            faults: if killed {
                vec![fault.clone()]
            } else {
                Vec::new()
            },
            samples: (0..100)
                .map(|n| Sample {
                    at: at(n * 5),
                    cpu_seconds: n as f64 * 0.0055,
                    rss_bytes: (20 << 20) + n * 250_000,
                })
                .collect(),
            arrivals: (0..=500).step_by(4).map(|ms| (at(ms), ms * 2500)).collect(),
            start,
            broker: "embedded broker".into(),
            engine_report: serde_json::Value::Null,
        };
        let report = Report {
            version: "0.1.0",
            machine: "A <machine>, 2 cores".into(),
            commit: "0123456789ab",
            scenario: "x".into(),
            source: "y".into(),
            broker: "embedded broker".into(),
            figures: figures.clone(),
            verified: !killed,
            failures: if killed {
                vec!["changes: expected 1 & found 2".into()]
            } else {
                Vec::new()
            },
            faults: outcome.faults.clone(),
            runs: vec![figures.clone(), figures],
        };
        Chapter {
            title: "a million changes".into(),
            report,
            outcome,
        }
    }

    #[test]
    fn a_page_holds_everything_and_loads_nothing() {
        let page = page::html(&[chapter(false), chapter(true)]).unwrap();
        assert_eq!(
            page.matches("<svg").count(),
            7,
            "four pictures, three where there is no histogram"
        );
        for text in [
            "2.00 M/s",
            "0.52 µs",
            "48.0 MiB",
            "21 ms",
            "verified",
            "failed",
            "A &lt;machine&gt;",
            "1,250,000",
            "found 2",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for text in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(text), "{text}");
        }
        if let Some(path) = std::env::var_os("WALBROOK_DEMO_PAGE") {
            std::fs::write(path, page).unwrap();
        }
    }
}
