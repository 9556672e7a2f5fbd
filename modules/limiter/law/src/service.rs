//! The pods of one service: most of them as one group, those that differ from the others each for itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::context::{Context, Evidence};
use crate::group::{Group, Phase};
use crate::signal::{Signal, valid};
use crate::tuning as t;
use crate::{Outputs, Pod};

/// Memory of a service between ticks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub main: Group,
    /// Pods with limits of their own.
    pub outliers: BTreeMap<String, Outlier>,
    /// Ticks in a row in which a pod did worse than the others.
    suspects: BTreeMap<String, u32>,
    /// Pods of which most answers were late at the last tick, when those of the others were not. They are no measure of them.
    late: BTreeSet<String>,
    /// New pods. They are no measure of the others until they are as fast.
    pub warming: BTreeMap<String, NewPod>,
    /// Pods of the last tick.
    known: BTreeSet<String>,
    /// Ready pods at the last tick.
    pub ready: f64,
}

/// A pod that was not there before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NewPod {
    /// Since when it is there.
    since: f64,
    /// Whether requests wait in it: it got as many as the others before it was seen to be new.
    pub queue: bool,
}

/// A pod that differs from the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outlier {
    pub group: Group,
    /// Ticks in a row in which it did as well as the others.
    well: u32,
}

/// One tick of a service, as the service sees it.
pub(crate) struct View<'a> {
    pub pods: BTreeMap<&'a str, &'a Pod>,
    /// Signal of the service where its pods have no series.
    pub instead: Option<Signal>,
    /// Requests per second that callers offer, where refusals happen before the pods.
    pub offered: Option<f64>,
    pub mean_s: Option<f64>,
    pub in_force: Option<&'a Outputs>,
}

impl Service {
    /// One tick. `None`: there is nothing to go by.
    pub fn tick(&mut self, view: &View<'_>, context: &Context) -> Option<Evidence> {
        let ready: BTreeMap<&str, &Pod> = view
            .pods
            .iter()
            .filter(|(_, pod)| pod.ready != Some(false))
            .map(|(name, pod)| (*name, *pod))
            .collect();
        if ready.is_empty() && view.instead.is_none() {
            return None;
        }
        if !ready.is_empty() || self.ready < 1.0 {
            self.ready = (ready.len() as f64).max(1.0);
        }
        self.outliers
            .retain(|name, _| ready.contains_key(name.as_str()));
        self.suspects
            .retain(|name, _| ready.contains_key(name.as_str()));
        self.follow_new_pods(&ready, context);
        // Where most pods are late it is the service, not the pods.
        let few = self.late.len() * 2 < ready.len();
        let usual = |name: &str| {
            let late = few && self.late.contains(name);
            !(self.outliers.contains_key(name) || self.warming.contains_key(name) || late)
        };
        let normal = ready
            .iter()
            .filter(|(name, _)| usual(name))
            .map(|(_, pod)| *pod);
        let mut signal = Signal::of_pods(normal).or_else(|| view.instead.clone())?;
        signal.mean_s = view.mean_s;
        if let Some(offered) = view.offered {
            signal.rates.offered = (offered / self.ready).max(signal.rates.accepted);
        }
        let share = view
            .in_force
            .and_then(|outputs| valid(outputs.limit))
            .map(|limit| limit / self.ready);
        let evidence = self.main.tick(
            &signal,
            &Context {
                in_force: share,
                ..*context
            },
        );
        self.find_outliers(&ready, context);
        self.tick_outliers(&ready, view, share, context);
        self.release_outliers();
        Some(evidence)
    }

    /// One tick of the pods that have limits of their own; `share` is in force where a pod has none.
    fn tick_outliers(
        &mut self,
        ready: &BTreeMap<&str, &Pod>,
        view: &View<'_>,
        share: Option<f64>,
        context: &Context,
    ) {
        for (name, outlier) in &mut self.outliers {
            let Some(signal) = ready
                .get(name.as_str())
                .and_then(|pod| Signal::of_pods(std::iter::once(*pod)))
            else {
                continue;
            };
            let own = view
                .in_force
                .and_then(|outputs| valid(outputs.per_pod.get(name).copied()))
                .or(share);
            outlier.group.tick(
                &signal,
                &Context {
                    in_force: own,
                    p95: None,
                    ..*context
                },
            );
        }
    }

