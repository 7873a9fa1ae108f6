//! The commands: `harness compare`, which reads both sides and says what became of them, and `harness stages`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::comparison::{Comparison, NOT_COMPARABLE};
use super::join::Join;
use super::judgement::Rules;
use super::side::Side;
use super::stages::Stages;
use super::{page, table};
use crate::cli;
use crate::report::number::counted;

/// `harness compare`: two sides, figure by figure, and whether B is worse than A.
///
/// A side is a report of `harness replay --report`, a file of `harness stages`, criterion's directory (`target/criterion`, or
/// `target/criterion:NAME` for a saved baseline), or a directory with any of these; reports are joined by scenario, stages by name.
/// Where B is one report, or stages alone, only that is compared with A, whatever else A holds.
///
/// Exit status: 0 no regression, 1 a regression beyond noise and tolerance, 2 not comparable: different machines, scenarios or
/// settings, something in A that B lacks, files that cannot be read.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The side before: a report, or a stored baseline such as benches/record/COMMIT.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The side after.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Write a page with pictures.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Differences of at most so many percent do not matter.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    tolerance: f64,
    /// How certain all intervals of a kind are together, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent)]
    confidence: f64,
    /// B is a part: scenarios and stages of A that it lacks are left out.
    #[arg(long)]
    part: bool,
    /// Judge although machines, scenarios or settings differ, or B lacks what A has.
    #[arg(long)]
    across: bool,
}

/// `harness stages`: criterion's results as one small file that can be kept and compared.
///
/// Its commit and machine are what the benches wrote down beside their results; results of several builds are refused. Where they wrote
/// nothing, it is the harness's commit, and the file says so.
#[derive(Debug, clap::Args)]
pub struct StagesArgs {
    /// Criterion's directory, or DIR:NAME for a saved baseline.
    #[arg(default_value = "target/criterion")]
    criterion: PathBuf,
    /// Where to write; stdout when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Add to what the file holds: another process's figures of the same benches, so that noise between processes is known.
    #[arg(long, requires = "out")]
    add: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(percent),
        _ => Err("expected a number above 0 and below 100".into()),
    }
}

/// Runs `harness compare`.
///
/// # Errors
/// None: what cannot be read or written, and nothing that both sides have, goes to stderr with the status of what cannot be judged.
pub fn run(args: &Args) -> cli::Outcome {
    // Status 1, that of other errors, would say that there is a regression.
    Ok(compared(args).unwrap_or_else(|error| {
        eprintln!("harness: {error}");
        ExitCode::from(NOT_COMPARABLE)
    }))
}

fn compared(args: &Args) -> cli::Outcome {
    let rules = Rules {
        tolerance: 1.0 + args.tolerance / 100.0,
        alpha: 1.0 - args.confidence / 100.0,
    };
    let join = Join {
        across: args.across,
        part: args.part,
    };
    let (before, after) = (Side::read(&args.before)?, Side::read(&args.after)?);
    let comparison = Comparison::of(before, after, rules, join)?;
    table::print(&comparison);
    if let Some(path) = &args.html {
        crate::report::put(path, &page::html(&comparison)?)?;
        println!("\nThe pictures: {}", path.display());
    }
    Ok(comparison.status())
}

/// Runs `harness stages`.
///
/// # Errors
/// Results that cannot be read, a file that cannot be written or is of another machine or commit.
pub fn run_stages(args: &StagesArgs) -> cli::Outcome {
    let side = Side::read(&args.criterion)?;
    let Some(new) = side.stages else {
        return Err(format!("{}: reports, but no results of criterion", side.shown).into());
    };
    let mut stages = match (&args.out, args.add) {
        (Some(path), true) => {
            let shown = path.display();
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
            Stages::parse(&text).map_err(|error| format!("{shown}: {error}"))?
        }
        _ => Stages {
            stages: Vec::new(),
            ..new.clone()
        },
    };
    stages.add(new).map_err(|error| match &args.out {
        Some(path) => format!("{}: {error}", path.display()),
        None => error,
    })?;
    let text = serde_json::to_string_pretty(&stages)? + "\n";
    match &args.out {
        Some(path) => crate::report::put(path, &text)?,
        None => print!("{text}"),
    }
    for stage in &stages.stages {
        eprintln!(
            "{:<52}{:>12}  {}",
            stage.name,
            stage.shown(),
            counted(stage.processes.len(), "process")
        );
    }
    let Stages {
        commit, machine, ..
    } = &stages;
    eprintln!("of commit {commit} on {machine}");
    if let Some(doubt) = stages.doubt() {
        eprintln!("{doubt}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::criterion::tests::{build, criterion};

    #[test]
    fn what_cannot_be_read_is_no_regression() {
        let args = Args {
            before: "/nowhere/a.json".into(),
            after: "/nowhere/b.json".into(),
            html: None,
            tolerance: 5.0,
            confidence: 95.0,
            part: false,
            across: false,
        };
        assert_eq!(run(&args).unwrap(), ExitCode::from(NOT_COMPARABLE));
    }

    #[test]
    fn a_file_of_stages_has_the_benches_commit_and_takes_no_other() {
        let kept = tempfile::tempdir().unwrap();
        let file = kept.path().join("not yet there/stages.json");
        let gather = |median: f64, commit: &str, add: bool| {
            let directory = criterion(&[("a/b", median)], "new");
            build(directory.path(), "a/b", commit, median);
            run_stages(&StagesArgs {
                criterion: directory.path().to_owned(),
                out: Some(file.clone()),
                add,
            })
        };
        gather(5.0, "c0ffee", false).unwrap();
        gather(6.0, "c0ffee", true).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let stages = Stages::parse(&text).unwrap();
        assert_eq!(stages.commit, "c0ffee");
        assert_eq!(stages.stages[0].processes.len(), 2);
        let other = gather(7.0, "decaf", true).unwrap_err().to_string();
        let expected = "stages.json: the file is of commit `c0ffee`, these results are of `decaf`";
        assert!(other.contains(expected), "{other}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn percentages_are_checked() {
        assert_eq!(percent("5"), Ok(5.0));
        assert!(percent("0").is_err() && percent("100").is_err() && percent("x").is_err());
    }
}
