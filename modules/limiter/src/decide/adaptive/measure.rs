//! From series to the measurements of one tick. What is missing, stale or no number is `None`: the law does not take it for 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_kit::sources::{PodFacts, Row};
use trimtab_law::{Api, Pod, Tick};

/// Begin of the names of what is measured for strategy `adaptive`.
pub const PREFIX: &str = "adaptive.";
/// Requests by status and flags.
pub const REQUESTS: &str = "adaptive.requests";
/// Answers by bucket of their time.
pub const WITHIN: &str = "adaptive.within";
/// Milliseconds that answers took.
pub const TIME: &str = "adaptive.time";
/// CPU cores in use.
pub const CORES: &str = "adaptive.cores";
/// What own queries may give.
pub const OWN: [&str; 11] = [
    "offered", "accepted", "ok", "late", "errors", "mean", "p50", "p95", "p99", "inflight", "cpu",
];
/// Those of [`OWN`] that are rates.
const RATES: [&str; 5] = ["offered", "accepted", "ok", "late", "errors"];

/// Series by name.
pub type Measured = BTreeMap<String, Arc<[Row]>>;

/// What is measured of one set of pods.
#[derive(Debug)]
pub struct Source<'a> {
    /// The series.
    pub measured: &'a Measured,
    /// All pods of the set.
    pub pods: &'a [PodFacts],
    /// Status codes of our refusals, where flags do not say whose they are.
    pub statuses: &'a BTreeSet<i32>,
    /// Whether flags say it: the pods' own proxies report.
    pub flags_tell: bool,
    /// Bucket up to which an answer is in time, in milliseconds.
    pub bound: f64,
    /// Tiers by the index of their descriptor.
    pub tiers: &'a BTreeMap<String, i64>,
}

/// Requests per second of one pod, or of the service.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    offered: Option<f64>,
    accepted: Option<f64>,
    ok: Option<f64>,
    late: Option<f64>,
    errors: Option<f64>,
    /// Answers whose time was measured.
    timed: Option<f64>,
}

/// A tick, and what people want to see of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For the law.
    pub tick: Tick,
    /// Requests per second.
    pub offered: Option<f64>,
    /// Refused requests per second.
    pub shed: Option<f64>,
    /// What is missing.
    pub notes: Vec<String>,
}

/// The names of own queries of a tier.
pub fn tier_name(index: usize) -> String {
    format!("{PREFIX}tier{index}.offered")
}

/// Makes a tick of time `now` from what is measured.
pub fn tick(source: &Source<'_>, now: f64) -> Seen {
    let mut seen = Seen::default();
    seen.tick.t = now;
    seen.tick.as_of = Some(now);
    let mut total = Rates::default();
    for facts in source.pods {
        let rates = rates(source, &facts.name);
        total.add(&rates);
        seen.tick
            .pods
            .insert(facts.name.to_string(), pod(source, facts, &rates));
    }
    let whole = rates(source, "");
    if whole.offered.is_some() || whole.accepted.is_some() {
        total = whole;
    }
    let own = |name: &str| value(source, &format!("{PREFIX}{name}"), "");
    let timed = total.timed.filter(|timed| *timed > 1e-9);
    let time = sum(source, TIME, |_| true).zip(timed);
    let api = Api {
        offered: total.offered,
        accepted: total.accepted,
        ok: total.ok,
        late: total.late,
        errors: total.errors,
        mean_s: own("mean").or(time.map(|(time, timed)| time / timed / 1000.0)),
        p50_s: own("p50"),
        p95_s: own("p95"),
        p99_s: own("p99"),
        ..Api::default()
    };
    seen.offered = total.offered;
    seen.shed = total
        .offered
        .zip(total.accepted)
        .map(|(offered, accepted)| (offered - accepted).max(0.0));
    if total.offered.is_some() && total.ok.is_none() {
        let bound = le(source.bound);
        seen.notes.push(match timed {
            Some(_) => format!("istio_request_duration_milliseconds_bucket has no le={bound}: set limiter.adaptive.buckets to the buckets of the mesh"),
            None => "no answer was timed within the window: proxies bring their histograms up to date every 5s, so limiter.adaptive.window must be longer than that and a scrape together".to_owned(),
        });
    }
    seen.tick.apis = apis(source, &api);
    seen
}

/// The calls of each tier, and the others, which are in a tier above all.
fn apis(source: &Source<'_>, all: &Api) -> BTreeMap<String, Api> {
    let mut out = BTreeMap::new();
    let Some(offered) = all.offered.filter(|_| !source.tiers.is_empty()) else {
        return BTreeMap::from([(String::new(), all.clone())]);
    };
    let share = |part: f64| Api {
        offered: Some(part),
        accepted: scaled(all.accepted, part, offered),
        ok: scaled(all.ok, part, offered),
        late: scaled(all.late, part, offered),
        errors: scaled(all.errors, part, offered),
        ..all.clone()
    };
    let mut left = offered;
    for (index, tier) in source.tiers {
        let name = format!("{PREFIX}tier{index}.offered");
        let part = value(source, &name, "").map(|own| own.min(left));
        left -= part.unwrap_or(0.0);
        let mut api = part.map_or_else(Api::default, share);
        api.tier = Some((*tier).into());
        out.insert(index.clone(), api);
    }
    let mut rest = share(left.max(0.0));
    rest.tier = Some(top(source.tiers).into());
    out.insert(String::new(), rest);
    out
}

/// A tier above all of `tiers`.
pub fn top(tiers: &BTreeMap<String, i64>) -> i64 {
    tiers.values().max().map_or(0, |highest| highest + 1)
}