    /// A new pod is slower than the others until it proves to be as fast, or for a time. When all pods are new, none is.
    fn follow_new_pods(&mut self, ready: &BTreeMap<&str, &Pod>, c: &Context) {
        self.warming
            .retain(|name, _| ready.contains_key(name.as_str()));
        let usual = self.main.capacity.value;
        self.warming.retain(|name, new| {
            let signal = ready
                .get(name.as_str())
                .and_then(|pod| Signal::of_pods(std::iter::once(*pod)));
            new.queue = signal
                .as_ref()
                .and_then(|s| s.inflight)
                .zip(usual)
                .is_some_and(|(n, usual)| n > t::WAIT_SHARE * c.slo * t::WARM_SHARE * usual);
            let by_cpu = signal.and_then(|s| {
                s.cpu
                    .filter(|cpu| *cpu > 0.05)
                    .map(|cpu| s.rates.done() / cpu)
            });
            let fast = usual
                .zip(by_cpu)
                .is_some_and(|(usual, by_cpu)| by_cpu > 0.85 * usual);
            c.now - new.since < t::WARM_S && !fast
        });
        let is_new = |name: &&&str| !self.known.contains(**name);
        let new: Vec<String> = ready
            .keys()
            .filter(is_new)
            .map(|name| (*name).to_owned())
            .collect();
        if new.len() < ready.len() {
            self.warming.extend(new.into_iter().map(|name| {
                let new = NewPod {
                    since: c.now,
                    queue: true,
                };
                (name, new)
            }));
        }
        self.known = ready.keys().map(|name| (*name).to_owned()).collect();
        if self.warming.len() >= ready.len() {
            self.warming.clear();
        }
    }

    /// A pod is an outlier when its answers are late, or it is busy, while the others are fine, for some ticks.
    fn find_outliers(&mut self, ready: &BTreeMap<&str, &Pod>, c: &Context) {
        let normal: Vec<(&str, Signal)> = ready
            .iter()
            .filter(|(name, _)| {
                !self.outliers.contains_key(**name) && !self.warming.contains_key(**name)
            })
            .filter_map(|(name, pod)| {
                Signal::of_pods(std::iter::once(*pod)).map(|signal| (*name, signal))
            })
            .filter(|(_, signal)| !signal.rates.fails())
            .collect();
        self.late.clear();
        if normal.len() < 2 {
            self.suspects.clear();
            return;
        }
        let mut found = Vec::new();
        let mut shares: Vec<f64> = normal.iter().map(|(_, s)| s.rates.late_share()).collect();
        shares.sort_by(f64::total_cmp);
        let usual_late = shares[(shares.len() - 1) / 2];
        let cpu_of_all: f64 = normal.iter().filter_map(|(_, signal)| signal.cpu).sum();
        for (name, own) in &normal {
            let others_cpu = (cpu_of_all - own.cpu.unwrap_or(0.0)) / (normal.len() - 1) as f64;
            let many = own.rates.late * c.window > t::FEW_CALLS;
            let busier = own
                .cpu
                .is_some_and(|cpu| cpu > 0.98 && others_cpu < t::BUSY);
            let worse = usual_late < t::OUTLIER_LATE / 5.0 || busier;
            let late = many && own.rates.late_share() > t::OUTLIER_LATE && worse;
            if late {
                self.late.insert((*name).to_owned());
            }
            if late || slow_by_cpu(own, &normal, c) {
                let ticks = self.suspects.entry((*name).to_owned()).or_insert(0);
                // While queues empty, pods differ by when theirs is.
                *ticks = if self.main.phase == Phase::Drain {
                    1
                } else {
                    *ticks + 1
                };
                if *ticks >= t::OUTLIER_TICKS {
                    found.push(((*name).to_owned(), own.rates.ok));
                }
            } else {
                self.suspects.remove(*name);
            }
        }
        // Where most pods are bad it is the service, not the pods.
        if found.len() * 2 > ready.len() || self.main.phase == Phase::Drain {
            return;
        }
        for (name, ok) in found {
            self.suspects.remove(&name);
            let mut outlier = Outlier::default();
            outlier.group.capacity = Capacity::of_slow_pod(ok, self.main.capacity.value);
            self.outliers.insert(name, outlier);
        }
    }

    fn release_outliers(&mut self) {
        let usual = self.main.capacity.value;
        self.outliers.retain(|_, outlier| {
            let own = outlier.group.capacity.value;
            let same = usual.zip(own).is_some_and(|(usual, own)| own > 0.9 * usual);
            // Where CPU use says how fast it is, a calm pod is slow all the same.
            let slow = self
                .main
                .capacity
                .by_cpu()
                .zip(outlier.group.capacity.by_cpu())
                .map(|(usual, own)| own < 0.8 * usual);
            let calm = outlier.group.phase == Phase::Calm && slow != Some(true);
            outlier.well = if same || calm { outlier.well + 1 } else { 0 };
            outlier.well < t::OUTLIER_WELL_TICKS
        });
    }
}

/// Whether a pod does much less with its CPU than the others.
fn slow_by_cpu(own: &Signal, all: &[(&str, Signal)], c: &Context) -> bool {
    let Some(cpu) = own
        .cpu
        .filter(|cpu| *cpu > t::SLOW_CPU && own.rates.served() * c.window > t::SLOW_CALLS)
    else {
        return false;
    };
    let known = all
        .iter()
        .filter_map(|(_, signal)| signal.cpu.map(|cpu| (signal.rates.served(), cpu)));
    let (work, used) = known.fold((-own.rates.served(), -cpu), |(work, used), (done, cpu)| {
        (work + done, used + cpu)
    });
    used > 0.05 && own.rates.served() / cpu < t::SLOW_SHARE * work / used
}
