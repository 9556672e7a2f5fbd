//! Breakwater: credits by the time that requests wait.
//!
//! A pod has `C` credits: requests that may be in it. Once in a round trip: while requests wait less than the target, `C` grows
//! by `alpha` of the clients, at least by one; else it shrinks in proportion to the excess, at most to a half. A request that
//! arrives while others wait twice the target is dropped (its AQM). Clients have a credit each as soon as it is free: demand
//! speculation is perfect here, which favours it.

use serde_json::Value;
use trimtab_law::{Outputs, Tick};

use super::{Place, number};
use crate::law::{Gate, Law, Outcome};

/// Clients of a pod, which `alpha` is a share of.
const CLIENTS: f64 = 1000.0;

/// The law: it lives in the gates.
#[derive(Clone, Copy)]
pub struct Breakwater {
    target_s: f64,
    alpha: f64,
    beta: f64,
    round_s: f64,
}

impl Breakwater {
    /// With parameters of the grid.
    pub fn new(params: &Value, place: &Place<'_>) -> Self {
        Self {
            target_s: number(params, "target", 0.4) * place.config.slo_s,
            alpha: number(params, "alpha", 0.001),
            beta: number(params, "beta", 0.02),
            round_s: number(params, "round_s", 0.01),
        }
    }
}

impl Law for Breakwater {
    fn tick(&mut self, _: &Tick) -> Outputs {
        Outputs::default()
    }

    fn gate(&self, _: &str) -> Option<Box<dyn Gate>> {
        Some(Box::new(Server {
            law: *self,
            credits: 20.0,
            inflight: 0,
            waited_s: 0.0,
            next: 0.0,
            drop_until: 0.0,
        }))
    }
}

struct Server {
    law: Breakwater,
    credits: f64,
    inflight: usize,
    /// How long the last request waited.
    waited_s: f64,
    next: f64,
    drop_until: f64,
}

impl Server {
    fn round(&mut self, now: f64) {
        if now < self.next {
            return;
        }
        self.next = now + self.law.round_s;
        let over = (self.waited_s - self.law.target_s) / self.law.target_s;
        if over < 0.0 {
            self.credits += (self.law.alpha * CLIENTS).max(1.0);
        } else {
            self.credits *= (1.0 - self.law.beta * over).max(0.5);
        }
        // Credits beyond what clients ask for are taken back.
        self.credits = self.credits.clamp(1.0, CLIENTS);
    }
}

impl Gate for Server {
    fn admit(&mut self, now: f64, _: usize, _: usize) -> bool {
        self.round(now);
        let some = (self.inflight as f64) < self.credits && now >= self.drop_until;
        self.inflight += usize::from(some);
        some
    }

    fn done(&mut self, now: f64, _: f64, queued_s: f64, _: Outcome) {
        self.inflight = self.inflight.saturating_sub(1);
        self.waited_s = queued_s;
        if queued_s > 2.0 * self.law.target_s {
            self.drop_until = now + self.law.round_s;
        }
        self.round(now);
    }
}
