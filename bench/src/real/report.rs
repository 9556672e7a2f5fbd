//! Tables, JSON and the picture.

use std::fmt::Write as _;

use serde::Serialize;
use trimtab_lab::plot::{Axis, Marker, PALETTE, Plot, Series, Style, svg};

use super::client::Record;
use super::control::Decision;
use super::figures::{Figures, Second, ideal};
use super::schedule::{self, FULL, Schedule};
use super::variant::Variant;
use super::{capacity, variant};

/// What one variant gave.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Name of the variant.
    pub variant: &'static str,
    /// Its figures.
    pub figures: Figures,
    /// What Plant A says of it.
    pub simulated: Option<Figures>,
    /// Each second.
    pub seconds: Vec<Second>,
    /// Each decision.
    pub decisions: Vec<Decision>,
}

impl Run {
    /// Figures of what clients saw.
    pub fn new(
        schedule: Schedule,
        variant: Variant,
        record: Record,
        decisions: Vec<Decision>,
        simulated: Option<Figures>,
    ) -> Self {
        Self {
            variant: variant.name(),
            figures: Figures::of(schedule, &record.seconds, &record.times),
            simulated,
            seconds: record.seconds,
            decisions,
        }
    }
}

/// The table: goodput by what could have been answered, simulated figures in brackets.
pub fn table(runs: &[Run]) -> String {
    let mut out = format!(
        "{} workers, {:.0} requests per second; goodput by what could have been answered, Plant A's in brackets\n\n| |",
        variant::workers(),
        capacity()
    );
    for phase in FULL {
        let _ = write!(out, " {} |", phase.name);
    }
    out.push_str(" from 2x on | late | p95, s | refused before | 20 s after | failed |\n|---|");
    out.push_str(&"---|".repeat(FULL.len() + 6));
    for run in runs {
        let with = |real: f64, simulated: Option<f64>| match simulated {
            Some(simulated) => format!("{real:.2} ({simulated:.2})"),
            None => format!("{real:.2}"),
        };
        let _ = write!(out, "\n| {} |", run.variant);
        let simulated = run.simulated.as_ref();
        for (index, part) in run.figures.parts.iter().enumerate() {
            let theirs = simulated.and_then(|figures| figures.parts.get(index));
            let _ = write!(out, " {} |", with(part.good, theirs.map(|part| part.good)));
        }
        let figures = &run.figures;
        let _ = write!(
            out,
            " {} | {} | {} | {:.0} | {:.0} | {:.0} |",
            with(figures.good, simulated.map(|f| f.good)),
            with(figures.late, simulated.map(|f| f.late)),
            figures
                .p95_s
                .map_or("-".to_owned(), |p95| format!("{p95:.2}")),
            figures.refused_before,
            figures.refused_after,
            figures.failed
        );
    }
    out.push('\n');
    out
}

/// What Plant A says, without a real run.
pub fn predictions(figures: &[(&str, Figures)]) -> String {
    let mut out = String::new();
    for (variant, figures) in figures {
        let _ = write!(out, "{variant}:");
        for part in &figures.parts {
            let _ = write!(out, " {} {:.2},", part.phase, part.good);
        }
        let _ = writeln!(
            out,
            " from 2x on {:.2}, late {:.2}, refused before {:.0}, 20 s after {:.0}",
            figures.good, figures.late, figures.refused_before, figures.refused_after
        );
    }
    out
}

/// Variants in the picture, and their colours.
const SHOWN: [Variant; 5] = [
    Variant::Nothing,
    Variant::Slime,
    Variant::AdaptiveConcurrency,
    Variant::Bounds,
    Variant::Bucket,
];

/// Goodput over time.
pub fn picture(runs: &[Run]) -> String {
    let end = FULL.last().map_or(0.0, |phase| phase.until);
    let mut series = vec![Series {
        label: "could be answered".to_owned(),
        color: "#8a8f99".to_owned(),
        points: steps(end),
        axis: Axis::Left,
        style: Style::Area,
    }];
    for (shown, color) in SHOWN.iter().zip([3, 1, 4, 2, 0]) {
        let Some(run) = runs.iter().find(|run| run.variant == shown.name()) else {
            continue;
        };
        series.push(Series {
            label: run.variant.to_owned(),
            color: PALETTE[color].to_owned(),
            points: smooth(&run.seconds, end),
            axis: Axis::Left,
            style: Style::Line,
        });
    }
    let markers = schedule::spans(FULL)
        .skip(1)
        .map(|(phase, from, _)| Marker {
            x: from,
            label: phase.name.to_owned(),
        });
    svg(&Plot {
        title: "Overload: answers in time".to_owned(),
        x_axis: "time, s".to_owned(),
        left_axis: "requests per second answered within 1 s".to_owned(),
        right_axis: String::new(),
        series,
        markers: markers.collect(),
    })
}

/// What could be answered, with its steps.
fn steps(end: f64) -> Vec<(f64, f64)> {
    schedule::spans(FULL)
        .flat_map(|(_, from, to)| {
            let value = ideal(FULL, from);
            [(from, value), (to.min(end), value)]
        })
        .collect()
}

/// Means of three seconds, at their middles.
fn smooth(seconds: &[Second], end: f64) -> Vec<(f64, f64)> {
    let windows = seconds.windows(3).enumerate();
    windows
        .map(|(index, window)| {
            let good: f64 = window.iter().map(|second| second.good).sum();
            (index as f64 + 1.5, (good / 3.0).round())
        })
        .take_while(|(t, _)| *t < end)
        .collect()
}

/// The decisions of a run, one a line.
pub fn decisions(run: &Run) -> String {
    let mut out = String::new();
    for decision in &run.decisions {
        let limit = decision
            .limit
            .map_or("none".to_owned(), |limit| format!("{limit:.1}/s"));
        let _ = writeln!(
            out,
            "{:5.0} s  limit {limit:9} {:9} {} writes  {}",
            decision.t, decision.state, decision.writes, decision.reason
        );
    }
    out
}
