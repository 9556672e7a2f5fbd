//! Envoy's `adaptive_concurrency` as its gradient controller has it, in the proxy of one pod.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of requests"
)]

use std::cell::RefCell;
use std::rc::Rc;

use crate::law::{Gate, Outcome};
use crate::random::Random;

/// What the filter is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Lowest limit, with which it begins.
    pub least: f64,
    /// Highest limit.
    pub most: f64,
    /// Percentile of the times of a step, 0 to 1.
    pub percentile: f64,
    /// Time of an answer that it aims at, in seconds; `None`: measured.
    pub pinned_s: Option<f64>,
    /// What is added to that time, as a share of it.
    pub buffer: f64,
    /// Between two measurements, in seconds, and the share of it that is added by chance.
    pub interval_s: f64,
    /// See `interval_s`.
    pub jitter: f64,
    /// Answers of a measurement.
    pub count: usize,
}

impl Settings {
    /// Envoy's defaults but for the percentile and the interval, which its documentation shows as 90 and 60 s.
    pub fn documented() -> Self {
        Self {
            least: 3.0,
            most: 1000.0,
            percentile: 0.9,
            pinned_s: None,
            buffer: 0.25,
            interval_s: 60.0,
            jitter: 0.1,
            count: 50,
        }
    }
}

/// Between two steps of the limit, in seconds.
const STEP_S: f64 = 0.1;
/// Steps in a row at the lowest limit after which the time is measured again.
const AT_LEAST: u32 = 5;

/// A limit that others may configure; `None` lets everything pass.
pub type Shared = Rc<RefCell<Option<Settings>>>;

/// The filter.
pub struct Gradient {
    shared: Shared,
    /// What the state below is of.
    settings: Option<Settings>,
    limit: f64,
    aim_s: f64,
    samples: Vec<f64>,
    step_at: f64,
    /// When the next measurement begins; while it runs, the limit that comes back after it.
    measure_at: f64,
    measuring: Option<f64>,
    at_least: u32,
    random: Random,
}

impl Gradient {
    /// A filter whose settings may change; each change makes it begin anew.
    pub fn new(shared: Shared, seed: u64) -> Self {
        Self {
            shared,
            settings: None,
            limit: 0.0,
            aim_s: 0.0,
            samples: Vec::new(),
            step_at: 0.0,
            measure_at: 0.0,
            measuring: None,
            at_least: 0,
            random: Random::new(seed),
        }
    }

    fn begin(&mut self, settings: Settings, now: f64) {
        self.settings = Some(settings);
        self.limit = settings.least;
        self.samples.clear();
        self.step_at = now + STEP_S;
        self.measuring = None;
        self.at_least = 0;
        match settings.pinned_s {
            Some(pinned) => {
                self.aim_s = pinned;
                self.measure_at = f64::INFINITY;
            }
            None => self.measure(settings),
        }
    }

    /// Few requests are let in until their times are known.
    fn measure(&mut self, settings: Settings) {
        self.measuring = Some(self.limit);
        self.limit = settings.least;
        self.samples.clear();
        self.measure_at = f64::INFINITY;
        self.at_least = 0;
    }

    fn advance(&mut self, now: f64) -> Option<Settings> {
        let wanted = *self.shared.borrow();
        let settings = wanted?;
        if self.settings != wanted {
            self.begin(settings, now);
        }
        if let Some(limit) = self.measuring {
            if self.samples.len() >= settings.count {
                self.aim_s = percentile(&mut self.samples, settings.percentile);
                self.limit = limit;
                self.measuring = None;
                self.samples.clear();
                let by_chance = 1.0 + settings.jitter * self.random.unit();
                self.measure_at = now + settings.interval_s * by_chance;
                self.step_at = now + STEP_S;
            }
        } else if now >= self.step_at {
            self.step_at = now + STEP_S;
            self.step(settings);
            if now >= self.measure_at || (self.at_least >= AT_LEAST && settings.pinned_s.is_none())
            {
                self.measure(settings);
            }
        }
        Some(settings)
    }

    fn step(&mut self, settings: Settings) {
        if self.samples.is_empty() {
            return;
        }
        let sample = percentile(&mut self.samples, settings.percentile);
        self.samples.clear();
        let gradient = (self.aim_s * (1.0 + settings.buffer) / sample.max(1e-6)).clamp(0.5, 2.0);
        let limit = self.limit * gradient;
        let limit = (limit + limit.sqrt()).floor();
        self.limit = limit.min(settings.most).max(settings.least);
        let at_least = self.limit <= settings.least;
        self.at_least = if at_least { self.at_least + 1 } else { 0 };
    }
}

fn percentile(samples: &mut [f64], q: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() as f64 * q) as usize;
    samples[at.min(samples.len() - 1)]
}

impl Gate for Gradient {
    fn admit(&mut self, now: f64, inflight: usize, _tier: usize) -> bool {
        self.advance(now).is_none() || (inflight as f64) < self.limit
    }

    fn done(&mut self, now: f64, time_s: f64, _queued_s: f64, outcome: Outcome) {
        // Of a client that left it learns nothing.
        if self.advance(now).is_some() && outcome != Outcome::Left {
            self.samples.push(time_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_stays_within_its_bounds_and_follows_the_time() {
        let settings = Settings {
            least: 16.0,
            most: 40.0,
            percentile: 0.5,
            pinned_s: Some(0.3),
            buffer: 0.0,
            ..Settings::documented()
        };
        let shared = Shared::new(RefCell::new(Some(settings)));
        let mut gate = Gradient::new(Rc::clone(&shared), 1);
        let mut run = |from: u32, time_s: f64| {
            for step in from..from + 100 {
                gate.done(f64::from(step) * 0.05, time_s, 0.0, Outcome::Answered);
            }
            let now = f64::from(from + 100) * 0.05;
            (0..100).filter(|n| gate.admit(now, *n, 0)).count()
        };
        assert_eq!(run(0, 0.1), 40);
        assert_eq!(run(100, 0.9), 16);
        *shared.borrow_mut() = None;
        assert_eq!(run(200, 0.9), 100);
    }

    #[test]
    fn while_the_time_is_measured_few_are_let_in() {
        let shared = Shared::new(RefCell::new(Some(Settings::documented())));
        let mut gate = Gradient::new(shared, 1);
        assert!(gate.admit(0.0, 2, 0) && !gate.admit(0.0, 3, 0));
        for step in 0..200 {
            gate.done(f64::from(step) * 0.05, 0.1, 0.0, Outcome::Answered);
        }
        assert!(gate.admit(10.0, 20, 0));
    }
}
