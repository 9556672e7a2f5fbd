//! Plant A: one service with pods, queues, clients and a law.
//!
//! A discrete-event model, request by request. Clients send Poisson arrivals, spread over the pods by chance, and leave after
//! the SLO; a call whose client left is recorded then, and the pod works on it all the same when it gets to it. Pods have
//! workers and a queue. The limits act through Envoy's token buckets, and the law sees what Prometheus would show.

mod bounds;
pub mod judge;
mod metrics;
pub mod plot;
mod pod;
pub mod scenarios;
mod sim;
#[cfg(test)]
mod tests;

use trimtab_law::{Config, Outputs};

use crate::law::Law;

pub use bounds::Bound;
pub use sim::run;

/// What happens in a run. Functions of time take seconds since its begin.
#[derive(Clone)]
pub struct Scenario {
    /// Name in tables.
    pub name: &'static str,
    /// Length, in seconds.
    pub seconds: f64,
    /// Offered load, as a share of the capacity of `base_pods` pods at speed 1.
    pub load: fn(f64) -> f64,
    /// Speed of a pod, 1 is normal.
    pub speed: fn(f64, usize) -> f64,
    /// Number of pods.
    pub pods: fn(f64) -> usize,
    /// Every so many seconds from the overload on, the oldest pod ends and a new one takes its place.
    pub replace_s: Option<f64>,
    /// Pods at the begin.
    pub base_pods: usize,
    /// When the overload begins; `None`: there is none, and nothing may be refused.
    pub overload: Option<f64>,
    /// When the same overload comes again.
    pub again: Option<f64>,
    /// Whether load and capacity stay as they are after the overload began.
    pub steady: bool,
    /// The service.
    pub service: ServiceModel,
    /// Its clients.
    pub clients: Clients,
    /// What is measured, and how late.
    pub telemetry: Telemetry,
    /// Keys of the law that differ from the usual ones.
    pub configure: fn(&mut Config),
}

/// How pods work.
#[derive(Clone)]
pub struct ServiceModel {
    /// Workers of a pod.
    pub workers: usize,
    /// Mean time of service, in seconds.
    pub service_s: f64,
    /// Sigma of its logarithm.
    pub sigma: f64,
    /// One call in ten takes ten times as long as the others.
    pub bimodal: bool,
    /// Newest first.
    pub lifo: bool,
    /// Calls of clients that left are dropped when they reach a worker.
    pub drops_left: bool,
    /// Longest queue of a pod; a call beyond it is an error.
    pub queue: usize,
    /// Every so many seconds a pod stands still for so many.
    pub pause: Option<(f64, f64)>,
    /// Growth of the time of service with each queued call per worker.
    pub contention: f64,
    /// A pod that answers errors at once.
    pub broken: Option<usize>,
    /// Workers and time of service of a second tier that all calls pass.
    pub second_tier: Option<(usize, f64)>,
    /// New pods are half as fast for so many seconds.
    pub cold_s: f64,
}

/// How clients behave.
#[derive(Clone)]
pub struct Clients {
    /// Share of failed calls that is tried again.
    pub retry: f64,
    /// Share of refused calls that is tried again.
    pub retry_refused: f64,
    /// Retries for each success at most.
    pub budget: Option<f64>,
}

/// What the law is told.
#[derive(Clone)]
pub struct Telemetry {
    /// Window of the rates, in seconds.
    pub window_s: f64,
    /// Age of the newest measurement, in seconds.
    pub late_s: f64,
    /// Time from a decision to its effect, in seconds.
    pub delivery_s: f64,
    /// No measurements from one time to another.
    pub lost: Option<(f64, f64)>,
    /// Fields that are missing: `cpu`, `inflight`, `percentiles`.
    pub without: &'static [&'static str],
    /// A pod without series.
    pub blind_pod: Option<usize>,
    /// All counters begin anew.
    pub reset: Option<f64>,
    /// The clock of the law steps by an hour.
    pub clock_step: Option<f64>,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// First attempts.
    pub demand: f64,
    /// First attempts as clients mean to send them, without chance.
    pub meant: f64,
    /// Right answers in time.
    pub good: f64,
    /// Answers that were late, or whose client had left.
    pub late: f64,
    /// Refused attempts.
    pub refused: f64,
    /// What could have been answered.
    pub ideal: f64,
    /// What the pods could do.
    pub capacity: f64,
    /// Calls that wait in pods, at its end.
    pub queue: f64,
    /// Limit in force, over all pods.
    pub limit: Option<f64>,
}

/// A finished run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Each second.
    pub seconds: Vec<Second>,
    /// Times of the writes: changed limits.
    pub writes: Vec<f64>,
}

/// Who sets limits.
pub enum Driver {
    /// A law, which sees metrics only.
    Law(Box<dyn Law>),
    /// A bound, which is told the truth.
    Bound(Bound),
}

/// The truth about a pod, for bounds.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// Its number.
    pub pod: usize,
    /// Requests per second that it can answer.
    pub capacity: f64,
    /// Requests in its queue.
    pub queue: f64,
    /// What each queued call per worker costs, as a share of the time of service.
    pub contention: f64,
    /// Requests per second that are offered to it.
    pub offered: f64,
}

/// Limits and what they cost to change: each changed value is a write.
pub(crate) fn writes(old: &Outputs, new: &Outputs) -> usize {
    let changed = |a: &std::collections::BTreeMap<String, f64>,
                   b: &std::collections::BTreeMap<String, f64>| {
        b.iter()
            .filter(|(key, value)| a.get(*key) != Some(value))
            .count()
            + a.keys().filter(|key| !b.contains_key(*key)).count()
    };
    let total = usize::from(old.limit != new.limit || old.bucket_s != new.bucket_s);
    total + changed(&old.per_pod, &new.per_pod) + changed(&old.per_api, &new.per_api)
}
