//! What of two sides belongs together, what only one of them has, and whether that matters.

use super::side::Side;
use super::whole::Pair;
use crate::report::document::Document;
use crate::report::number::counted;

/// What is passed over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Join {
    /// Judge although machines, scenarios or settings differ, or B lacks what A has.
    pub(crate) across: bool,
    /// B is a part: scenarios and stages of A that it lacks are left out.
    pub(crate) part: bool,
}

/// How much of A is not in B.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacking {
    scenarios: usize,
    stages: usize,
    /// Of scenarios that both have.
    figures: usize,
}

impl Lacking {
    /// Whether there is anything.
    pub(super) fn is_something(&self) -> bool {
        self.scenarios + self.stages + self.figures > 0
    }

    /// `32 scenarios, 1 stage of A (--part leaves them out)`.
    pub(super) fn text(&self) -> String {
        let kinds = [
            (self.scenarios, "scenario"),
            (self.stages, "stage"),
            (self.figures, "figure"),
        ];
        let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(count, noun)| counted(count, noun)).collect();
        let way = match self.figures {
            0 => "--part leaves them out",
            _ => "--across judges all the same",
        };
        format!("{} of A ({way})", kinds.join(", "))
    }
}

/// Reports of the same scenario; two single reports whatever they are of.
pub(super) fn pairs(before: &Side, after: &Side) -> Vec<(Document, Document)> {
    if let (1, 1) = (before.reports.len(), after.reports.len()) {
        let pair = before.reports.values().zip(after.reports.values());
        return pair.map(|(old, new)| (old.clone(), new.clone())).collect();
    }
    let pairs = before.reports.iter();
    let pairs =
        pairs.filter_map(|(name, report)| Some((report.clone(), after.reports.get(name)?.clone())));
    pairs.collect()
}

/// What only one side has, in lines, A's first; and how much of A is not in B although it should be.
pub(super) fn unmatched(
    before: &Side,
    after: &Side,
    pairs: &[Pair],
    passed: Join,
) -> (Vec<String>, Lacking) {
    let (gone, new) = (
        scenarios_only(before, after, pairs),
        scenarios_only(after, before, pairs),
    );
    let (stages_gone, stages_new) = (stages_only(before, after), stages_only(after, before));
    let mut lines = Vec::new();
    let mut lacking = Lacking {
        scenarios: gone.len(),
        stages: stages_gone.len(),
        figures: pairs.iter().map(|pair| pair.gone.len()).sum(),
    };
    if after.is_one {
        // It was asked for by itself: nobody expects the rest there.
        lacking.scenarios = 0;
        if after.stages.is_none() {
            lacking.stages = 0;
        }
    }
    if passed.part {
        (lacking.scenarios, lacking.stages) = (0, 0);
    }
    if passed.across {
        lacking = Lacking::default();
    }
    let sides = [
        (before, after, gone, stages_gone),
        (after, before, new, stages_new),
    ];
    for (one, other, scenarios, stages) in sides {
        let shown = &one.shown;
        match scenarios.len() {
            0 => {}
            many if other.is_one => {
                lines.push(format!("only in {shown}: {}", counted(many, "scenario")));
            }
            _ => lines.push(format!("only in {shown}: {}", scenarios.join(", "))),
        }
        match (stages.len(), &other.stages) {
            (0, _) => {}
            (_, None) => lines.push(format!("only in {shown}: stages")),
            (1, _) => lines.push(format!("only in {shown}: stage {}", stages[0])),
            _ => lines.push(format!("only in {shown}: stages {}", stages.join("; "))),
        }
    }
    for pair in pairs {
        let figures = [
            (before, &pair.before, &pair.gone),
            (after, &pair.after, &pair.new),
        ];
        for (side, document, names) in figures {
            if !names.is_empty() {
                let (shown, scenario) = (&side.shown, &document.scenario);
                lines.push(format!("only in {shown}: {scenario}: {}", names.join("; ")));
            }
        }
    }
    (lines, lacking)
}

/// The scenarios of `one` that are in no pair, as `other` has none of that name.
fn scenarios_only<'a>(one: &'a Side, other: &Side, pairs: &[Pair]) -> Vec<&'a str> {
    let names = one.reports.keys().filter(|name| {
        let is_paired = |pair: &Pair| [&pair.before.scenario, &pair.after.scenario].contains(name);
        !other.reports.contains_key(*name) && !pairs.iter().any(is_paired)
    });
    names.map(String::as_str).collect()
}

/// The stages of `one` that `other` has not.
fn stages_only<'a>(one: &'a Side, other: &Side) -> Vec<&'a str> {
    let Some(of) = &one.stages else {
        return Vec::new();
    };
    match &other.stages {
        Some(others) => of.only(others),
        None => of.stages.iter().map(|stage| stage.name.as_str()).collect(),
    }
}
