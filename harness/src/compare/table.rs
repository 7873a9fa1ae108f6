//! A comparison on the terminal.

use super::comparison::Comparison;
use super::judgement::Judged;
use crate::report::number::counted;

/// Prints every figure of both sides and what they come to.
pub(super) fn print(comparison: &Comparison) {
    let tolerance = comparison.rules.tolerance;
    for pair in &comparison.pairs {
        let (before, after) = (&pair.before, &pair.after);
        println!(
            "{}: {} ({}) → {} ({})",
            after.scenario,
            before.commit,
            counted(before.runs.len(), "run"),
            after.commit,
            counted(after.runs.len(), "run")
        );
        pair.obstacles
            .iter()
            .for_each(|obstacle| println!("  !! {obstacle}"));
        pair.notes.iter().for_each(|note| println!("  {note}"));
        table(&pair.figures, tolerance);
        println!();
    }
    if let (false, Some(before), Some(after)) = (
        comparison.stages.is_empty(),
        &comparison.before.stages,
        &comparison.after.stages,
    ) {
        println!(
            "stages, time per row or record, or bytes by time: {} → {}",
            before.commit, after.commit
        );
        (comparison.stage_obstacles.iter()).for_each(|obstacle| println!("  !! {obstacle}"));
        (comparison.stage_notes.iter()).for_each(|note| println!("  {note}"));
        table(&comparison.stages, tolerance);
        println!();
    }
    (comparison.unmatched.iter()).for_each(|line| println!("{line}"));
    let (verdict, figures) = comparison.verdict();
    match figures.as_slice() {
        [] => println!("{verdict}"),
        [one] => println!("{verdict}: {one}"),
        several => {
            println!("{verdict}:");
            several.iter().for_each(|figure| println!("  {figure}"));
        }
    }
}

fn table(figures: &[Judged], tolerance: f64) {
    let widest = figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max();
    let width = widest.unwrap_or(0).max(26) + 2;
    println!(
        "  {:<width$}{:>12}{:>12}{:>10}{:>22}  verdict",
        "", "before", "after", "change", "interval"
    );
    for figure in figures {
        let (moved, interval) = figure.moved();
        println!(
            "  {:<width$}{:>12}{:>12}{moved:>10}{interval:>22}  {}",
            figure.name,
            figure.before,
            figure.after,
            figure.said(tolerance)
        );
    }
}
