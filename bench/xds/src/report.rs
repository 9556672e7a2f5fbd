//! Results: rows of medians, ratios between servers in the same run, and whether the targets are met.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Several rounds of one measurement.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

impl Spread {
    /// Of an even number of values the median is the upper of the two in the middle.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        Self {
            median: at(sorted.len() / 2),
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
            rounds: sorted.len(),
        }
    }
}

/// What was measured of one server in one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Line of the list of benchmarks.
    pub id: &'static str,
    /// Scenario.
    pub what: &'static str,
    pub streams: usize,
    pub resources: usize,
    pub server: &'static str,
    /// By name with unit.
    pub values: BTreeMap<&'static str, Spread>,
}

impl Row {
    pub fn median(&self, value: &str) -> Option<f64> {
        self.values.get(value).map(|spread| spread.median)
    }
}

/// A target and what was reached.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    pub id: &'static str,
    pub what: &'static str,
    pub reached: f64,
    pub met: bool,
}

/// All results of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: String,
    pub quick: bool,
    pub seconds: f64,
    pub resource_bytes: usize,
    pub rows: Vec<Row>,
    pub targets: Vec<Target>,
}

/// Milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that a share of the sorted values does not exceed.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a vector that is in memory"
    )]
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Slope of the line through the logarithms: how a value grows with another.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    (points.len() > 1 && spread > 0.0)
        .then(|| points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread)
}

impl Report {
    /// A row by scenario, size and server.
    pub fn row(&self, what: &str, streams: usize, resources: usize, server: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.what == what
                && row.streams == streams
                && row.resources == resources
                && row.server == server
        })
    }

    /// How a value of a scenario grows with the number of resources, or else of streams, where the other is fixed.
    pub fn growth(
        &self,
        what: &str,
        server: &str,
        value: &str,
        by_resources: bool,
        fixed: usize,
    ) -> Option<f64> {
        let points: Vec<(f64, f64)> = self
            .rows
            .iter()
            .filter(|row| row.what == what && row.server == server)
            .filter_map(|row| {
                let (x, other) = if by_resources {
                    (row.resources, row.streams)
                } else {
                    (row.streams, row.resources)
                };
                (other == fixed).then_some((x as f64, row.median(value)?))
            })
            .collect();
        exponent(&points)
    }

    /// Adds a target if it was measured.
    pub fn target(
        &mut self,
        id: &'static str,
        what: &'static str,
        reached: Option<f64>,
        met: impl Fn(f64) -> bool,
    ) {
        if let Some(reached) = reached {
            self.targets.push(Target {
                id,
                what,
                reached,
                met: met(reached),
            });
        }
    }

    /// The table for people: each scenario, its servers, and ratios to Trimtab.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut head = None;
        for row in &self.rows {
            let here = (row.id, row.what, row.streams, row.resources);
            if head != Some(here) {
                head = Some(here);
                // A string takes whatever is written to it.
                let _ = writeln!(
                    out,
                    "\n{} {}: {} streams, {} resources",
                    row.id, row.what, row.streams, row.resources
                );
            }
            let ours = self.row(row.what, row.streams, row.resources, "trimtab");
            for (name, spread) in &row.values {
                let base = ours.and_then(|ours| ours.median(name)).unwrap_or(0.0);
                let ratio = if row.server == "trimtab" || base <= 0.0 {
                    String::new()
                } else {
                    format!("{:>8.2}x", spread.median / base)
                };
                let _ = writeln!(
                    out,
                    "  {:<16} {:<28} {:>12} [{} .. {}] n={:<4} {ratio}",
                    row.server,
                    name,
                    digits(spread.median),
                    digits(spread.min),
                    digits(spread.max),
                    spread.rounds
                );
            }
        }
        let _ = writeln!(out, "\nTargets");
        for target in &self.targets {
            let word = if target.met { "met" } else { "MISSED" };
            let (id, text) = (target.id, target.what);
            let _ = writeln!(out, "  {word:<7} {id} {text}: {}", digits(target.reached));
        }
        out
    }

    /// Writes the results as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Three digits or more.
fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_slope_of_logarithms() {
        let square: Vec<(f64, f64)> = [1.0, 10.0, 100.0].map(|x| (x, 3.0 * x * x)).into();
        assert!((exponent(&square).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(exponent(&square[..1]), None);
        assert!(exponent(&[(1.0, 5.0), (10.0, 5.0)]).unwrap().abs() < 1e-9);
    }

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 0.99), Duration::from_millis(100));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
