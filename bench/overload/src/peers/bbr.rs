//! Sentinel's BBR: while the load is high, no more requests in a pod than its best throughput times its best time.
//!
//! `CPU > threshold` (as measured at the last tick) arms it; then a request is refused if more are in the pod than the highest
//! number of answers per second of the last windows, times the lowest mean response time of a window. Sentinel looks back over
//! one second in two windows; the grid also has ten seconds, as in its descendants.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use serde_json::Value;
use trimtab_law::{Outputs, Tick};

use super::number;
use crate::law::{Gate, Law, Outcome};

/// The law, which tells its gates the load.
pub struct Bbr {
    threshold: f64,
    window_s: f64,
    windows: usize,
    loads: Rc<RefCell<BTreeMap<String, f64>>>,
}

impl Bbr {
    /// With parameters of the grid.
    pub fn new(params: &Value) -> Self {
        let long = number(params, "back_s", 1.0);
        Self {
            threshold: number(params, "cpu", 0.8),
            window_s: number(params, "window_s", 0.5),
            windows: if long > 1.0 { 20 } else { 2 },
            loads: Rc::default(),
        }
    }
}

impl Law for Bbr {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        let mut loads = self.loads.borrow_mut();
        for (name, pod) in &tick.pods {
            if let Some(cpu) = pod.cpu.filter(|c| c.is_finite()) {
                loads.insert(name.clone(), cpu);
            }
        }
        Outputs::default()
    }

    fn gate(&self, pod: &str) -> Option<Box<dyn Gate>> {
        Some(Box::new(Pipe {
            pod: pod.to_owned(),
            threshold: self.threshold,
            window_s: self.window_s,
            windows: self.windows,
            loads: Rc::clone(&self.loads),
            past: VecDeque::new(),
            end: self.window_s,
            answers: 0.0,
            seconds: 0.0,
            inflight: 0,
            bound: f64::INFINITY,
        }))
    }
}

struct Pipe {
    pod: String,
    threshold: f64,
    window_s: f64,
    windows: usize,
    loads: Rc<RefCell<BTreeMap<String, f64>>>,
    /// Answers per second and mean time of past windows.
    past: VecDeque<(f64, f64)>,
    end: f64,
    answers: f64,
    seconds: f64,
    inflight: usize,
    bound: f64,
}

impl Pipe {
    fn turn(&mut self, now: f64) {
        if now < self.end {
            return;
        }
        if self.answers > 0.0 {
            self.past
                .push_back((self.answers / self.window_s, self.seconds / self.answers));
        }
        while self.past.len() > self.windows {
            self.past.pop_front();
        }
        let best = self.past.iter().map(|w| w.0).fold(0.0, f64::max);
        let time = self.past.iter().map(|w| w.1).fold(f64::INFINITY, f64::min);
        if best > 0.0 {
            self.bound = (best * time).max(1.0);
        }
        (self.answers, self.seconds) = (0.0, 0.0);
        self.end = now + self.window_s;
    }

    fn high(&self) -> bool {
        self.loads
            .borrow()
            .get(&self.pod)
            .is_some_and(|cpu| *cpu > self.threshold)
    }
}

impl Gate for Pipe {
    fn admit(&mut self, now: f64, _: usize, _: usize) -> bool {
        self.turn(now);
        let some = self.inflight <= 1 || self.inflight as f64 <= self.bound || !self.high();
        self.inflight += usize::from(some);
        some
    }

    fn done(&mut self, now: f64, time_s: f64, _: f64, outcome: Outcome) {
        self.turn(now);
        self.inflight = self.inflight.saturating_sub(1);
        if outcome == Outcome::Answered {
            self.answers += 1.0;
            self.seconds += time_s;
        }
    }
}
