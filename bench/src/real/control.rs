//! Who changes limits while a variant runs.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use trimtab_law::{Config, Outputs, State, Tick};
use trimtab_limiter::translate::actuator::{
    Actuator, Aim, ConcurrencyBounds, EcdsBucket, Filter, Kind, ServiceTime,
};

use super::schedule::{self, Schedule};
use super::stage::Stage;
use super::variant::{SLIME_CPU, SLIME_QUOTA, Variant, aim};
use super::{INTERVAL, PODS, SLO, law_config, measure, pod_name};

/// What was decided at a tick.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// When, in seconds since the begin.
    pub t: f64,
    /// Limit over all pods.
    pub limit: Option<f64>,
    /// In one word.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Filters that were changed for it.
    pub writes: usize,
}

/// A loop that sees metrics and sets limits.
pub struct Control {
    actuator: Option<Box<dyn Actuator>>,
    law: Option<(Config, State)>,
    service: ServiceTime,
    /// What each proxy has.
    held: Vec<Aim>,
    in_force: Outputs,
}

impl Control {
    /// The loop of a variant; some have none.
    pub fn new(variant: Variant) -> Self {
        let actuator: Option<Box<dyn Actuator>> = match variant {
            Variant::Slime | Variant::Bucket => Some(Box::new(EcdsBucket)),
            Variant::Bounds => Some(Box::new(ConcurrencyBounds { pinned: true })),
            _ => None,
        };
        let law = matches!(variant, Variant::Bucket | Variant::Bounds)
            .then(|| (law_config(), State::default()));
        Self {
            actuator,
            law,
            service: ServiceTime::default(),
            held: vec![aim(None, 1.0); PODS],
            in_force: Outputs::default(),
        }
    }

    /// What should be in force in each pod.
    fn decide(&mut self, tick: &Tick) -> (Vec<Aim>, Decision) {
        let mut decision = Decision {
            t: tick.t,
            limit: None,
            state: String::new(),
            reason: String::new(),
            writes: 0,
        };
        let Some((config, state)) = &mut self.law else {
            let loads: Vec<f64> = tick.pods.values().filter_map(|pod| pod.cpu).collect();
            let cpu = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
            let limit = (cpu > SLIME_CPU).then_some(SLIME_QUOTA);
            decision.limit = limit;
            decision.reason = format!("cpu {cpu:.2}");
            let per_pod = limit.map(|limit| limit / PODS as f64);
            return (vec![aim(per_pod, 1.0); PODS], decision);
        };
        if let Some(api) = tick.apis.values().next() {
            let calm = api
                .accepted
                .zip(api.offered)
                .is_some_and(|(accepted, offered)| accepted > 0.99 * offered)
                && api.late.is_none_or(|late| late < 0.1);
            self.service.observe(api.mean_s, calm);
        }
        let service = self.service;
        let mut tick = tick.clone();
        let bounds = self
            .actuator
            .as_ref()
            .is_some_and(|actuator| actuator.kind() == Kind::ConcurrencyBounds);
        if bounds {
            only_what_was_let_in(&mut tick);
        } else {
            tick.in_force = Some(self.in_force.clone());
        }
        let decided = state.decide(config, &tick);
        let outputs = decided.outputs;
        decision.limit = outputs.limit;
        decision.state = decided.state;
        decision.reason = decided.reason;
        let by_rate = |index: usize| Aim {
            per_pod: outputs
                .per_pod
                .get(&pod_name(index))
                .copied()
                .or(outputs.limit.map(|limit| limit / PODS as f64)),
            bucket_s: outputs.bucket_s.unwrap_or(1.0),
            service_s: None,
            slo_s: SLO.as_secs_f64(),
        };
        let capacity = state.capacity();
        let aims = (0..PODS).map(|index| {
            let aim = by_rate(index);
            if bounds {
                Aim {
                    per_pod: capacity,
                    service_s: service.value(),
                    ..aim
                }
            } else {
                aim
            }
        });
        let aims = aims.collect();
        self.in_force = outputs;
        (aims, decision)
    }

    /// What must be written for a decision.
    fn changes(&mut self, aims: &[Aim]) -> Vec<(usize, Filter)> {
        let Some(actuator) = &self.actuator else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (index, (held, wanted)) in self.held.iter_mut().zip(aims).enumerate() {
            if actuator.is_worth(held, wanted) {
                *held = *wanted;
                out.push((index, actuator.filter(wanted)));
            }
        }
        out
    }

    /// Decides at each tick until the schedule ends.
    pub async fn run(
        mut self,
        stage: &mut Stage,
        schedule: Schedule,
        begin: Instant,
    ) -> anyhow::Result<Vec<Decision>> {
        let mut log = Vec::new();
        let mut next = begin;
        loop {
            next += INTERVAL;
            let t = next.duration_since(begin).as_secs_f64();
            if t >= schedule::end(schedule) {
                return Ok(log);
            }
            sleep_until(next).await;
            if let Some(operator) = stage.operator() {
                log.extend(operator.decision(t));
            }
            if self.actuator.is_none() {
                continue;
            }
            let tick = measure::tick(stage.prometheus(), t).await?;
            let (aims, mut decision) = self.decide(&tick);
            let changes = self.changes(&aims);
            decision.writes = changes.len();
            for (pod, filter) in &changes {
                stage.configure(*pod, filter)?;
            }
            log.push(decision);
        }
    }
}

/// Behind bounds the law watches what was let in, which says what the pods can do: while the proxy holds the queue short, the
/// service is not overloaded.
fn only_what_was_let_in(tick: &mut Tick) {
    for pod in tick.pods.values_mut() {
        pod.offered = pod.accepted;
    }
    for api in tick.apis.values_mut() {
        api.offered = api.accepted;
    }
}

/// Changes the speed of the workers as the schedule says.
pub async fn change_speed(speeds: impl Fn(f64), schedule: Schedule, begin: Instant) {
    for (phase, from, _) in schedule::spans(schedule) {
        sleep_until(begin + Duration::from_secs_f64(from)).await;
        speeds(phase.speed);
    }
}
