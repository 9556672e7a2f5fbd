//! What a group is told, and what it says of its decision.

/// What a group is told besides its measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// The time of the law, in seconds; it only grows.
    pub now: f64,
    /// Since the tick before, in seconds.
    pub dt: f64,
    /// Age of the measurements, in seconds.
    pub age: f64,
    /// Time between ticks, in seconds.
    pub interval: f64,
    /// Window of the rates, in seconds.
    pub window: f64,
    /// The SLO, in seconds.
    pub slo: f64,
    /// The limit of a pod that is in force.
    pub in_force: Option<f64>,
    /// 95th percentile of the times of answers, in seconds.
    pub p95: Option<f64>,
    /// Whether another service on the path explains late answers.
    pub excused: bool,
    /// Whether what was decided last is not in force yet.
    pub pending: bool,
    /// Whether a limit is in force of which the law knows nothing: not its own, or it has lost its memory.
    pub foreign: bool,
}

/// The values that a decision rests on, for its reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    pub late_share: f64,
    pub wait_s: Option<f64>,
    pub cpu: Option<f64>,
    pub offered: f64,
    pub accepted: f64,
    pub overloaded: bool,
}
