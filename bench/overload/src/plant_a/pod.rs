//! A pod: its proxy with a token bucket, its queue and its workers.

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
    /// The limit of its proxy.
    pub bucket: Option<Bucket>,
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
            bucket: None,
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
        self.bucket.as_mut().is_none_or(|bucket| bucket.take((now * 1e9) as u64))
            && self.gate.as_mut().is_none_or(|gate| gate.admit(now, inflight, 0))
    }

    /// Sets the limit of its proxy. A changed bucket is full.
    pub fn limit(&mut self, rate: Option<f64>, seconds: f64, now: f64) {
        match rate {
            None => self.bucket = None,
            Some(rate) if self.bucket.as_ref().is_some_and(|bucket| bucket.is_for(rate, seconds)) => {}
            Some(rate) => self.bucket = Some(Bucket::new(rate, seconds, (now * 1e9) as u64)),
        }
    }
}
