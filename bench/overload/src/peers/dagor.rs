//! DAGOR: a cut of priorities, moved by the mean time that requests wait.
//!
//! Each pod looks back over a window of one second or 2000 requests. If requests waited longer than a threshold on average, the
//! cut moves so far up that a share `alpha` less would have been let in; else so far down that a share `beta` of what arrived
//! more would have been. All APIs have the same business priority, as in TopFull's comparison; each call has a user priority,
//! the same at each service. That callers learn the cut of those they call is left out: it saves the cost of a refusal, and
//! refusals cost nothing in the plants.

use serde_json::Value;
use trimtab_law::{Outputs, Tick};

use super::{Place, number};
use crate::law::{Gate, Law, Outcome};
use crate::random::Random;

/// Levels of user priority.
const LEVELS: usize = 128;
/// Levels of business priority at most.
const TIERS: usize = 8;
/// Requests that end a window.
const WINDOW_REQUESTS: u32 = 2000;

/// The law: it lives in the gates.
pub struct Dagor {
    threshold_s: f64,
    alpha: f64,
    beta: f64,
    users: bool,
    seed: u64,
}

impl Dagor {
    /// With parameters of the grid.
    pub fn new(params: &Value, place: &Place<'_>) -> Self {
        Self {
            threshold_s: number(params, "threshold_s", 0.020),
            alpha: number(params, "alpha", 0.05),
            beta: number(params, "beta", 0.01),
            users: place.users,
            seed: place.seed,
        }
    }
}

impl Law for Dagor {
    fn tick(&mut self, _: &Tick) -> Outputs {
        Outputs::default()
    }

    fn gate(&self, pod: &str) -> Option<Box<dyn Gate>> {
        let own = pod.bytes().fold(self.seed, |h, b| {
            h.wrapping_mul(31).wrapping_add(u64::from(b))
        });
        Some(Box::new(Server {
            threshold_s: self.threshold_s,
            alpha: self.alpha,
            beta: self.beta,
            users: self.users,
            random: Random::new(own),
            cut: 0,
            arrived: [0; LEVELS * TIERS],
            window_end: 1.0,
            total: 0,
            admitted: 0,
            waited_s: 0.0,
            started: 0,
        }))
    }
}

struct Server {
    threshold_s: f64,
    alpha: f64,
    beta: f64,
    users: bool,
    random: Random,
    /// Lowest level that is let in.
    cut: usize,
    arrived: [u32; LEVELS * TIERS],
    window_end: f64,
    total: u32,
    admitted: u32,
    waited_s: f64,
    started: u32,
}

impl Server {
    fn level(&mut self, tier: usize) -> usize {
        if self.users {
            tier.min(LEVELS * TIERS - 1)
        } else {
            tier.min(TIERS - 1) * LEVELS + self.random.below(LEVELS)
        }
    }

    /// The window ends: the cut moves.
    fn turn(&mut self, now: f64) {
        let mean = self.waited_s / f64::from(self.started.max(1));
        let aim = if self.started > 0 && mean > self.threshold_s {
            (1.0 - self.alpha) * f64::from(self.admitted)
        } else {
            f64::from(self.admitted) + self.beta * f64::from(self.total)
        };
        let mut sum = 0.0;
        let mut cut = self.arrived.len();
        while cut > 0 && sum < aim {
            cut -= 1;
            sum += f64::from(self.arrived[cut]);
        }
        // Never more than asked for, but never nobody.
        if sum > aim && mean > self.threshold_s && cut + 1 < self.arrived.len() {
            cut += 1;
        }
        if self.total > 0 {
            self.cut = cut;
        }
        self.arrived.fill(0);
        (self.total, self.admitted, self.started) = (0, 0, 0);
        self.waited_s = 0.0;
        self.window_end = now + 1.0;
    }
}

impl Gate for Server {
    fn admit(&mut self, now: f64, _: usize, tier: usize) -> bool {
        if now >= self.window_end || self.total >= WINDOW_REQUESTS {
            self.turn(now);
        }
        let level = self.level(tier);
        self.arrived[level] += 1;
        self.total += 1;
        let some = level >= self.cut;
        self.admitted += u32::from(some);
        some
    }

    fn done(&mut self, _: f64, _: f64, queued_s: f64, _: Outcome) {
        self.waited_s += queued_s;
        self.started += 1;
    }
}
