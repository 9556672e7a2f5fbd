//! AIMD, Gradient2 and Vegas of the crate `tower-acc`: a limit of the requests in each pod.
//!
//! The algorithms of that crate take the time of a request as a number, so they are driven directly, without its middleware.
//! As there, the limit is asked before each request, and told of each end with the requests that were in flight. A client that
//! leaves counts as a failure: the crate would ignore it, and would never see an overload whose clients all leave.

use std::time::Duration;

use serde_json::Value;
use tower_acc::{Aimd, Algorithm, Gradient2, Vegas};
use trimtab_law::{Outputs, Tick};

use super::number;
use crate::law::{Gate, Law, Outcome};

/// Limit at the start, the crate's default.
const START: usize = 20;
/// Highest limit of the requests in a pod.
const MAX: usize = 1000;
/// Highest limit where it is a rate.
const MAX_RATE: usize = 20_000;

/// A law whose gates have an algorithm each.
pub struct Concurrency {
    name: Name,
    params: Value,
}

/// Which algorithm.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// Loss-based: +1, or a factor on a failure or a slow answer.
    Aimd,
    /// Long against short response time.
    Gradient2,
    /// Queue estimated from the lowest response time.
    Vegas,
}

impl Concurrency {
    /// With parameters of the grid.
    pub fn new(name: Name, params: &Value) -> Self {
        Self {
            name,
            params: params.clone(),
        }
    }
}

impl Law for Concurrency {
    fn tick(&mut self, _: &Tick) -> Outputs {
        Outputs::default()
    }

    fn gate(&self, _: &str) -> Option<Box<dyn Gate>> {
        let p = &self.params;
        Some(match self.name {
            Name::Aimd => gate(aimd(p, START, MAX)),
            Name::Gradient2 => gate(gradient2(p, START, MAX)),
            Name::Vegas => gate(vegas(p, START, MAX)),
        })
    }
}

fn whole(params: &Value, name: &str, default: usize) -> usize {
    params
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|v| usize::try_from(v).ok())
        .unwrap_or(default)
}

fn aimd(p: &Value, start: usize, max: usize) -> Aimd {
    Aimd::builder()
        .initial_limit(start)
        .min_limit(whole(p, "min", 20).min(start))
        .max_limit(max)
        .backoff_ratio(number(p, "backoff", 0.9))
        .timeout(Duration::from_secs_f64(number(p, "timeout_s", 5.0)))
        .build()
}

fn gradient2(p: &Value, start: usize, max: usize) -> Gradient2 {
    Gradient2::builder()
        .initial_limit(start)
        .min_limit(whole(p, "min", 20).min(start))
        .max_limit(max)
        .smoothing(number(p, "smoothing", 0.2))
        .rtt_tolerance(number(p, "tolerance", 1.5))
        .long_window(whole(p, "window", 600))
        .build()
}

fn vegas(p: &Value, start: usize, max: usize) -> Vegas {
    let builder = Vegas::builder()
        .initial_limit(start)
        .max_limit(max)
        .smoothing(number(p, "smoothing", 1.0))
        .probe_multiplier(whole(p, "probe", 30));
    // The thresholds are plain functions there, so the grid can only name some.
    match whole(p, "queue", 3) {
        1 => builder.alpha(log10).beta(|l| 2 * log10(l)),
        6 => builder.alpha(|l| 6 * log10(l)).beta(|l| 12 * log10(l)),
        _ => builder,
    }
    .build()
}

fn log10(limit: usize) -> usize {
    usize::try_from(limit.max(1).ilog10()).unwrap_or(1).max(1)
}

/// The same algorithms at each tick instead of at each request: the limit is a rate, and the measurements of the tick count as
/// `times` ends of requests. For plants without requests.
pub struct AtTicks {
    name: Name,
    params: Value,
    slo_s: f64,
    /// Begins at the limit in force, if there is one.
    algorithm: Option<Box<dyn Algorithm>>,
}

impl AtTicks {
    /// With parameters of the grid.
    pub fn new(name: Name, params: &Value, slo_s: f64) -> Self {
        Self {
            name,
            params: params.clone(),
            slo_s,
            algorithm: None,
        }
    }

    fn begin(&self, tick: &Tick) -> Box<dyn Algorithm> {
        let limit = tick.in_force.as_ref().and_then(|o| o.limit);
        // Without one, far from what is asked for: nothing is refused until something is slow.
        let offered = tick.apis.values().filter_map(|a| a.offered).sum::<f64>();
        let start = limit.map_or_else(|| requests(2.0 * offered), requests);
        let start = start.clamp(START, MAX_RATE);
        match self.name {
            Name::Aimd => Box::new(aimd(&self.params, start, MAX_RATE)),
            Name::Gradient2 => Box::new(gradient2(&self.params, start, MAX_RATE)),
            Name::Vegas => Box::new(vegas(&self.params, start, MAX_RATE)),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of a simulation"
)]
fn requests(rate: f64) -> usize {
    rate.max(0.0) as usize
}

impl Law for AtTicks {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        let sum = |of: &dyn Fn(&trimtab_law::Api) -> Option<f64>| -> f64 {
            tick.apis
                .values()
                .filter_map(of)
                .filter(|v| v.is_finite())
                .sum()
        };
        let accepted = sum(&|a| a.accepted);
        let slowest = tick
            .apis
            .values()
            .filter_map(|a| a.p95_s)
            .filter(|v| v.is_finite())
            .fold(0.0, f64::max);
        let mut algorithm = self.algorithm.take().unwrap_or_else(|| self.begin(tick));
        for _ in 0..whole(&self.params, "times", 1) {
            let time = Duration::from_secs_f64(slowest);
            let before = algorithm.max_concurrency();
            algorithm.update(time, requests(accepted), slowest > 1.01 * self.slo_s, false);
            // AIMD cuts once for all that a tick tells, and grows with each answer.
            if matches!(self.name, Name::Aimd) && algorithm.max_concurrency() < before {
                break;
            }
        }
        let limit = algorithm.max_concurrency() as f64;
        self.algorithm = Some(algorithm);
        Outputs {
            limit: Some(limit),
            ..Outputs::default()
        }
    }
}

fn gate<A: Algorithm + 'static>(algorithm: A) -> Box<dyn Gate> {
    Box::new(Limited {
        algorithm,
        inflight: 0,
    })
}

struct Limited<A> {
    algorithm: A,
    inflight: usize,
}

impl<A: Algorithm> Gate for Limited<A> {
    fn admit(&mut self, _: f64, _: usize, _: usize) -> bool {
        let some = self.inflight < self.algorithm.max_concurrency();
        self.inflight += usize::from(some);
        some
    }

    fn done(&mut self, _: f64, time_s: f64, _: f64, outcome: Outcome) {
        let time = Duration::from_secs_f64(time_s.max(0.0));
        let failed = outcome != Outcome::Answered;
        self.algorithm.update(time, self.inflight, failed, false);
        self.inflight = self.inflight.saturating_sub(1);
    }
}
