//! What sets limits, and when they act.

use trimtab_law::Outputs;

use super::super::{Driver, Truth, metrics, writes};
use super::{Event, Sim};

impl Sim<'_> {
    pub(super) fn tick(&mut self) {
        let now = self.now;
        self.at(now + self.config.interval_s, Event::Tick);
        if self.scenario.telemetry.reset.is_some_and(|at| now >= at) && !self.reset_done {
            self.reset_done = true;
            for pod in &mut self.pods {
                let inflight = pod.meter.inflight;
                pod.meter = crate::plant_b::meter::Meter::default();
                pod.meter.inflight = inflight;
            }
        }
        let outputs = match &mut self.driver {
            Driver::Law(law) => {
                let mut tick = metrics::tick(now, self.scenario, &self.pods);
                tick.in_force = Some(self.in_force.clone());
                law.tick(&tick)
            }
            Driver::Bound(_) => {
                let truth = self.truth();
                let interval = self.config.interval_s;
                match &mut self.driver {
                    Driver::Bound(bound) => bound.tick(truth, interval),
                    Driver::Law(_) => Outputs::default(),
                }
            }
        };
        let last = self
            .sent
            .back()
            .map_or(&self.in_force, |(_, outputs)| outputs);
        let changes = writes(last, &outputs);
        if changes > 0 {
            self.outcome
                .writes
                .extend(std::iter::repeat_n(now, changes));
            let at = now + self.scenario.telemetry.delivery_s;
            self.sent.push_back((at, outputs));
            self.at(at, Event::Deliver);
        }
    }

    fn truth(&self) -> Vec<Truth> {
        let ready = self.ready.len() as f64;
        let offered = (self.scenario.load)(self.now) * self.nominal() / ready;
        self.ready
            .iter()
            .map(|&index| Truth {
                pod: index,
                contention: self.scenario.service.contention,
                capacity: self.capacity(index) / self.slowed(index),
                queue: self.pods[index].queue.len() as f64
                    + self.second_tier.0.len() as f64 / ready,
                offered,
            })
            .collect()
    }

    pub(super) fn share_limits(&mut self) {
        let now = self.now;
        let share = |limit: f64| limit / self.ready.len() as f64;
        let own = self.in_force.limit.map(share);
        let api = self
            .in_force
            .per_api
            .values()
            .copied()
            .reduce(|a, b| a + b)
            .map(share);
        let seconds = self.in_force.bucket_s.unwrap_or(1.0);
        for &index in &self.ready {
            let special = self.in_force.per_pod.get(&format!("pod-{index}")).copied();
            self.pods[index].limit(special.or(own), api, seconds, now);
        }
    }

    /// The limit in force over all pods.
    pub(super) fn total_limit(&self) -> Option<f64> {
        let share = self
            .in_force
            .limit
            .map(|limit| limit / self.ready.len() as f64);
        let of = |index: &usize| {
            self.in_force
                .per_pod
                .get(&format!("pod-{index}"))
                .copied()
                .or(share)
        };
        let own = self.ready.iter().map(of).sum::<Option<f64>>();
        let api = self.in_force.per_api.values().copied().reduce(|a, b| a + b);
        own.into_iter().chain(api).reduce(f64::min)
    }
}