fn scaled(value: Option<f64>, part: f64, whole: f64) -> Option<f64> {
    value.map(|value| {
        if whole > 0.0 {
            value * part / whole
        } else {
            0.0
        }
    })
}

fn pod(source: &Source<'_>, facts: &PodFacts, rates: &Rates) -> Pod {
    let pods = source.pods.iter().filter(|p| p.ready).count().max(1) as f64;
    let own = |name: &str| value(source, &format!("{PREFIX}{name}"), &facts.name);
    let of_all = |name: &str| value(source, &format!("{PREFIX}{name}"), "");
    let limit = facts.cpu_limit.filter(|limit| *limit > 0.0);
    let cpu = value(source, CORES, &facts.name).zip(limit);
    Pod {
        service: None,
        ready: Some(facts.ready),
        offered: rates.offered,
        accepted: rates.accepted,
        ok: rates.ok,
        late: rates.late,
        errors: rates.errors,
        inflight: own("inflight").or(of_all("inflight").map(|all| all / pods)),
        cpu: own("cpu")
            .or(of_all("cpu"))
            .or(cpu.map(|(cores, limit)| cores / limit)),
    }
}

/// Rates of a pod; of the service where the name is empty. Own queries win.
fn rates(source: &Source<'_>, pod: &str) -> Rates {
    // What is measured of the service as a whole cannot be told by pod.
    let whole = |name: &&str| value(source, &format!("{PREFIX}{name}"), "").is_some();
    if !pod.is_empty() && RATES.iter().any(whole) {
        return Rates::default();
    }
    let mut out = of_istio(source, pod);
    let own = |name: &str| value(source, &format!("{PREFIX}{name}"), pod);
    out.offered = own("offered").or(out.offered);
    out.accepted = own("accepted").or(out.accepted);
    out.ok = own("ok").or(out.ok);
    out.late = own("late").or(out.late);
    out.errors = own("errors").or(out.errors);
    out
}

fn of_istio(source: &Source<'_>, pod: &str) -> Rates {
    let requests = rows(source, REQUESTS).filter(|row| &*row.pod == pod || pod.is_empty());
    let (mut offered, mut refused, mut errors, mut gone) = (0.0, 0.0, 0.0, 0.0);
    let mut any = false;
    for row in requests {
        any = true;
        offered += row.value;
        let code = row.labels.get("response_code").map_or("", String::as_str);
        let flags = row.labels.get("response_flags").map_or("", String::as_str);
        let flag = |name| flags.split(',').any(|f| f == name);
        let own = code
            .parse()
            .is_ok_and(|code| source.statuses.contains(&code));
        if flag("RL") || (!source.flags_tell && own) {
            refused += row.value;
        } else if flag("DC") || flag("UT") {
            gone += row.value;
        } else if code.starts_with('5') {
            errors += row.value;
        }
    }
    if !any {
        return Rates::default();
    }
    let accepted = (offered - refused).max(0.0);
    let served = (accepted - errors - gone).max(0.0);
    let bound = le(source.bound);
    let up_to = |bound: &str| {
        let of_pod = rows(source, WITHIN).filter(|row| &*row.pod == pod || pod.is_empty());
        let values = of_pod.filter_map(|row| {
            let le = row.labels.get("le").map_or("", String::as_str);
            let same = le == bound || le.strip_suffix(".0") == Some(bound);
            same.then_some(row.value)
        });
        values.reduce(|a, b| a + b)
    };
    // Proxies bring histograms up to date every few seconds and counters at once, so that only shares of a histogram can be
    // compared.
    let (in_time, timed) = (up_to(&bound), up_to("+Inf"));
    let share = in_time.zip(timed.filter(|timed| *timed > 1e-9));
    let ok = share
        .map(|(in_time, timed)| served * (in_time / timed).clamp(0.0, 1.0))
        .or((served < 1e-9).then_some(0.0));
    Rates {
        offered: Some(offered),
        accepted: Some(accepted),
        ok,
        late: ok.map(|ok| served - ok + gone),
        errors: Some(errors),
        timed,
    }
}

impl Rates {
    fn add(&mut self, other: &Self) {
        let add = |sum: &mut Option<f64>, value: Option<f64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + value);
            }
        };
        add(&mut self.offered, other.offered);
        add(&mut self.accepted, other.accepted);
        add(&mut self.ok, other.ok);
        add(&mut self.late, other.late);
        add(&mut self.errors, other.errors);
        add(&mut self.timed, other.timed);
    }
}

fn rows<'a>(source: &Source<'a>, name: &str) -> impl Iterator<Item = &'a Row> + use<'a> {
    source.measured.get(name).into_iter().flat_map(|r| r.iter())
}

fn sum(source: &Source<'_>, name: &str, keep: impl Fn(&Row) -> bool) -> Option<f64> {
    let rows = rows(source, name).filter(|row| keep(row));
    rows.map(|row| row.value).reduce(|a, b| a + b)
}

/// The value of a pod, or of the service.
fn value(source: &Source<'_>, name: &str, pod: &str) -> Option<f64> {
    sum(source, name, |row| &*row.pod == pod)
}

/// The smallest bucket at or above `slo_millis`; none: the largest one.
pub fn bound(buckets: &[f64], slo_millis: f64) -> Option<f64> {
    let sorted = || buckets.iter().copied();
    let above = sorted().filter(|b| *b >= slo_millis - 1e-9);
    let above = above.min_by(f64::total_cmp);
    above.or_else(|| sorted().max_by(f64::total_cmp))
}

/// A bound as it stands in `le`.
pub fn le(bound: f64) -> String {
    bound.to_string()
}

#[cfg(test)]
mod tests;
