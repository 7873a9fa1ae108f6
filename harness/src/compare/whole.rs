//! Two reports of a scenario, figure by figure.

use super::judgement::{Better, Judged, Rules, Verdict};
use crate::report::document::{Document, Figures, Links};
use crate::report::number::{magnitude, milliseconds, three_digits};

/// A scenario on both sides.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Before.
    pub(crate) before: Document,
    /// After.
    pub(crate) after: Document,
    /// Figures, judged.
    pub(crate) figures: Vec<Judged>,
    /// Why the two are no measure of each other: other machine, other scenario, other amount of work.
    pub(crate) obstacles: Vec<String>,
    /// What a reader should know besides.
    pub(crate) notes: Vec<String>,
}

/// A figure that is judged: its name, which way is better, a run's value, and how it is shown.
struct Figure {
    name: &'static str,
    better: Better,
    of: fn(&Figures) -> Option<f64>,
    show: fn(f64) -> String,
}

const FIGURES: [Figure; 9] = [
    Figure {
        name: "changes per second",
        better: Better::Higher,
        of: |run| Some(run.changes_per_second),
        show: |rate| format!("{}/s", magnitude(rate)),
    },
    Figure {
        name: "CPU per change",
        better: Better::Lower,
        of: |run| Some(run.cpu_us_per_change()),
        show: |us| milliseconds(us / 1e3),
    },
    Figure {
        name: "peak memory",
        better: Better::Lower,
        of: |run| Some(run.rss_mib()),
        show: |mib| format!("{} MiB", three_digits(mib)),
    },
    Figure {
        name: "bytes to Kafka per change",
        better: Better::Lower,
        of: |run| Some(run.bytes_out as f64 / run.changes.max(1) as f64),
        show: three_digits,
    },
    Figure {
        name: "commit to log, median",
        better: Better::Lower,
        of: |run| run.commit_percentiles().map(|latency| latency.p50),
        show: milliseconds,
    },
    Figure {
        name: "commit to log, 99 %",
        better: Better::Lower,
        of: |run| run.commit_percentiles().map(|latency| latency.p99),
        show: milliseconds,
    },
    Figure {
        name: "latency, median",
        better: Better::Lower,
        of: |run| run.latency_ms.map(|latency| latency.p50),
        show: milliseconds,
    },
    Figure {
        name: "latency, 99 %",
        better: Better::Lower,
        of: |run| run.latency_ms.map(|latency| latency.p99),
        show: milliseconds,
    },
    Figure {
        name: "latency, 99.9 %",
        better: Better::Lower,
        of: |run| run.latency_ms.map(|latency| latency.p999),
        show: milliseconds,
    },
];

/// Judges these scenarios together: `rules.alpha` is for all their figures.
#[must_use]
pub(super) fn judged(pairs: Vec<(Document, Document)>, rules: &Rules, across: bool) -> Vec<Pair> {
    let count: usize = (pairs.iter())
        .map(|(before, after)| {
            FIGURES
                .iter()
                .filter(|figure| both(figure, before, after).is_some())
                .count()
        })
        .sum();
    let alpha = rules.alpha / count.max(1) as f64;
    (pairs.into_iter())
        .map(|(before, after)| pair(before, after, (rules.tolerance, alpha), across))
        .collect()
}

fn pair(before: Document, after: Document, rules: (f64, f64), across: bool) -> Pair {
    let obstacles = obstacles(&before, &after);
    let figures = FIGURES.iter().filter_map(|figure| {
        let (old, new) = both(figure, &before, &after)?;
        let mut judged =
            Judged::of_runs(figure.name, (&old, &new), figure.better, figure.show, rules);
        if !obstacles.is_empty() && !across {
            judged.verdict = Verdict::NotComparable;
        }
        Some(judged)
    });
    Pair {
        figures: figures.collect(),
        notes: notes(&before, &after),
        obstacles,
        before,
        after,
    }
}

/// The figure in every run of both, where both have it at all. Runs without it (a killed engine leaves no latency) are left out.
fn both(figure: &Figure, before: &Document, after: &Document) -> Option<(Vec<f64>, Vec<f64>)> {
    let of =
        |document: &Document| -> Vec<f64> { document.runs.iter().filter_map(figure.of).collect() };
    let (old, new) = (of(before), of(after));
    (!old.is_empty() && !new.is_empty()).then_some((old, new))
}

fn obstacles(before: &Document, after: &Document) -> Vec<String> {
    let mut obstacles = Vec::new();
    let mut differ = |what: &str, old: &str, new: &str| {
        if old != new {
            obstacles.push(format!("{what}: {old} before, {new} after"));
        }
    };
    differ("different scenarios", &before.scenario, &after.scenario);
    differ("different sources", &before.source, &after.source);
    // Older reports do not say.
    if !before.broker.is_empty() && !after.broker.is_empty() {
        differ("different brokers", &before.broker, &after.broker);
    }
    if let (Some(old), Some(new)) = (&before.figures.links, &after.figures.links) {
        differ("links emulated otherwise", &old.backend, &new.backend);
        differ("different links", &profiles(old), &profiles(new));
    }
    differ(
        "different machines",
        hardware(&before.machine),
        hardware(&after.machine),
    );
    differ(
        "different numbers of changes",
        &before.figures.changes.to_string(),
        &after.figures.changes.to_string(),
    );
    for (side, document) in [("before", before), ("after", after)] {
        if !document.verified {
            let why = document.failures.first().map_or("", String::as_str);
            obstacles.push(format!("the report {side} is not verified: {why}"));
        }
    }
    obstacles
}

