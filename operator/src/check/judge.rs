//! Judges facts. Pure: the same facts give the same report.

mod installation;
mod leftovers;
mod mesh;
mod metrics;
mod operator;
mod platform;

use super::facts::Facts;
use super::finding::Report;

/// How many things a message lists.
const LISTED: usize = 5;

/// What is wrong, and what is well.
pub fn judge(facts: &Facts) -> Report {
    let mut report = Report::default();
    platform::judge(facts, &mut report);
    installation::judge(facts, &mut report);
    metrics::judge(facts, &mut report);
    operator::judge(facts, &mut report);
    mesh::judge(facts, &mut report);
    leftovers::judge(facts, &mut report);
    report.findings.sort();
    report.findings.dedup();
    report
}

/// A count with its noun.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The first few, and how many more there are.
fn few(all: &[String]) -> String {
    let shown = all[..all.len().min(LISTED)].join(", ");
    match all.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
