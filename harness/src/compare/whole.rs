//! Two reports of a scenario, figure by figure.

use super::judgement::{Better, Judged, Rules, Verdict};
use super::machine;
use super::obstacles::obstacles;
use super::statistics::SINGLE_RUN_WITHIN;
use crate::report::document::{Document, Figures};
use crate::report::number::{magnitude, milliseconds, percent, three_digits};

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
    /// Figures that only the report before has.
    pub(crate) gone: Vec<&'static str>,
    /// Figures that only the report after has.
    pub(crate) new: Vec<&'static str>,
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

/// Less than this part of the processor for measuring times is as good as nothing.
const TIMING_SHARE_MIN: f64 = 1e-3;

const FIGURES: [Figure; 14] = [
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
        name: "due to log, 99 %",
        better: Better::Lower,
        of: |run| run.due_percentiles().map(|latency| latency.p99),
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
    Figure {
        name: "times the link's limit",
        better: Better::Lower,
        of: times_limit,
        show: |times| format!("× {}", three_digits(times)),
    },
    Figure {
        name: "CPU for measuring times",
        better: Better::Lower,
        of: |run| run.timing.map(|of| of.cpu_share.max(TIMING_SHARE_MIN)),
        show: share,
    },
];

/// How far a run was from what its links can carry. Under a load that is what was offered, and says nothing; older reports have it there.
fn times_limit(run: &Figures) -> Option<f64> {
    let links = run.links.as_ref().filter(|_| run.load.is_none());
    links?.times_limit
}

/// A part of the processor.
fn share(part: f64) -> String {
    match part <= TIMING_SHARE_MIN {
        true => format!("≤ {} %", TIMING_SHARE_MIN * 100.0),
        false => format!("{} %", three_digits(part * 100.0)),
    }
}

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
        gone: only(&before, &after),
        new: only(&after, &before),
        before,
        after,
    }
}

/// The figure in every run of both, where both have it at all.
fn both(figure: &Figure, before: &Document, after: &Document) -> Option<(Vec<f64>, Vec<f64>)> {
    let (old, new) = (values(figure, before), values(figure, after));
    (!old.is_empty() && !new.is_empty()).then_some((old, new))
}

/// The figure in every run. Runs without it (a killed engine leaves no latency) are left out.
fn values(figure: &Figure, document: &Document) -> Vec<f64> {
    document.runs.iter().filter_map(figure.of).collect()
}

/// The names of figures that some run of `one` has, and none of `other`.
fn only(one: &Document, other: &Document) -> Vec<&'static str> {
    let of_one =
        |figure: &&Figure| !values(figure, one).is_empty() && values(figure, other).is_empty();
    let figures = FIGURES.iter().filter(of_one);
    figures.map(|figure| figure.name).collect()
}

