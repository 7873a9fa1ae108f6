//! `harness demo`: the two-minute tour. Builds the engine, replays a million recorded changes of MySQL and a million of PostgreSQL
//! through it into the embedded broker, one after the other and then both at once, verifies every one, kills the engine on the way the
//! last time, prints a table and writes a page with pictures.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli;
use crate::replay;
use crate::replay::report::Report;
use crate::replay::scenario::Scenario;
use crate::report;
use crate::report::document::{Document, SourceOf};
use crate::report::number::grouped;
use crate::report::page::{self, Chapter};

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

/// What the page says above everything.
const LEAD: &str = "Row changes recorded from real MySQL and PostgreSQL servers, replayed over their replication protocols, encoded as \
    Debezium records, produced into Kafka’s protocol, read back by an independent client and compared with what the workload’s \
    generator says must be there.";

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
        let report = measured(&path, runs, &title, &program).await?;
        let document = Document::of(&report)?;
        chapters.push(Chapter { title, document });
    }
    print(&chapters);
    let page = args.report.map_or_else(default_page, Ok)?;
    let html = page::html("Walbrook", LEAD, "cargo demo", &chapters)?;
    report::put(&page, &html)?;
    println!("\nThe pictures: {}", page.display());
    let good = chapters.iter().all(|chapter| chapter.document.holds());
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measured(
    path: &Path,
    runs: usize,
    title: &str,
    program: &Path,
) -> Result<Report, Failure> {
    let scenario = Scenario::read(path)?;
    let mut outcomes = Vec::with_capacity(runs);
    for number in 1..=runs {
        let bar = bar(title, number, runs);
        let progress = {
            let bar = bar.clone();
            move |changes: u64, all: u64| {
                bar.set_length(all);
                bar.set_position(changes);
            }
        };
        let outcome =
            replay::run_once(&scenario, program, &mut replay::Kept::default(), &progress).await?;
        bar.finish_and_clear();
        outcomes.push(outcome);
    }
    Ok(replay::summary(&scenario, outcomes, false).0)
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

/// A row per chapter, and where it has several sources one for each of them.
fn table(chapters: &[Chapter]) -> Vec<String> {
    let line = "─".repeat(104);
    let head = format!(
        "{:<44}{:>12}{:>10}{:>10}{:>10}{:>8}",
        "", "changes", "seconds", "M/s", "µs CPU", "MiB"
    );
    let mut table = vec![line.clone(), head, line.clone()];
    for Chapter { title, document } in chapters {
        let figures = &document.figures;
        let verdict = match (document.verified, document.faults.len()) {
            (false, _) => "FAILED".to_owned(),
            (true, _) if !document.unmet.is_empty() => "verified, but MISSED".to_owned(),
            (true, 0) => "verified".to_owned(),
            (true, faults) => format!("verified, {faults} kills"),
        };
        table.push(format!(
            "{title:<44}{:>12}{:>10.3}{:>10.2}{:>10.3}{:>8.1}  {verdict}",
            grouped(figures.changes),
            figures.seconds,
            figures.changes_per_second / 1e6,
            figures.cpu_us_per_change(),
            figures.rss_mib(),
        ));
        if document.sources.len() > 1 {
            table.extend(document.sources.iter().map(row_of_source));
        }
        let failures = document.failures.iter().chain(&document.unmet);
        table.extend(failures.map(|failure| format!("  {failure}")));
    }
    table.push(line);
    table
}

/// Processor and memory are the engine's, which serves all of them.
fn row_of_source(of: &SourceOf) -> String {
    let known = |known: Option<String>| known.unwrap_or_else(|| "–".to_owned());
    format!(
        "  {:<42}{:>12}{:>10}{:>10}",
        of.source,
        known(of.changes.map(grouped)),
        known(of.seconds.map(|seconds| format!("{seconds:.3}"))),
        known(
            of.changes_per_second
                .map(|rate| format!("{:.2}", rate / 1e6))
        ),
    )
}

fn print(chapters: &[Chapter]) {
    table(chapters).iter().for_each(|line| println!("{line}"));
    println!(
        "Seconds from the first byte of the stream to the broker's last append; CPU per change and peak memory of the engine."
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn each_of_two_databases_has_a_row() {
        let chapter = |document| Chapter {
            title: "a title".into(),
            document,
        };
        let table = table(&[chapter(samples::document(1, 2e6)), chapter(samples::both())]);
        let cells = |row: &String| {
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let rows: Vec<Vec<String>> = table[3..table.len() - 1].iter().map(cells).collect();
        assert_eq!(rows.len(), 4, "{table:#?}");
        assert_eq!(rows[2], ["mysql-9.7-1m", "600,000", "0.400", "1.50"]);
        assert_eq!(rows[3], ["live", "postgres", "400,000", "–", "–"]);
        // The columns are one under the other.
        let end = |row: usize, text: &str| {
            let at = table[row].find(text).unwrap() + text.len();
            table[row][..at].chars().count()
        };
        assert_eq!(end(4, "1,000,000"), end(5, "600,000"));
        assert_eq!(end(4, "0.500"), end(5, "0.400"));
        assert_eq!(end(1, "M/s"), end(5, "1.50"));
    }
}
