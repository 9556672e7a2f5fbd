//! Laws that are told the truth: what feedback can reach at best.

use std::collections::VecDeque;

use trimtab_law::Outputs;

use super::Truth;

/// A bound.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Ticks by which the truth is old: 1 is `late`, 0 is `oracle`.
    age: usize,
    seen: VecDeque<Vec<Truth>>,
}

impl Bound {
    /// A bound whose truth is `age` ticks old.
    pub fn new(age: usize) -> Self {
        Self {
            age,
            ..Self::default()
        }
    }

    /// Admits what a pod can do, less what empties its queue within a tick, where it is offered more than it can do.
    pub fn tick(&mut self, truth: Vec<Truth>, interval_s: f64) -> Outputs {
        self.seen.push_back(truth);
        while self.seen.len() > self.age + 1 {
            self.seen.pop_front();
        }
        let mut outputs = Outputs {
            bucket_s: Some(0.1),
            ..Outputs::default()
        };
        let horizon_s = interval_s * (1 + self.age) as f64;
        let known = self.seen.front().cloned().unwrap_or_default();
        for pod in &known {
            // A ceiling is in force always, as whoever knows the capacity would have it. The queue that chance makes costs
            // capacity where pods contend.
            let over = pod.offered > 0.97 * pod.capacity || pod.queue > 0.3 * pod.capacity;
            let limit = if over {
                (0.985 - 3.0 * pod.contention) * pod.capacity - pod.queue / horizon_s
            } else {
                1.05 * pod.capacity
            };
            outputs
                .per_pod
                .insert(format!("pod-{}", pod.pod), limit.max(0.05 * pod.capacity));
        }
        // For pods that came since.
        outputs.limit = Some(known.iter().map(|pod| pod.capacity).sum());
        outputs
    }
}
