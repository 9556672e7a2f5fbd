//! Who changes limits while a variant runs.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use trimtab_law::{Config, Outputs, Pod, State, Tick};
use trimtab_limiter::translate::actuator::{
    Actuator, Aim, ConcurrencyBounds, EcdsBucket, Filter, Learned, Seen,
};

use super::schedule::{self, Schedule};
use super::stage::Stage;
use super::variant::{SLIME_CPU, SLIME_QUOTA, Variant, aim};
use super::{INTERVAL, PODS, law_config, measure, pod_name};

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

/// How limits come from metrics.
enum Rule {
    /// Slime's.
    Slime,
    /// The law, and what is in force by it.
    Law(Box<(Config, State, Outputs)>),
    /// What bounds must know.
    Bounds(Learned),
}

/// A loop that sees metrics and sets limits.
pub struct Control {
    actuator: Option<Box<dyn Actuator>>,
    rule: Rule,
    /// What each proxy has.
    held: Vec<Aim>,
}

impl Control {
    /// The loop of a variant; some have none.
    pub fn new(variant: Variant) -> Self {
        let actuator: Option<Box<dyn Actuator>> = match variant {
            Variant::Slime | Variant::Bucket => Some(Box::new(EcdsBucket)),
            Variant::Bounds => Some(Box::new(ConcurrencyBounds { pinned: true })),
            _ => None,
        };
        let rule = match variant {
            Variant::Bucket => Rule::Law(Box::new((
                law_config(),
                State::default(),
                Outputs::default(),
            ))),
            Variant::Bounds => Rule::Bounds(Learned::default()),
            _ => Rule::Slime,
        };
        Self {
            actuator,
            rule,
            held: vec![aim(None, 1.0); PODS],
        }
    }

    /// Decides, and says what must be written for it.
    pub fn tick(&mut self, tick: &Tick) -> (Decision, Vec<(usize, Filter)>) {
        let mut decision = Decision {
            t: tick.t,
            limit: None,
            state: String::new(),
            reason: String::new(),
            writes: 0,
        };
        let aims = match &mut self.rule {
            Rule::Slime => slime(tick, &mut decision),
            Rule::Law(law) => by_law(law, tick, &mut decision),
            Rule::Bounds(learned) => by_bounds(learned, tick, &mut decision),
        };
        let changes = self.changes(&aims);
        decision.writes = changes.len();
        (decision, changes)
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
            let (decision, changes) = self.tick(&tick);
            for (pod, filter) in &changes {
                stage.configure(*pod, filter)?;
            }
            log.push(decision);
        }
    }
}

fn slime(tick: &Tick, decision: &mut Decision) -> Vec<Aim> {
    let cpu = mean(tick, |pod| pod.cpu).unwrap_or(0.0);
    let limit = (cpu > SLIME_CPU).then_some(SLIME_QUOTA);
    decision.limit = limit;
    decision.reason = format!("cpu {cpu:.2}");
    vec![aim(limit.map(|limit| limit / PODS as f64), 1.0); PODS]
}

fn by_law(
    (config, state, in_force): &mut (Config, State, Outputs),
    tick: &Tick,
    decision: &mut Decision,
) -> Vec<Aim> {
    let mut tick = tick.clone();
    tick.in_force = Some(in_force.clone());
    let decided = state.decide(config, &tick);
    let outputs = decided.outputs;
    decision.limit = outputs.limit;
    decision.state = decided.state;
    decision.reason = decided.reason;
    let share = outputs.limit.map(|limit| limit / PODS as f64);
    let aims = (0..PODS).map(|index| {
        let own = outputs.per_pod.get(&pod_name(index)).copied();
        aim(own.or(share), outputs.bucket_s.unwrap_or(1.0))
    });
    let aims = aims.collect();
    *in_force = outputs;
    aims
}

fn by_bounds(learned: &mut Learned, tick: &Tick, decision: &mut Decision) -> Vec<Aim> {
    let pods = PODS as f64;
    if let Some(api) = tick.apis.values().next()
        && let (Some(offered), Some(accepted)) = (api.offered, api.accepted)
    {
        learned.observe(&Seen {
            offered: offered / pods,
            accepted: accepted / pods,
            ok: api.ok.unwrap_or(0.0) / pods,
            late: api.late.unwrap_or(0.0) / pods,
            mean_s: api.mean_s,
            cpu: mean(tick, |pod| pod.cpu),
        });
        decision.reason = format!("offered {offered:.1}/s, accepted {accepted:.1}/s");
    }
    let known = learned.known();
    if let Some((rate, service_s)) = known {
        let text = format!("; a pod does {rate:.1}/s of {:.0} ms", 1000.0 * service_s);
        decision.reason.push_str(&text);
    }
    let bounds = Aim {
        per_pod: known.map(|(rate, _)| rate),
        service_s: known.map(|(_, service_s)| service_s),
        ..aim(None, 1.0)
    };
    vec![bounds; PODS]
}

fn mean(tick: &Tick, of: impl Fn(&Pod) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = tick.pods.values().filter_map(of).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Changes the speed of the workers as the schedule says.
pub async fn change_speed(speeds: impl Fn(f64), schedule: Schedule, begin: Instant) {
    for (phase, from, _) in schedule::spans(schedule) {
        sleep_until(begin + Duration::from_secs_f64(from)).await;
        speeds(phase.speed);
    }
}
