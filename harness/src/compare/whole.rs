//! Two reports of a scenario, figure by figure.

use super::judgement::{Better, Judged, Rules, Verdict};
use crate::report::document::{Document, Figures, Links, Load};
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

const FIGURES: [Figure; 11] = [
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
        name: "over the round trip, median",
        better: Better::Lower,
        of: |run| run.over_round_trip().map(|over| positive(over.p50)),
        show: milliseconds,
    },
    Figure {
        name: "over the round trip, 99 %",
        better: Better::Lower,
        of: |run| run.over_round_trip().map(|over| positive(over.p99)),
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

/// A time over links in milliseconds: what is below the clock's grain is as good as that, and has a logarithm.
fn positive(ms: f64) -> f64 {
    ms.max(1e-3)
}

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
    if !is_same_source(&before.source, &after.source) {
        differ("different sources", &before.source, &after.source);
    }
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
    let loads = [before, after].map(|document| document.figures.load.as_ref());
    if let [Some(old), Some(new)] = loads {
        differ("different loads", &offer(old), &offer(new));
        // Older reports do not say.
        if let (Some(old), Some(new)) = (old.offered_seconds, new.offered_seconds) {
            differ("loads of different length", &seconds(old), &seconds(new));
        }
    }
    // Where as many were offered as the server takes, how many it took is what was measured.
    let is_open =
        |load: Option<&Load>| load.is_some_and(|load| load.offered_changes_per_second.is_none());
    if !loads.into_iter().all(is_open) {
        differ(
            "different numbers of changes",
            &before.figures.changes.to_string(),
            &after.figures.changes.to_string(),
        );
    }
    for (side, document) in [("before", before), ("after", after)] {
        if !document.verified {
            let why = document.failures.first().map_or("", String::as_str);
            obstacles.push(format!("the report {side} is not verified: {why}"));
        }
    }
    obstacles
}

/// Whether these are the same, as far as both say: older reports do not say which live server theirs was.
fn is_same_source(old: &str, new: &str) -> bool {
    const UNNAMED: &str = "live server";
    let is_live = |one: &str| one.starts_with("live ");
    let is_same = |(old, new): (&str, &str)| {
        let is_unnamed = old == UNNAMED || new == UNNAMED;
        old == new || (is_unnamed && is_live(old) && is_live(new))
    };
    let (old, new) = (old.split(" + "), new.split(" + "));
    old.clone().count() == new.clone().count() && old.zip(new).all(is_same)
}

/// What was offered.
fn offer(load: &Load) -> String {
    let rate = match load.offered_changes_per_second {
        Some(rate) => format!("{rate} changes/s"),
        None => "as many changes as the server takes".to_owned(),
    };
    let (rows, writers) = (load.rows_per_commit, load.writers);
    format!("{rate}, {rows} a commit, by {writers} writers")
}

fn seconds(length: f64) -> String {
    format!("{length} s")
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
    for (old, new) in before.sources.iter().zip(&after.sources) {
        if old.source == new.source && old.server != new.server {
            notes.push(format!(
                "another server: {} before, {} after",
                old.server, new.server
            ));
        }
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
    fn how_much_a_saturated_server_took_is_a_figure_and_no_obstacle() {
        let took = |changes: u64, open: bool| {
            let mut document = samples::loaded();
            for figures in document.runs.iter_mut().chain([&mut document.figures]) {
                figures.changes = changes;
                if let Some(load) = figures.load.as_mut().filter(|_| open) {
                    load.offered_changes_per_second = None;
                }
            }
            document
        };
        let saturated = |changes| took(changes, true);
        assert_eq!(
            obstacles(&saturated(1_000_000), &saturated(1_100_000)),
            [""; 0]
        );
        let pair = &judged(
            vec![(saturated(1_000_000), saturated(1_100_000))],
            &RULES,
            false,
        )[0];
        let is_judged = |figure: &Judged| figure.verdict != Verdict::NotComparable;
        assert!(pair.figures.iter().all(is_judged), "{:?}", pair.figures);
        // What was offered must have come.
        let offered = obstacles(&took(1_000_000, false), &took(1_100_000, false));
        assert!(
            offered[0].starts_with("different numbers of changes"),
            "{offered:?}"
        );
        let with = |change: fn(&mut Load)| {
            let mut after = saturated(1_000_000);
            after.figures.load.as_mut().map(change).unwrap();
            obstacles(&saturated(1_000_000), &after)
        };
        let other = with(|load| load.writers = 8);
        assert!(
            other[0].starts_with("different loads: as many"),
            "{other:?}"
        );
        let longer = with(|load| load.offered_seconds = Some(32.0));
        assert_eq!(
            longer,
            ["loads of different length: 16 s before, 32 s after"]
        );
        assert_eq!(with(|load| load.offered_seconds = None), [""; 0]);
        // A rate on one side alone is another load, and another number of changes.
        let one = obstacles(&saturated(1_000_000), &took(1_100_000, false));
        assert_eq!(one.len(), 2, "{one:?}");
    }

    #[test]
    fn what_is_over_the_round_trip_is_judged() {
        let later = |by: f64| {
            let mut document = samples::loaded();
            for (number, run) in document.runs.iter_mut().enumerate() {
                let links = run.load.as_mut().and_then(|load| load.over_links.as_mut());
                let over = links.and_then(|links| links.commit_ms.as_mut()).unwrap();
                over.p50 = 1.0 + by + 0.01 * number as f64;
            }
            document
        };
        let pair = &judged(vec![(later(0.0), later(1.0))], &RULES, false)[0];
        let name = "over the round trip, median";
        assert_eq!(verdict(pair, name), Verdict::Regression);
        // Less than nothing is noise of the links' measure.
        let pair = &judged(vec![(later(0.0), later(-2.0))], &RULES, false)[0];
        assert_eq!(verdict(pair, name), Verdict::Improvement);
    }

    #[test]
    fn sources_are_the_same_where_older_reports_do_not_say() {
        let obstacles_of = |old: &str, new: &str| {
            let (mut before, mut after) = (samples::both(), samples::both());
            (before.source, after.source) = (old.into(), new.into());
            obstacles(&before, &after)
        };
        for (old, new) in [
            ("live server", "live mysql"),
            ("live mysql", "live mysql"),
            ("mysql-9.7-1m + live server", "mysql-9.7-1m + live postgres"),
        ] {
            assert_eq!(obstacles_of(old, new), [""; 0], "{old}, {new}");
        }
        for (old, new) in [
            ("live mysql", "live postgres"),
            ("live server", "mysql-9.7-1m"),
            ("mysql-9.7-1m", "mysql-9.7-1m + postgres-15-1m"),
            ("mysql-9.7-1m + live server", "mysql-9.7-20k + live mysql"),
        ] {
            let expected = format!("different sources: {old} before, {new} after");
            assert_eq!(obstacles_of(old, new), [expected]);
        }
    }

    #[test]
    fn another_version_of_a_server_is_a_note() {
        let mut after = samples::both();
        after.sources[1].server = "postgres 15.19".into();
        let of_servers = |after: &Document| -> Vec<String> {
            let notes = notes(&samples::both(), after).into_iter();
            notes.filter(|note| note.contains("server")).collect()
        };
        let expected = "another server: postgres 15.18 before, postgres 15.19 after";
        assert_eq!(of_servers(&after), [expected]);
        assert_eq!(of_servers(&samples::both()), [""; 0]);
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
