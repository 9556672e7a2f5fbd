//! What a run was worth.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a run"
)]

use serde::Serialize;

use super::{Outcome, Scenario};

/// Figures of one law in one scenario, means over the seeds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Name of the scenario.
    pub scenario: String,
    /// Whether it has no overload.
    pub calm: bool,
    /// Goodput by what could have been answered, from the begin of the overload on; of the whole run where there is none.
    pub good: f64,
    /// The same for an overload that came again.
    pub again: Option<f64>,
    /// Late work by what could have been answered, from 20 s after the begin on.
    pub late: f64,
    /// Ticks until 90 % of the next 20 s stay within 10 % of what is possible; a run that never settles counts to its end.
    pub settle: f64,
    /// Standard deviation of the limit by its mean, in the last half of a steady overload.
    pub variation: f64,
    /// Refused requests while less than 0.9 of the capacity was offered, 20 s from any overload.
    pub false_shed: f64,
    /// Writes from the begin of the overload on.
    pub writes: f64,
    /// Writes in the last half of a steady overload.
    pub writes_steady: f64,
}

impl Figures {
    /// Figures of one run.
    pub fn of(scenario: &Scenario, outcome: &Outcome, interval_s: f64) -> Self {
        let begin = scenario.overload.unwrap_or(0.0);
        let good = |from: f64| {
            let seconds = outcome.seconds.iter().skip(from as usize);
            let (good, ideal) = seconds.fold((0.0, 0.0), |(good, ideal), s| {
                (good + s.good, ideal + s.ideal)
            });
            good / f64::max(ideal, 1e-9)
        };
        let after = outcome.seconds.iter().skip(begin as usize + 20);
        let (late, ideal) = after.fold((0.0, 0.0), |(late, ideal), s| {
            (late + s.late, ideal + s.ideal)
        });
        let half = f64::midpoint(begin, scenario.seconds);
        let steady = scenario.steady && scenario.overload.is_some();
        Self {
            scenario: scenario.name.to_owned(),
            calm: scenario.overload.is_none(),
            good: good(begin),
            again: scenario.again.map(good),
            late: late / f64::max(ideal, 1e-9),
            settle: if steady {
                settle(outcome, begin) / interval_s
            } else {
                0.0
            },
            variation: if steady {
                variation(outcome, half)
            } else {
                0.0
            },
            false_shed: false_shed(scenario, outcome),
            writes: outcome.writes.iter().filter(|t| **t >= begin).count() as f64,
            writes_steady: if steady {
                outcome.writes.iter().filter(|t| **t >= half).count() as f64
            } else {
                0.0
            },
        }
    }

    /// Means over runs of one scenario.
    pub fn mean(runs: &[Self]) -> Self {
        let count = runs.len().max(1) as f64;
        let mean = |of: fn(&Self) -> f64| runs.iter().map(of).sum::<f64>() / count;
        let first = runs.first().cloned().unwrap_or_default();
        Self {
            good: mean(|f| f.good),
            again: first.again.map(|_| mean(|f| f.again.unwrap_or(0.0))),
            late: mean(|f| f.late),
            settle: mean(|f| f.settle),
            variation: mean(|f| f.variation),
            false_shed: mean(|f| f.false_shed),
            writes: mean(|f| f.writes),
            writes_steady: mean(|f| f.writes_steady),
            ..first
        }
    }
}

fn settle(outcome: &Outcome, begin: f64) -> f64 {
    let seconds = &outcome.seconds[(begin as usize).min(outcome.seconds.len())..];
    let near = |s: &super::Second| (s.good / s.ideal.max(1e-9) - 1.0).abs() <= 0.1;
    // Second by second, chance alone moves a service of 400 requests per second by 5 %: means of three seconds are looked at.
    let smooth: Vec<bool> = seconds
        .windows(3)
        .map(|w| {
            near(&super::Second {
                good: w.iter().map(|s| s.good).sum(),
                ideal: w.iter().map(|s| s.ideal).sum(),
                ..w[0]
            })
        })
        .collect();
    smooth
        .windows(20)
        .position(|w| w.iter().filter(|near| **near).count() >= 18)
        .map_or(seconds.len() as f64, |at| at as f64)
}

fn variation(outcome: &Outcome, from: f64) -> f64 {
    let limits: Vec<f64> = outcome
        .seconds
        .iter()
        .skip(from as usize)
        .filter_map(|s| s.limit)
        .collect();
    if limits.is_empty() {
        return 0.0;
    }
    let mean = limits.iter().sum::<f64>() / limits.len() as f64;
    let variance = limits.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / limits.len() as f64;
    variance.sqrt() / mean.max(1e-9)
}

/// All refusals of a calm scenario; else those while clients mean to send less than 0.9 of the capacity.
fn false_shed(scenario: &Scenario, outcome: &Outcome) -> f64 {
    if scenario.overload.is_none() {
        return outcome.seconds.iter().map(|second| second.refused).sum();
    }
    let mut since_overload = 1000_u32;
    let mut refused = 0.0;
    for second in &outcome.seconds {
        let over = second.meant > 0.9 * second.capacity;
        since_overload = if over { 0 } else { since_overload + 1 };
        if since_overload > 20 {
            refused += second.refused;
        }
    }
    refused
}
