//! Laws in their places: they are asked at each tick, and their limits reach the proxies after the delivery.

use std::collections::VecDeque;

use trimtab_law::{Config, Outputs};

use super::meter::{self, Meter};
use super::pods::{Buckets, Pods};
use super::topology::{APIS, SERVICES};
use super::{Factory, Placement, Setup, Telemetry, trace};
use crate::bucket::Bucket;
use crate::law::Law;
use crate::peers::Place;

/// A law and the limits that it set.
struct Slot {
    law: Box<dyn Law>,
    /// Index of its service; `None` at the entry.
    service: Option<usize>,
    in_force: Outputs,
    /// Limits on their way, with the time of arrival in nanoseconds.
    sent: VecDeque<(u64, Outputs)>,
}

/// All laws of a run.
pub struct Actuator {
    slots: Vec<Slot>,
    telemetry: Telemetry,
    /// Changed limits so far.
    pub writes: u64,
    /// A line for each law and tick, if asked for.
    pub trace: Option<Vec<String>>,
}

impl Actuator {
    /// Makes the laws, and puts their gates into the proxies.
    pub fn new(setup: &Setup, config: &Config, factory: &Factory, pods: &mut Pods) -> Self {
        let services: Vec<Option<usize>> = match setup.placement {
            Placement::Entry => vec![None],
            Placement::Services => (0..SERVICES.len()).map(Some).collect(),
        };
        let slots = services
            .into_iter()
            .map(|service| {
                let law = factory(&Place {
                    service: service.map(|s| SERVICES[s].name),
                    pods: service.map_or(1, |s| SERVICES[s].pods),
                    capacity: service.map_or(f64::INFINITY, |s| SERVICES[s].capacity()),
                    config,
                    seed: setup.seed,
                    users: true,
                });
                for pod in service.map_or(0..0, |s| pods.of(s)) {
                    let name = pods.name(pod);
                    pods.all[pod].gate = law.gate(&name);
                }
                Slot {
                    law,
                    service,
                    in_force: Outputs::default(),
                    sent: VecDeque::new(),
                }
            })
            .collect();
        Self {
            slots,
            telemetry: setup.telemetry,
            writes: 0,
            trace: setup.trace.then(Vec::new),
        }
    }

    /// Asks each law. Returns whether a limit is on its way.
    pub fn tick(&mut self, now: u64, pods: &Pods, entry: &Meter) -> bool {
        let t = now as f64 / 1e9;
        let mut sent = false;
        for slot in &mut self.slots {
            let range = slot.service.map_or(0..pods.all.len(), |s| pods.of(s));
            let first = range.start;
            let seen: Vec<(usize, usize, &Meter)> = range
                .map(|p| {
                    let pod = &pods.all[p];
                    let start = if slot.service.is_some() {
                        first
                    } else {
                        pods.of(pod.service).start
                    };
                    (pod.service, p - start, &pod.meter)
                })
                .collect();
            let meters: Vec<&Meter> = match slot.service {
                Some(_) => seen.iter().map(|(_, _, m)| *m).collect(),
                None => vec![entry],
            };
            let mut tick = meter::tick(t, &self.telemetry, &meters, &seen);
            tick.in_force = Some(slot.in_force.clone());
            let outputs = slot.law.tick(&tick);
            if let Some(trace) = &mut self.trace {
                let place = slot.service.map_or("entry", |s| SERVICES[s].name);
                trace.push(trace::line(place, &tick, &outputs));
            }
            let last = slot.sent.back().map_or(&slot.in_force, |(_, o)| o);
            if outputs != *last {
                self.writes += changes(last, &outputs);
                let at = now + (self.telemetry.delivery_s * 1e9) as u64;
                slot.sent.push_back((at, outputs));
                sent = true;
            }
        }
        sent
    }

    /// Limits that have arrived at their proxies.
    pub fn deliver(&mut self, now: u64, pods: &mut Pods, entry: &mut Buckets) {
        for slot in &mut self.slots {
            while slot.sent.front().is_some_and(|(at, _)| *at <= now) {
                let Some((_, outputs)) = slot.sent.pop_front() else {
                    break;
                };
                match slot.service {
                    None => apply(entry, &outputs, "", 1.0, now),
                    Some(service) => {
                        for pod in pods.of(service) {
                            let name = pods.name(pod);
                            let share = SERVICES[service].pods as f64;
                            apply(&mut pods.all[pod].buckets, &outputs, &name, share, now);
                        }
                    }
                }
                slot.in_force = outputs;
            }
        }
    }
}

/// Changed values.
fn changes(old: &Outputs, new: &Outputs) -> u64 {
    let maps = |a: &std::collections::BTreeMap<String, f64>,
                b: &std::collections::BTreeMap<String, f64>| {
        let changed = b.iter().filter(|(k, v)| a.get(*k) != Some(v)).count();
        changed + a.keys().filter(|k| !b.contains_key(*k)).count()
    };
    let single = u64::from(old.limit != new.limit) + u64::from(old.bucket_s != new.bucket_s);
    single + (maps(&old.per_pod, &new.per_pod) + maps(&old.per_api, &new.per_api)) as u64
}

fn apply(buckets: &mut Buckets, outputs: &Outputs, pod: &str, pods: f64, now: u64) {
    let seconds = outputs.bucket_s.unwrap_or(1.0);
    let own = outputs.per_pod.get(pod).copied();
    set(
        &mut buckets.total,
        own.or(outputs.limit.map(|l| l / pods)),
        seconds,
        now,
    );
    for (bucket, api) in buckets.apis.iter_mut().zip(APIS) {
        set(
            bucket,
            outputs.per_api.get(api.name).map(|l| l / pods),
            seconds,
            now,
        );
    }
}

fn set(bucket: &mut Option<Bucket>, rate: Option<f64>, seconds: f64, now: u64) {
    match rate {
        None => *bucket = None,
        Some(rate) if bucket.as_ref().is_some_and(|b| b.is_for(rate, seconds)) => {}
        Some(rate) => *bucket = Some(Bucket::new(rate, seconds, now)),
    }
}