fn notes(before: &Document, after: &Document) -> Vec<String> {
    let mut notes = machine::notes(&before.machine, &after.machine);
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
    for (side, document) in [("before", before), ("after", after)] {
        if !document.unmet.is_empty() {
            let unmet = document.unmet.join("; ");
            notes.push(format!(
                "the report {side} misses what is expected: {unmet}"
            ));
        }
    }
    let few = before.runs.len().min(after.runs.len());
    if few < 2 {
        notes.push(format!(
            "one run says nothing about noise: it is assumed to lie within {} of what many would come to; make both with --runs 5 or more",
            percent(SINGLE_RUN_WITHIN)
        ));
    }
    let silent: Vec<&str> = [("before", before), ("after", after)]
        .into_iter()
        .filter_map(|(side, document)| document.settings.is_none().then_some(side))
        .collect();
    if let [side] = silent[..] {
        notes.push(format!(
            "the report {side} is an older one and does not say its settings: whether both are of the same is not known"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::Load;
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
    fn commits_that_had_to_wait_are_judged_from_when_they_were_due() {
        let later = |by: f64| {
            let mut document = samples::loaded();
            for (number, run) in document.runs.iter_mut().enumerate() {
                let due = run
                    .load
                    .as_mut()
                    .and_then(|load| load.due_latency_ms.as_mut());
                due.unwrap().p99 = by + 0.1 * number as f64;
            }
            document
        };
        let pair = &judged(vec![(later(30.0), later(300.0))], &RULES, false)[0];
        let worse = |figure: &&Judged| figure.verdict == Verdict::Regression;
        let names: Vec<&str> = (pair.figures.iter().filter(worse))
            .map(|figure| figure.name.as_str())
            .collect();
        assert_eq!(names, ["due to log, 99 %"]);
    }

    #[test]
    fn the_links_limit_and_the_clocks_are_judged() {
        let changed = |change: &dyn Fn(&mut Figures, f64)| {
            let mut after = samples::linked();
            for (number, run) in after.runs.iter_mut().enumerate() {
                change(run, 1.0 + 0.01 * number as f64);
            }
            judged(vec![(samples::linked(), after)], &RULES, false).remove(0)
        };
        let slower = changed(&|run, noise| {
            let links = run.links.as_mut().unwrap();
            links.times_limit = Some(2.5 * noise);
        });
        assert_eq!(
            verdict(&slower, "times the link's limit"),
            Verdict::Regression
        );
        let clocks = |share: f64| {
            changed(&|run, noise| run.timing.as_mut().unwrap().cpu_share = share * noise)
        };
        let name = "CPU for measuring times";
        assert_eq!(verdict(&clocks(0.02), name), Verdict::Regression);
        // Ten times next to nothing is next to nothing.
        let little = clocks(4.7e-4);
        assert_eq!(verdict(&little, name), Verdict::Equal);
        let figure = little.figures.iter().find(|figure| figure.name == name);
        assert_eq!(figure.unwrap().after, "≤ 0.1 %");
    }

    #[test]
    fn how_long_a_load_was_offered_is_no_figure_of_its_links() {
        let mut both = samples::linked();
        for run in both.runs.iter_mut().chain([&mut both.figures]) {
            run.load = samples::loaded().figures.load;
        }
        let pair = &judged(vec![(both.clone(), both)], &RULES, false)[0];
        let name = "times the link's limit";
        assert!(pair.figures.iter().all(|figure| figure.name != name));
    }

    #[test]
    fn figures_of_one_side_alone_are_named() {
        let mut without = samples::document(5, 2e6);
        without
            .runs
            .iter_mut()
            .for_each(|run| run.latency_ms = None);
        let names = ["latency, median", "latency, 99 %", "latency, 99.9 %"];
        let pair = |before: &Document, after: &Document| {
            judged(vec![(before.clone(), after.clone())], &RULES, false).remove(0)
        };
        let gone = pair(&samples::document(5, 2e6), &without);
        assert_eq!((&gone.gone[..], &gone.new[..]), (&names[..], &[""; 0][..]));
        let new = pair(&without, &samples::document(5, 2e6));
        assert_eq!((&new.gone[..], &new.new[..]), (&[""; 0][..], &names[..]));
        // One run that has it is enough to be compared, and none on either side is none that is gone.
        without.runs[0].latency_ms = samples::document(1, 2e6).figures.latency_ms;
        assert_eq!(pair(&samples::document(5, 2e6), &without).gone, [""; 0]);
    }

    #[test]
    fn a_report_that_does_not_say_its_settings_is_no_obstacle_but_said() {
        let (before, mut after) = (samples::document(5, 2e6), samples::document(5, 2e6));
        after.settings = Some(serde_json::json!({ "walbrook": {} }));
        let pair = &judged(vec![(before, after)], &RULES, false)[0];
        assert!(pair.obstacles.is_empty(), "{:?}", pair.obstacles);
        let note = "the report before is an older one and does not say its settings";
        assert!(
            pair.notes.iter().any(|of| of.starts_with(note)),
            "{:?}",
            pair.notes
        );
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
    fn a_report_that_does_not_say_its_generation_of_processor_is_a_note() {
        let (before, mut after) = (samples::document(5, 2e6), samples::document(5, 2e6));
        after.machine = "A <machine> (family 25 model 17 stepping 1), 2 cores".into();
        let pair = &judged(vec![(before, after)], &RULES, false)[0];
        assert!(pair.obstacles.is_empty(), "{:?}", pair.obstacles);
        let notes = pair.notes.iter();
        let said = notes.filter(|note| note.contains("does not say its processor"));
        assert_eq!(said.count(), 1, "{:?}", pair.notes);
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
