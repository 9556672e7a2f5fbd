//! Plant B: several APIs over shared services.
//!
//! A discrete-event model, request by request, of Online Boutique ([`topology`]). Clients send Poisson arrivals and leave after
//! the SLO. A call passes the services of its path one after the other; the first service waits for all others, as a frontend
//! does. Each service has pods with a FIFO queue and workers; of two random pods a call takes the one with fewer requests in
//! it, as Envoy's LEAST_REQUEST. A call that is refused or whose client leaves anywhere fails as a whole: the work that is done
//! is wasted, and a call that waits in a queue when its client leaves is still worked on there, but goes no further.
//!
//! A law acts either in each service by itself (it sees that service's proxies only, and limits at that service's pods), or at
//! the entry (it sees all pods and the calls of clients, and limits each API once).

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "nanoseconds and indices of a simulation"
)]

mod actuator;
pub mod judge;
mod lp;
pub(crate) mod meter;
mod pods;
mod sim;
#[cfg(test)]
mod tests;
pub mod topology;
mod trace;

use trimtab_law::Config;

use crate::law::Law;
use crate::peers::Place;
use topology::{Load, N_APIS, Scenario};
pub use trace::HEAD as TRACE;

/// How measurements come and limits go.
#[derive(Clone, Copy, Debug)]
pub struct Telemetry {
    /// Time between two scrapes of a proxy.
    pub scrape_s: f64,
    /// Window of the rates.
    pub window_s: f64,
    /// Time between two ticks of a law.
    pub interval_s: f64,
    /// Time until a proxy has a changed limit.
    pub delivery_s: f64,
}

/// Prometheus at 5 s, as the operator has it.
pub const PROMETHEUS: Telemetry = Telemetry {
    scrape_s: 5.0,
    window_s: 15.0,
    interval_s: 5.0,
    delivery_s: 1.0,
};

/// TopFull's own: the load generator is asked each second for the last two seconds, and the entry is told at once.
pub const TOPFULL: Telemetry = Telemetry {
    scrape_s: 1.0,
    window_s: 2.0,
    interval_s: 1.0,
    delivery_s: 0.0,
};

/// Where a law acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// One law in each service.
    Services,
    /// One law at the entry.
    Entry,
}

/// Makes the law of a place.
pub type Factory = dyn Fn(&Place<'_>) -> Box<dyn Law> + Send + Sync;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is offered.
    pub scenario: Scenario,
    /// Whether clients try failed calls again: 80 % of them after 0.5 s, three attempts at most.
    pub retries: bool,
    /// Where the law acts.
    pub placement: Placement,
    /// Its measurements.
    pub telemetry: Telemetry,
    /// Seed of all that is random.
    pub seed: u64,
    /// Whether each tick is written down.
    pub trace: bool,
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Right answers within the SLO, of each API, in each second.
    pub good: Vec<[u32; N_APIS]>,
    /// First attempts, of each API, in each second.
    pub demand: Vec<[u32; N_APIS]>,
    /// Attempts whose client left.
    pub left: u64,
    /// Attempts that were refused somewhere.
    pub refused: u64,
    /// Changed limits.
    pub writes: u64,
    /// A line for each law and tick, if asked for.
    pub trace: Vec<String>,
}

impl Outcome {
    /// Mean goodput of each API from `from_s` on, in requests per second.
    pub fn goodput(&self, from_s: f64) -> Load {
        let seconds = self.good.len() as f64 - from_s;
        let mut sum = [0.0; N_APIS];
        for second in self.good.iter().skip(from_s as usize) {
            for (total, good) in sum.iter_mut().zip(second) {
                *total += f64::from(*good) / seconds;
            }
        }
        sum
    }
}

/// Runs one scenario with a law.
pub fn run(setup: &Setup, config: &Config, factory: &Factory) -> Outcome {
    sim::Sim::new(setup, config, factory).run()
}
