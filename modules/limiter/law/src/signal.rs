//! Measurements of a group of pods, as means over its pods.

use serde::{Deserialize, Serialize};

use crate::tuning as t;
use crate::{Api, Pod, Tick};

/// Requests per second of one pod, a mean over the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub offered: f64,
    pub accepted: f64,
    pub ok: f64,
    pub late: f64,
    pub errors: f64,
}

impl Rates {
    /// Answers that were no errors.
    pub fn served(&self) -> f64 {
        self.ok + self.late
    }

    /// All answers.
    pub fn done(&self) -> f64 {
        self.ok + self.late + self.errors
    }

    /// Share of the answers that were late, 0 to 1.
    pub fn late_share(&self) -> f64 {
        share(self.late, self.served())
    }

    /// Whether most answers are errors.
    pub fn fails(&self) -> bool {
        share(self.errors, self.done()) > t::FAILING
    }

    /// What the rates of a window say of its end: a window lags by half its length, so the change from tick to tick is carried
    /// on by `lead` ticks. Never below zero.
    pub fn ahead(&self, before: &Rates, lead: f64) -> Rates {
        let carry = |now: f64, then: f64| (now + lead * (now - then)).max(0.0);
        Rates {
            offered: carry(self.offered, before.offered),
            accepted: carry(self.accepted, before.accepted),
            ok: carry(self.ok, before.ok),
            late: carry(self.late, before.late),
            errors: carry(self.errors, before.errors),
        }
    }

    fn scaled(&self, by: f64) -> Rates {
        Rates {
            offered: self.offered * by,
            accepted: self.accepted * by,
            ok: self.ok * by,
            late: self.late * by,
            errors: self.errors * by,
        }
    }

    fn add(&mut self, other: &Rates) {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.ok += other.ok;
        self.late += other.late;
        self.errors += other.errors;
    }
}

/// `part / whole`, 0 where there is nothing.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole > 1e-9 {
        (part / whole).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// What is known of a group of pods at one tick.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Signal {
    /// Pods that the means are taken over.
    pub pods: f64,
    pub rates: Rates,
    /// Requests in a pod.
    pub inflight: Option<f64>,
    /// Used share of the CPU limit.
    pub cpu: Option<f64>,
    /// Mean time of an answer, where it is known.
    pub mean_s: Option<f64>,
}

impl Signal {
    /// Means over `pods`; `None` where none of them has rates. A pod that mostly fails says nothing about the others, unless all
    /// of them do.
    pub fn of_pods<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<Signal> {
        let known: Vec<(&Pod, Rates)> = pods
            .filter_map(|pod| of_pod(pod).map(|rates| (pod, rates)))
            .collect();
        let all_fail = known.iter().all(|(_, rates)| rates.fails());
        let mut sum = Rates::default();
        let mut count = 0.0;
        let mut inflight = Mean::default();
        let mut cpu = Mean::default();
        for (pod, rates) in known.iter().filter(|(_, rates)| all_fail || !rates.fails()) {
            sum.add(rates);
            count += 1.0;
            inflight.add(valid(pod.inflight));
            cpu.add(valid(pod.cpu));
        }
        (count > 0.0).then(|| Signal {
            pods: count,
            rates: sum.scaled(1.0 / count),
            inflight: inflight.get(),
            cpu: cpu.get(),
            mean_s: None,
        })
    }

    /// The sum over all APIs, shared by `pods` pods: for services whose pods have no series of their own.
    pub fn of_apis(tick: &Tick, pods: f64) -> Option<Signal> {
        let mut sum = Rates::default();
        let mut any = false;
        for api in tick.apis.values() {
            if let Some(rates) = of_api(api) {
                sum.add(&rates);
                any = true;
            }
        }
        any.then(|| Signal {
            pods,
            rates: sum.scaled(1.0 / pods),
            inflight: None,
            cpu: None,
            mean_s: None,
        })
    }
}

/// Mean time of an answer over all APIs, weighted by their answers.
pub(crate) fn mean_time(tick: &Tick) -> Option<f64> {
    let mut weight = 0.0;
    let mut sum = 0.0;
    for api in tick.apis.values() {
        let Some(mean) = valid(api.mean_s) else {
            continue;
        };
        let answers = valid(api.ok).unwrap_or(0.0) + valid(api.late).unwrap_or(0.0);
        weight += answers;
        sum += answers * mean;
    }
    (weight > 1e-9).then(|| sum / weight)
}

/// The value of a metric that is there, finite and not negative.
pub(crate) fn valid(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite() && *v >= 0.0)
}

fn of_pod(pod: &Pod) -> Option<Rates> {
    rates(pod.offered, pod.accepted, pod.ok, pod.late, pod.errors)
}

fn of_api(api: &Api) -> Option<Rates> {
    rates(api.offered, api.accepted, api.ok, api.late, api.errors)
}

/// Rates from what is there. Traffic must be known by `offered` or `accepted`, answers by `ok` or `late`.
fn rates(
    offered: Option<f64>,
    accepted: Option<f64>,
    ok: Option<f64>,
    late: Option<f64>,
    errors: Option<f64>,
) -> Option<Rates> {
    let (offered, accepted) = match (valid(offered), valid(accepted)) {
        (None, None) => return None,
        (Some(offered), accepted) => (offered, accepted.unwrap_or(offered).min(offered)),
        (None, Some(accepted)) => (accepted, accepted),
    };
    let errors = valid(errors).unwrap_or(0.0);
    let (ok, late) = match (valid(ok), valid(late)) {
        (None, None) => return None,
        (Some(ok), late) => (
            ok,
            late.unwrap_or_else(|| (accepted - ok - errors).max(0.0)),
        ),
        (None, Some(late)) => ((accepted - late - errors).max(0.0), late),
    };
    Some(Rates {
        offered,
        accepted,
        ok,
        late,
        errors,
    })
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1.0;
        }
    }

    fn get(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}
