//! What a run was worth. Pure.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a run"
)]

use serde::Serialize;

use super::capacity;
use super::schedule::{self, Schedule};

/// Seconds after an overload in which refusals are still its consequence.
const AFTER: f64 = 20.0;

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// Requests that were sent.
    pub offered: f64,
    /// Right answers in time.
    pub good: f64,
    /// Requests whose client left before the answer.
    pub late: f64,
    /// Requests that a limiter refused.
    pub refused: f64,
    /// Requests without an answer for another reason.
    pub failed: f64,
}

/// Figures of one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Name of the phase.
    pub phase: &'static str,
    /// Goodput by what could have been answered.
    pub good: f64,
    /// Late requests by what could have been answered.
    pub late: f64,
    /// 95th percentile of the time of admitted requests, in seconds; those of clients that left count the SLO.
    pub p95_s: Option<f64>,
}

/// Figures of one run, or means over several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Each phase.
    pub parts: Vec<Part>,
    /// Goodput by what could have been answered, from the begin of the overload to the end of the run.
    pub good: f64,
    /// Late requests by what could have been answered, in the same time.
    pub late: f64,
    /// 95th percentile of the time of admitted requests in that time, in seconds.
    pub p95_s: Option<f64>,
    /// Refused requests before the first overload.
    pub refused_before: f64,
    /// Refused requests from 20 s after the last overload on.
    pub refused_after: f64,
    /// Requests without an answer for another reason than limits and patience.
    pub failed: f64,
}

/// What could have been answered in the second that begins at `t`.
pub fn ideal(schedule: Schedule, t: f64) -> f64 {
    let phase = schedule::at(schedule, t + 0.5);
    phase.load.min(phase.speed) * capacity()
}

impl Figures {
    /// Figures of one run. `times` may be empty.
    pub fn of(schedule: Schedule, seconds: &[Second], times: &[(f64, f64)]) -> Self {
        let (begin, over) = schedule::overload(schedule);
        let end = schedule::end(schedule);
        let sum = |from: f64, to: f64, of: fn(&Second) -> f64| -> f64 {
            let to = (to as usize).min(seconds.len());
            seconds[(from as usize).min(to)..to].iter().map(of).sum()
        };
        let ideal = |from: f64, to: f64| -> f64 {
            let seconds = from as u32..to as u32;
            let all = seconds.map(|t| ideal(schedule, f64::from(t))).sum::<f64>();
            all.max(1e-9)
        };
        let parts = schedule::spans(schedule).map(|(phase, from, to)| Part {
            phase: phase.name,
            good: sum(from, to, |s| s.good) / ideal(from, to),
            late: sum(from, to, |s| s.late) / ideal(from, to),
            p95_s: p95(times, from, to),
        });
        Self {
            parts: parts.collect(),
            good: sum(begin, end, |s| s.good) / ideal(begin, end),
            late: sum(begin, end, |s| s.late) / ideal(begin, end),
            p95_s: p95(times, begin, end),
            refused_before: sum(0.0, begin, |s| s.refused),
            refused_after: sum(over + AFTER, end, |s| s.refused),
            failed: sum(0.0, end, |s| s.failed),
        }
    }

    /// Means over runs of one schedule.
    pub fn mean(runs: &[Self]) -> Self {
        let count = runs.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Self) -> f64| runs.iter().map(of).sum::<f64>() / count;
        let mut out = runs.first().cloned().unwrap_or_default();
        for (index, part) in out.parts.iter_mut().enumerate() {
            part.good = mean(&|run| run.parts[index].good);
            part.late = mean(&|run| run.parts[index].late);
        }
        out.good = mean(&|run| run.good);
        out.late = mean(&|run| run.late);
        out.refused_before = mean(&|run| run.refused_before);
        out.refused_after = mean(&|run| run.refused_after);
        out.failed = mean(&|run| run.failed);
        out
    }
}

fn p95(times: &[(f64, f64)], from: f64, to: f64) -> Option<f64> {
    let mut inside: Vec<f64> = times
        .iter()
        .filter(|(t, _)| (from..to).contains(t))
        .map(|(_, time)| *time)
        .collect();
    inside.sort_by(f64::total_cmp);
    inside.get(inside.len() * 95 / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::super::schedule::FULL;
    use super::*;

    #[test]
    fn what_could_be_answered_is_good_and_refusals_have_their_time() {
        let perfect: Vec<Second> = (0..205_u32)
            .map(|t| Second {
                good: ideal(FULL, f64::from(t)),
                refused: f64::from(u8::from((50..184).contains(&t))),
                ..Second::default()
            })
            .collect();
        let figures = Figures::of(FULL, &perfect, &[(60.0, 0.2), (60.0, 0.4), (200.0, 0.1)]);
        assert!((figures.good - 1.0).abs() < 1e-9);
        assert!(
            figures
                .parts
                .iter()
                .all(|part| (part.good - 1.0).abs() < 1e-9)
        );
        assert_eq!((figures.refused_before, figures.refused_after), (0.0, 0.0));
        assert_eq!(figures.parts[1].p95_s, Some(0.4));
        assert_eq!(figures.parts[2].p95_s, None);
    }
}
