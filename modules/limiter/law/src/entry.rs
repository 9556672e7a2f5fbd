//! Limits at the entry of several services: what each API may send so that no service on its path gets more than it can do.

use std::collections::{BTreeMap, BTreeSet};

use crate::context::Context;
use crate::group::Phase;
use crate::service::{Service, View};
use crate::signal::valid;
use crate::tuning as t;
use crate::{Config, Outputs, Pod, Tick};

/// Outputs, one word for what is done, and the reason.
pub(crate) type Decided = (Outputs, &'static str, String);

/// Names of the services that have pods.
pub(crate) fn services(tick: &Tick) -> BTreeSet<String> {
    tick.pods
        .values()
        .filter_map(|pod| pod.service.clone())
        .collect()
}

/// Decides a limit for each API.
pub(crate) fn decide(
    states: &mut BTreeMap<String, Service>,
    config: &Config,
    tick: &Tick,
    context: &Context,
    names: &BTreeSet<String>,
) -> Option<Decided> {
    let busiest = tick
        .pods
        .values()
        .filter_map(|pod| valid(pod.cpu))
        .fold(0.0_f64, f64::max);
    let mut limits: BTreeMap<&str, f64> = BTreeMap::new();
    let mut shown = Vec::new();
    for name in names {
        let state = states.entry(name.clone()).or_default();
        if !tick_service(state, tick, name, busiest, context) {
            continue;
        }
        if let Some(limit) = state.main.limit {
            limits.insert(name, limit * state.ready);
            if state.main.phase != Phase::Calm {
                shown.push(format!("{name} {:.0}/s", limit * state.ready));
            }
        }
    }
    if states.values().all(|state| state.ready < 1.0)
        || tick.apis.values().all(|api| valid(api.offered).is_none())
    {
        return None;
    }
    let shares = fill(config, tick, &limits);
    let mut outputs = Outputs::default();
    for (name, share) in shares {
        outputs.per_api.insert(name.to_owned(), share);
    }
    outputs.bucket_s = (!outputs.per_api.is_empty()).then_some(t::BUCKET);
    let (word, reason) = if shown.is_empty() {
        ("Open", "no service is overloaded".to_owned())
    } else {
        (
            "Limiting",
            format!(
                "APIs share what their services can do: {}",
                shown.join(", ")
            ),
        )
    };
    Some((outputs, word, reason))
}

/// One tick of one of the services. `busiest` is the highest CPU use of any pod. Answers whether there is something to go by.
fn tick_service(
    state: &mut Service,
    tick: &Tick,
    name: &str,
    busiest: f64,
    context: &Context,
) -> bool {
    let own = tick
        .pods
        .iter()
        .filter(|(_, pod)| pod.service.as_deref() == Some(name));
    let pods: BTreeMap<&str, &Pod> = own
        .map(|(pod_name, pod)| (pod_name.as_str(), pod))
        .collect();
    let offered = through(tick, name, |_, offered| offered);
    let limits = tick.in_force.as_ref().map(|outputs| &outputs.per_api);
    let admitted = through(tick, name, |api, offered| {
        let limit = limits.and_then(|limits| valid(limits.get(api).copied()));
        limit.map_or(offered, |limit| limit.min(offered))
    });
    // A service is told what its callers may send as if that were a limit of its own.
    let in_force = (admitted < offered).then(|| Outputs {
        limit: Some(admitted),
        ..Outputs::default()
    });
    let view = View {
        pods,
        instead: None,
        offered: (offered > 0.0).then_some(offered),
        mean_s: None,
        in_force: in_force.as_ref(),
    };
    // Answers are late all along a path when one service of it is: only the busy one is to blame.
    let context = Context {
        excused: busiest > t::BUSY,
        p95: None,
        pending: false,
        foreign: false,
        ..*context
    };
    state.tick(&view, &context).is_some()
}

/// The sum of `of(api, offered)` over the APIs that reach `service`, each as often as its path names the service.
fn through(tick: &Tick, service: &str, of: impl Fn(&str, f64) -> f64) -> f64 {
    let mut sum = 0.0;
    for (name, api) in &tick.apis {
        let calls = api.path.iter().filter(|step| *step == service).count() as f64;
        if let (true, Some(offered)) = (calls > 0.0, valid(api.offered)) {
            sum += calls * of(name, offered);
        }
    }
    sum
}

/// Raises all APIs by equal shares of what they offer until a service on their path is full; those that reach no full service
/// go on. Higher tiers are filled first.
fn fill<'a>(
    config: &Config,
    tick: &'a Tick,
    limits: &BTreeMap<&str, f64>,
) -> BTreeMap<&'a str, f64> {
    let mut left: BTreeMap<&str, f64> =
        limits.iter().map(|(name, limit)| (*name, *limit)).collect();
    let mut shares = BTreeMap::new();
    let mut tiers: BTreeMap<usize, Vec<&'a str>> = BTreeMap::new();
    for (name, api) in &tick.apis {
        if valid(api.offered).is_some_and(|offered| offered > 0.0) {
            tiers
                .entry(crate::tiers::rank(config, api.tier.as_ref()))
                .or_default()
                .push(name);
        }
    }
    for apis in tiers.into_values().rev() {
        let mut open = apis;
        let mut level = 0.0;
        while !open.is_empty() {
            // The service that is full first, when all open APIs rise together.
            let Some((full, room)) = left
                .iter()
                .filter_map(|(service, left)| {
                    let load: f64 = open.iter().map(|api| load(tick, api, service)).sum();
                    (load > 0.0).then(|| (*service, left / load))
                })
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .filter(|(_, room)| level + room < 1.0)
            else {
                take(&mut left, tick, &open, 1.0 - level);
                break;
            };
            take(&mut left, tick, &open, room);
            level += room;
            let (stopped, rest): (Vec<&str>, Vec<&str>) = open
                .into_iter()
                .partition(|api| load(tick, api, full) > 0.0);
            for api in stopped {
                shares.insert(api, (level * offered(tick, api)).max(config.floor));
            }
            open = rest;
        }
    }
    shares
}

fn take(left: &mut BTreeMap<&str, f64>, tick: &Tick, apis: &[&str], part: f64) {
    for (service, left) in left.iter_mut() {
        let load: f64 = apis.iter().map(|api| load(tick, api, service)).sum();
        *left = (*left - part * load).max(0.0);
    }
}

fn load(tick: &Tick, api: &str, service: &str) -> f64 {
    let calls = tick.apis.get(api).map_or(0, |api| {
        api.path.iter().filter(|step| *step == service).count()
    });
    calls as f64 * offered(tick, api)
}

fn offered(tick: &Tick, api: &str) -> f64 {
    tick.apis
        .get(api)
        .and_then(|api| valid(api.offered))
        .unwrap_or(0.0)
}
