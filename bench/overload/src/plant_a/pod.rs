//! A pod: its proxy with a token bucket, its queue and its workers.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "nanoseconds of a simulation"
)]

use std::collections::VecDeque;

use crate::bucket::Bucket;
use crate::law::Gate;
use crate::plant_b::meter::Meter;

/// One pod.
pub struct Pod {
    /// Calls that wait, by number.
    pub queue: VecDeque<u32>,
    /// Workers that work.
    pub busy: usize,
    /// Since when that many work.
    pub since: f64,
    /// When it came.
    pub born: f64,
    /// Whether it takes requests: a pod that ends finishes what it has and is out of the metrics.
    pub ready: bool,
    /// The limit of its proxy.
    pub bucket: Option<Bucket>,
    /// Its share of the limit of the API.
    pub api_bucket: Option<Bucket>,
    /// A limiter in its proxy.
    pub gate: Option<Box<dyn Gate>>,
    /// What its proxy counts.
    pub meter: Meter,
}

impl Pod {
    /// A pod that was started at `now`.
    pub fn new(now: f64, gate: Option<Box<dyn Gate>>) -> Self {
        Self {
            queue: VecDeque::new(),
            busy: 0,
            since: now,
            born: now,
            ready: true,
            bucket: None,
            api_bucket: None,
            gate,
            meter: Meter::default(),
        }
    }

    /// Counts the time that workers worked until `now`.
    pub fn account(&mut self, now: f64) {
        self.meter.busy_s += self.busy as f64 * (now - self.since);
        self.since = now;
    }

    /// Whether its proxy lets a request in.
    pub fn admits(&mut self, now: f64) -> bool {
        let inflight = self.meter.inflight;
        let at = (now * 1e9) as u64;
        self.bucket.as_mut().is_none_or(|bucket| bucket.take(at))
            && self
                .api_bucket
                .as_mut()
                .is_none_or(|bucket| bucket.take(at))
            && self
                .gate
                .as_mut()
                .is_none_or(|gate| gate.admit(now, inflight, 0))
    }

    /// Sets the limits of its proxy: its own, and its share of the API's.
    pub fn limit(&mut self, own: Option<f64>, api: Option<f64>, seconds: f64, now: f64) {
        set(&mut self.bucket, own, seconds, now);
        set(&mut self.api_bucket, api, seconds, now);
    }
}

/// A changed bucket is full.
fn set(bucket: &mut Option<Bucket>, rate: Option<f64>, seconds: f64, now: f64) {
    match rate {
        None => *bucket = None,
        Some(rate)
            if bucket
                .as_ref()
                .is_some_and(|bucket| bucket.is_for(rate, seconds)) => {}
        Some(rate) => *bucket = Some(Bucket::new(rate, seconds, (now * 1e9) as u64)),
    }
}