/// What the links were told to be like.
fn profiles(links: &Links) -> String {
    let links = links.links.iter().map(|link| {
        let (to, from) = (&link.to_engine.profile, &link.from_engine.profile);
        let one = link.seen_from.as_deref().unwrap_or("the engine");
        format!("{}: to {one} {to}, from it {from}", link.host)
    });
    links.collect::<Vec<_>>().join("; ")
}

fn notes(before: &Document, after: &Document) -> Vec<String> {
    let mut notes = Vec::new();
    if hardware(&before.machine) == hardware(&after.machine) && before.machine != after.machine {
        notes.push(format!(
            "another kernel: {} before, {} after",
            before.machine, after.machine
        ));
    }
    if before.commit == after.commit {
        notes.push(format!("both are of commit {}", before.commit));
    }
    let few = before.runs.len().min(after.runs.len());
    if few < 2 {
        notes.push("one run says nothing about noise: make both with --runs 5 or more".into());
    }
    notes
}

/// The machine without its kernel.
fn hardware(machine: &str) -> &str {
    machine
        .rsplit_once(", Linux ")
        .map_or(machine, |(hardware, _)| hardware)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    const RULES: Rules = Rules {
        tolerance: 1.05,
        alpha: 0.05,
    };

    fn verdict(pair: &Pair, name: &str) -> Verdict {
        pair.figures
            .iter()
            .find(|figure| figure.name == name)
            .unwrap()
            .verdict
    }

    #[test]
    fn a_slower_commit_is_a_regression_of_rate_and_processor_time() {
        let pairs = vec![(samples::document(5, 2.0e6), samples::document(5, 1.6e6))];
        let pair = &judged(pairs, &RULES, false)[0];
        assert!(pair.obstacles.is_empty(), "{:?}", pair.obstacles);
        assert_eq!(verdict(pair, "changes per second"), Verdict::Regression);
        assert_eq!(verdict(pair, "CPU per change"), Verdict::Regression);
        assert_eq!(verdict(pair, "peak memory"), Verdict::Equal);
        assert!(pair.notes[0].contains("both are of commit"));
    }

    #[test]
    fn other_machines_and_scenarios_are_said_and_not_judged() {
        let (before, mut after) = (samples::document(5, 2.0e6), samples::document(5, 1.0e6));
        after.machine = "Another, 64 cores, Linux 7.0".into();
        after.scenario = "postgres-1m".into();
        let pair = &judged(vec![(before.clone(), after.clone())], &RULES, false)[0];
        assert_eq!(pair.obstacles.len(), 2, "{:?}", pair.obstacles);
        assert!(
            pair.figures
                .iter()
                .all(|figure| figure.verdict == Verdict::NotComparable)
        );
        let across = &judged(vec![(before, after)], &RULES, true)[0];
        assert_eq!(verdict(across, "changes per second"), Verdict::Regression);
    }

    #[test]
    fn links_of_another_make_or_profile_are_no_measure() {
        let obstacles_with = |change: fn(&mut Links)| {
            let mut after = samples::linked();
            after.figures.links.as_mut().map(change).unwrap();
            obstacles(&samples::linked(), &after)
        };
        assert_eq!(obstacles_with(|_| {}), [""; 0]);
        let proxy = obstacles_with(|links| links.backend = "proxy".into());
        assert_eq!(proxy, ["links emulated otherwise: tun before, proxy after"]);
        let slow = obstacles_with(|links| links.links[0].from_engine.profile = "delay 1s".into());
        assert_eq!(slow.len(), 1, "{slow:?}");
        assert!(slow[0].starts_with("different links: ") && slow[0].contains("delay 1s after"));
        // Bytes and losses are what was measured.
        let more = obstacles_with(|links| links.links[0].to_engine.bytes += 1);
        assert_eq!(more, [""; 0]);
    }

    #[test]
    fn another_kernel_is_a_note() {
        let (mut before, mut after) = (samples::document(5, 2.0e6), samples::document(5, 2.0e6));
        before.machine = "A, 2 cores, Linux 6.1".into();
        after.machine = "A, 2 cores, Linux 6.2".into();
        let pair = &judged(vec![(before, after)], &RULES, false)[0];
        assert!(
            pair.obstacles.is_empty() && pair.notes[0].contains("another kernel"),
            "{pair:?}"
        );
    }

    #[test]
    fn what_was_not_verified_is_no_measure() {
        let pair = &judged(
            vec![(samples::document(1, 2e6), samples::killed())],
            &RULES,
            false,
        )[0];
        assert!(
            pair.obstacles[0].contains("not verified: changes: expected 1"),
            "{:?}",
            pair.obstacles
        );
        assert_eq!(pair.figures.len(), 4, "no latency on one side");
        assert!(pair.notes.iter().any(|note| note.contains("--runs 5")));
    }
}
