//! One tick of the law: measurements in, limits out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::context::{Context, Evidence};
use crate::entry;
use crate::group::Phase;
use crate::service::{Service, View};
use crate::signal::{Signal, mean_time, valid};
use crate::tiers;
use crate::tuning as t;
use crate::{Config, Decision, Outputs, Pod, Tick};

/// All that the law remembers. It can be stored after any tick and given back before the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The law's own time in seconds, which only grows; ticks' times may jump.
    clock: f64,
    last_t: Option<f64>,
    /// When there were measurements, in the law's time.
    measured_at: f64,
    services: BTreeMap<String, Service>,
    /// What was decided last.
    last: Outputs,
    /// The limit in force and the decided one at the tick before, and for how many ticks they have differed without a change.
    compared: Option<(Option<f64>, Option<f64>)>,
    unlike: u32,
}

impl State {
    /// What the ready pods of a service can answer in time, in requests per second, as far as it is known.
    pub fn capacity(&self) -> Option<f64> {
        let service = self.services.get("")?;
        let value = service.main.capacity.value?;
        Some(digits(value * service.ready.max(1.0)))
    }

    /// Decides the limits of one tick.
    pub fn decide(&mut self, config: &Config, tick: &Tick) -> Decision {
        let config = config.checked();
        let dt = self.advance(&config, tick.t);
        let context = self.context(&config, tick, dt);
        let names = entry::services(tick);
        let decided = if names.len() > 1 {
            entry::decide(&mut self.services, &config, tick, &context, &names)
        } else {
            self.single(&config, tick, &context)
        };
        let (mut outputs, state, reason) = match decided {
            Some(decided) => {
                self.measured_at = self.clock;
                decided
            }
            None => self.without_measurements(&config),
        };
        round(&mut outputs);
        self.last = outputs.clone();
        Decision {
            t: tick.t,
            outputs,
            state: state.to_owned(),
            reason,
        }
    }

    /// The law's time goes on by the time between two ticks, or by one interval where the clock jumped.
    fn advance(&mut self, config: &Config, t: f64) -> f64 {
        let step = self.last_t.map_or(config.interval_s, |last| t - last);
        let dt = if step > 0.2 * config.interval_s && step < 3.0 * config.interval_s {
            step
        } else {
            config.interval_s
        };
        self.last_t = Some(t);
        self.clock += dt;
        dt
    }

    fn context(&mut self, config: &Config, tick: &Tick, dt: f64) -> Context {
        let in_force = tick.in_force.as_ref().map(|outputs| outputs.limit);
        let pending = in_force.is_some_and(|limit| self.is_pending(limit));
        let age = tick.as_of.map_or(0.0, |as_of| tick.t - as_of);
        let p95 = tick
            .apis
            .values()
            .filter_map(|api| valid(api.p95_s))
            .fold(None, |worst: Option<f64>, p95| {
                Some(worst.map_or(p95, |worst| worst.max(p95)))
            });
        Context {
            now: self.clock,
            dt,
            age: if (0.0..=120.0).contains(&age) {
                age
            } else {
                config.interval_s
            },
            interval: config.interval_s,
            window: config.window_s,
            slo: config.slo_s,
            in_force: None,
            p95,
            excused: false,
            pending,
            foreign: self.last.limit.is_none(),
        }
    }

    /// Whether what was decided last is not in force yet. What is in force need not be exactly that, since buckets hold whole tokens:
    /// a difference that stays is none of time.
    fn is_pending(&mut self, in_force: Option<f64>) -> bool {
        let near = match (in_force, self.last.limit) {
            (Some(now), Some(decided)) => (now - decided).abs() <= t::NEARLY * decided,
            (now, decided) => now.is_none() && decided.is_none(),
        };
        let stays = self.compared == Some((in_force, self.last.limit));
        self.compared = Some((in_force, self.last.limit));
        self.unlike = if near || !stays { 0 } else { self.unlike + 1 };
        !near && self.unlike < t::UNLIKE_TICKS
    }

    fn single(
        &mut self,
        config: &Config,
        tick: &Tick,
        context: &Context,
    ) -> Option<entry::Decided> {
        let service = self.services.entry(String::new()).or_default();
        let known = tick
            .pods
            .values()
            .filter(|pod| pod.ready != Some(false))
            .count() as f64;
        let pods = if known > 0.0 {
            known
        } else {
            service.ready.max(1.0)
        };
        let view = View {
            pods: tick
                .pods
                .iter()
                .map(|(name, pod)| (name.as_str(), pod))
                .collect::<BTreeMap<&str, &Pod>>(),
            instead: Signal::of_apis(tick, pods),
            offered: None,
            mean_s: mean_time(tick),
            in_force: tick.in_force.as_ref(),
        };
        let evidence = service.tick(&view, context)?;
        let mut outputs = outputs(service, config, &evidence);
        if let Some(limit) = outputs.limit.filter(|_| service.main.phase != Phase::Calm) {
            outputs.per_api = tiers::shares(config, tick, limit);
        }
        Some((outputs, name(service), reason(service, &evidence, config)))
    }

