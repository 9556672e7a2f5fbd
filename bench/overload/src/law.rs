//! What a law is to a plant.

use trimtab_law::{Outputs, Tick};

/// A law of the outer loop: it sees the metrics of one tick, and says which limits should be in force.
pub trait Law {
    /// Limits from now on. A value that differs from the one in force costs one write, and its bucket is full again.
    fn tick(&mut self, tick: &Tick) -> Outputs;

    /// A limiter inside each proxy, for laws that decide on each request. `None`: the plant asks only `tick`.
    fn gate(&self, _pod: &str) -> Option<Box<dyn Gate>> {
        None
    }
}

/// What became of an admitted request, as the proxy in front of a pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, in whatever time.
    Answered,
    /// Answered with an error.
    Failed,
    /// The client left before the answer.
    Left,
}

/// A limiter in the proxy of one pod, asked for each request. Times are seconds of virtual time.
pub trait Gate {
    /// Whether a request of priority tier `tier` (0 is the lowest) is let in at `now`, with `inflight` requests in the pod.
    fn admit(&mut self, now: f64, inflight: usize, tier: usize) -> bool;

    /// An admitted request has ended at `now`, `time_s` after it was admitted; `queued_s` is how long it waited for a worker,
    /// for laws whose servers measure their own queue.
    fn done(&mut self, now: f64, time_s: f64, queued_s: f64, outcome: Outcome);
}
