//! The tables of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::flow::{Book, Counts};
use crate::usage::{Sample, Usage};

/// Rows of the table of memory and CPU.
const ROWS: u32 = 15;

fn killed(counts: &Counts) -> String {
    let each = counts.killed.iter();
    let list: Vec<String> = each.map(|(reason, n)| format!("{n} {reason}")).collect();
    if list.is_empty() {
        "0".to_owned()
    } else {
        list.join(", ")
    }
}

fn row(text: &mut String, name: &str, counts: &Counts, back: &str) {
    let _ = writeln!(
        text,
        "| {name} | {back} | {} | {} | {} | {} | {} | {} | {} |",
        counts.sent,
        counts.limited,
        counts.lost,
        counts.refused_wrongly,
        counts.passed_wrongly,
        counts.misrouted,
        killed(counts)
    );
}

const HEAD: &str = "ready again | requests | limited | lost | refused below the limit | passed above the limit | wrongly routed | \
                    by a kill of a proxy itself |\n|---|---|---|---|---|---|---|---|---|\n";

/// A row for each disturbance, then one for each client.
pub fn counted(book: &Book, names: &[(String, Duration)]) -> String {
    let (mut text, mut clients) = (format!("| killed | {HEAD}"), BTreeMap::new());
    let (mut each, mut all) = (BTreeMap::new(), Counts::default());
    for ((disturbance, flow), counts) in book.counts() {
        let name = names.get(disturbance).map_or("", |(name, _)| name);
        each.entry(name.to_owned())
            .or_insert_with(Counts::default)
            .add(&counts);
        clients
            .entry(flow)
            .or_insert_with(Counts::default)
            .add(&counts);
        all.add(&counts);
    }
    let mut written: Vec<&str> = Vec::new();
    for (name, _) in names {
        if written.contains(&name.as_str()) {
            continue;
        }
        written.push(name);
        let times = names.iter().filter(|(n, _)| n == name);
        let times: Vec<String> = times
            .map(|(_, took)| format!("{:.1} s", took.as_secs_f64()))
            .collect();
        let counts = each.get(name).cloned().unwrap_or_default();
        row(&mut text, name, &counts, &times.join(", "));
    }
    row(&mut text, "**all**", &all, "");
    let _ = write!(text, "\n| client | {HEAD}");
    for (flow, counts) in clients {
        row(&mut text, flow, &counts, "");
    }
    text
}

/// Memory and CPU of both replicas, means of equal spans.
pub fn used(usage: &Usage) -> String {
    let mut text =
        "| until | replica 0: MiB | CPU | replica 1: MiB | CPU |\n|---|---|---|---|---|\n"
            .to_owned();
    let end = usage.samples.last().map_or(Duration::ZERO, |s| s.at);
    let span = (end / ROWS).max(Duration::from_secs(1));
    for number in (0..=ROWS).take_while(|n| span * *n < end) {
        let within = |s: &&Sample| s.at >= span * number && s.at < span * (number + 1);
        let of = |replica: usize| {
            let found: Vec<&Sample> = usage
                .samples
                .iter()
                .filter(within)
                .filter(|s| s.replica == replica)
                .collect();
            if found.is_empty() {
                return "- | -".to_owned();
            }
            let n = found.len() as f64;
            let memory = found.iter().map(|s| s.resident).fold(0.0, f64::max);
            let cpu = found.iter().map(|s| s.cpu).sum::<f64>() / n;
            format!("{memory:.0} | {:.1} %", cpu * 100.0)
        };
        let until = (span * (number + 1)).as_secs();
        let _ = writeln!(text, "| {until} s | {} | {} |", of(0), of(1));
    }
    text
}