    /// Without measurements the last limits stay in force for a time, then they move to the fallback.
    fn without_measurements(&self, config: &Config) -> entry::Decided {
        let missing = self.clock - self.measured_at;
        let mut outputs = self.last.clone();
        if missing <= config.hold_s {
            return (
                outputs,
                "Hold",
                format!("no measurements for {missing:.0}s: the last limits stay in force"),
            );
        }
        let Some(fallback) = config.fallback else {
            let reason = format!(
                "no measurements for {missing:.0}s and no fallback: the last limits stay in force"
            );
            return (outputs, "Hold", reason);
        };
        let fallback = fallback.max(config.floor);
        let part = ((missing - config.hold_s) / t::RAMP).clamp(0.0, 1.0);
        // A long ramp in few steps: each is a write.
        let part = (part * 4.0).ceil() / 4.0;
        let from = self.held_limit().unwrap_or(fallback);
        outputs.limit = Some(from + (fallback - from) * part);
        outputs.per_pod.clear();
        outputs.per_api.clear();
        outputs.bucket_s = Some(outputs.bucket_s.unwrap_or(t::CALM_BUCKET));
        let reason = format!(
            "no measurements for {missing:.0}s: the limit moves to the fallback of {fallback:.0}/s"
        );
        (outputs, "Fallback", reason)
    }

    /// The limit that the groups decided last, whatever was ramped since.
    fn held_limit(&self) -> Option<f64> {
        let service = self.services.get("")?;
        service
            .main
            .limit
            .map(|limit| limit * service.ready.max(1.0))
    }
}

/// Limits of a service by its groups.
fn outputs(service: &Service, config: &Config, evidence: &Evidence) -> Outputs {
    let ready = service.ready.max(1.0);
    let least = (config.floor / ready).max((1.0 - config.max_shed) * evidence.offered);
    let limit = service.main.limit.map(|limit| limit.max(least));
    let mut per_pod: BTreeMap<String, f64> = service
        .outliers
        .iter()
        .filter_map(|(name, outlier)| {
            outlier
                .group
                .limit
                .map(|limit| (name.clone(), limit.max(config.floor / ready)))
        })
        .collect();
    if let Some(limit) = limit.filter(|_| service.main.phase != Phase::Calm) {
        per_pod.extend(service.warming.iter().map(|(name, new)| {
            let part = if new.queue { t::LEAST } else { t::WARM_SHARE };
            (name.clone(), part * limit)
        }));
    }
    let bucket_s = limit.map(|limit| match service.main.phase {
        Phase::Calm => t::CALM_BUCKET.max(t::CALM_TOKENS / limit),
        Phase::Drain | Phase::Hold => t::BUCKET.max(2.0 / limit),
    });
    Outputs {
        limit: limit.map(|limit| limit * ready),
        per_pod,
        per_api: BTreeMap::new(),
        bucket_s: bucket_s.or((!service.outliers.is_empty()).then_some(t::BUCKET)),
    }
}

fn name(service: &Service) -> &'static str {
    match (service.main.phase, service.main.limit) {
        (Phase::Calm, None) => "Open",
        (Phase::Calm, Some(_)) => "Armed",
        (Phase::Drain, _) => "Draining",
        (Phase::Hold, _) => "Limiting",
    }
}

/// Why the limit is what it is, with the values that it rests on.
fn reason(service: &Service, e: &Evidence, config: &Config) -> String {
    let ready = service.ready;
    let capacity = service
        .main
        .capacity
        .value
        .map_or("unknown".to_owned(), |c| format!("{:.1}/s", c * ready));
    let what = match (service.main.phase, service.main.limit) {
        (Phase::Calm, None) => "no overload, and no capacity known to arm a ceiling".to_owned(),
        (Phase::Calm, Some(_)) => "no overload; the ceiling is above the known capacity".to_owned(),
        (Phase::Drain, _) => format!(
            "a queue of about {:.0} requests must empty",
            service.main.backlog * ready
        ),
        (Phase::Hold, _) => "the pods get what they can answer in time".to_owned(),
    };
    let mut text = format!(
        "{what}: capacity {capacity} of {ready:.0} pods, offered {:.1}/s, accepted {:.1}/s, {:.0} % of the answers over the SLO of {}s",
        e.offered * ready,
        e.accepted * ready,
        e.late_share * 100.0,
        config.slo_s
    );
    if let Some(wait) = e.wait_s {
        let _ = write!(text, ", wait {:.0} ms", wait * 1000.0);
    }
    if let Some(cpu) = e.cpu {
        let _ = write!(text, ", CPU {:.0} %", cpu * 100.0);
    }
    if !service.outliers.is_empty() {
        let names: Vec<&str> = service.outliers.keys().map(String::as_str).collect();
        let _ = write!(text, "; slower than the others: {}", names.join(", "));
    }
    text
}

/// Three significant digits: a limit that is stated is the limit that is in force.
fn round(outputs: &mut Outputs) {
    if let Some(limit) = &mut outputs.limit {
        *limit = digits(*limit);
    }
    for limit in outputs
        .per_pod
        .values_mut()
        .chain(outputs.per_api.values_mut())
    {
        *limit = digits(*limit);
    }
    if let Some(bucket) = &mut outputs.bucket_s {
        *bucket = (*bucket * 20.0).ceil() / 20.0;
    }
}

fn digits(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(2.0 - value.log10().floor());
    (value * scale).round() / scale
}
