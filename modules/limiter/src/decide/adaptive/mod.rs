//! Strategy `adaptive`: from what is measured to a tick of the law, and from the law's limits to buckets. Pure; the law's memory is
//! kept by the engine.

pub mod decided;
pub mod measure;
pub mod queries;

use trimtab_crds::limiter::{AdaptiveStatus, DescriptorState, DescriptorStatus, FillInterval};
use trimtab_kit::problem::Problem;
use trimtab_law::Outputs;

use self::decided::Decided;
use super::{blank, refused, subset_missing};
use crate::input::{LimiterInput, Proxies};
use crate::validate::{AdaptiveRule, Rule};

/// Envoy's shortest refill, and the step of those that are used: in older Envoys those of one filter must have a common divisor of
/// 50 ms or more.
const STEP: i64 = 50;
/// Rounding to whole tokens may change a rate by this much where a longer refill does not help.
const ROUNDING: f64 = 0.02;
/// The longest refill, as a multiple of the one that was asked for.
const LONGEST: i64 = 10;

/// The decision of an adaptive rule.
pub(super) fn decide(
    input: &LimiterInput,
    rule: &Rule,
    adaptive: &AdaptiveRule,
) -> DescriptorStatus {
    let refuse = |problem: &Problem| refused(input, &rule.set, rule.index, problem);
    if !input.target.sets.contains_key(&rule.set) {
        return refuse(&subset_missing(input, rule));
    }
    if let Some(problem) = conflict(input, rule).or_else(|| unmeasurable(input, rule)) {
        return refuse(&problem);
    }
    let mut out = blank(&rule.set, rule.index);
    let Some(decided) = input.adaptive.get(&rule.set) else {
        "nothing measured yet: no limit".clone_into(&mut out.reason);
        return out;
    };
    let status = &decided.status;
    let limit = match adaptive.tier {
        None => status.limit,
        Some(_) => decided.tiers.get(&rule.index.to_string()).copied(),
    };
    out.state = state(decided, limit);
    out.reason = if decided.unmeasured {
        unmeasured(input, &rule.set)
    } else {
        decided.reason.clone()
    };
    if let Some(limit) = limit {
        let (quota, interval) = bucket(limit, status);
        (out.quota, out.interval) = (Some(quota), Some(interval));
    }
    out.adaptive = Some(match adaptive.tier {
        None => status.clone(),
        Some(_) => AdaptiveStatus {
            state: status.state.clone(),
            limit,
            ..AdaptiveStatus::default()
        },
    });
    out
}

/// Why there is no decision yet, and what gives one.
fn unmeasured(input: &LimiterInput, set: &str) -> String {
    if input.settings.proxies == Proxies::Offline {
        return "no measurements, no limit: write for example --metric adaptive.offered=800 --metric adaptive.ok=0 --metric adaptive.late=400".to_owned();
    }
    let prefix = format!("{set}.{}", measure::PREFIX);
    let mut of_set = input.metrics.iter().filter(|(k, _)| k.starts_with(&prefix));
    let why = of_set.find_map(|(k, r)| Some(format!("{k}: {}", r.failure.as_ref()?)));
    why.map_or_else(
        || "nothing measured yet: no limit".to_owned(),
        |why| format!("nothing measured yet, no limit: {why}"),
    )
}

fn state(decided: &Decided, limit: Option<f64>) -> DescriptorState {
    match (decided.status.state.as_str(), limit) {
        _ if decided.unmeasured => DescriptorState::Unknown,
        ("Fallback", _) => DescriptorState::Fallback,
        ("Hold", _) => DescriptorState::Held,
        (_, None) => DescriptorState::Idle,
        (_, Some(_)) => DescriptorState::Limiting,
    }
}

/// Two laws that see one overload would both refuse for it: the first limiter by name decides.
fn conflict(input: &LimiterInput, rule: &Rule) -> Option<Problem> {
    let other = input.target.adaptive_elsewhere.as_ref()?;
    Some(Problem::of_field(
        format!("{}.action.strategy", rule.path),
        "Conflict",
        format!(
            "SmartLimiter {other} limits the same pods and ports by strategy adaptive, and comes first by name: keep one of the two"
        ),
    ))
}

/// Without a source of metrics there is nothing to decide by.
fn unmeasurable(input: &LimiterInput, rule: &Rule) -> Option<Problem> {
    let known = |name: &String| name.starts_with(measure::PREFIX);
    let measurable = input.settings.prometheus || input.settings.known_metrics.iter().any(known);
    (!measurable).then(|| {
        Problem::of_field(
            format!("{}.action.strategy", rule.path),
            "NotConfigured",
            "strategy adaptive needs metrics of Istio: set metrics.prometheus.address in the operator's configuration",
        )
    })
}

/// The bucket of each pod for a limit over all of them: whole tokens, and a refill that is near to what was asked for.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // bounded by the clamps
fn bucket(limit: f64, status: &AdaptiveStatus) -> (i64, FillInterval) {
    let rate = limit / status.pods.unwrap_or(1).max(1) as f64 / 1000.0;
    if rate <= 0.0 {
        return (0, span(1000));
    }
    let wanted = status.bucket_millis.unwrap_or(100).clamp(STEP, 60_000);
    let shortest = (wanted + STEP - 1) / STEP * STEP;
    let one = ((1.0 / rate / STEP as f64).round().min(1e9) as i64).max(1) * STEP;
    let longest = LONGEST * shortest.max(one);
    let mut best = (1, one, (one as f64 * rate - 1.0).abs());
    let mut every = shortest;
    while every <= longest {
        let tokens = (rate * every as f64).round().min(f64::from(u32::MAX));
        let error = (tokens / (rate * every as f64) - 1.0).abs();
        if tokens >= 1.0 && (error < best.2 || best.1 < shortest) {
            best = (tokens as i64, every, error);
        }
        if tokens >= 1.0 && error <= ROUNDING {
            return (tokens as i64, span(every));
        }
        every += STEP;
    }
    (best.0, span(best.1))
}

fn span(millis: i64) -> FillInterval {
    FillInterval {
        seconds: millis / 1000,
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// The limits of a set that proxies really have, with `pods` Ready pods.
#[allow(clippy::cast_precision_loss)]
pub fn in_force(input: &LimiterInput, set: &str, decisions: &[DescriptorStatus]) -> Outputs {
    let mut out = Outputs::default();
    if input.spec.mode == trimtab_crds::limiter::Mode::Shadow {
        return out;
    }
    let pods = input.target.sets.get(set).map_or(1, |s| s.pods.max(1)) as f64;
    for d in decisions
        .iter()
        .filter(|d| d.set == set && d.adaptive.is_some())
    {
        let (Some(quota), Some(interval)) = (d.quota, d.interval) else {
            continue;
        };
        let seconds = interval.millis().max(1) as f64 / 1000.0;
        let rate = quota as f64 / seconds * pods;
        if d.adaptive.as_ref().is_some_and(|a| a.pods.is_some()) {
            (out.limit, out.bucket_s) = (Some(rate), Some(seconds));
        } else {
            out.per_api.insert(d.index.to_string(), rate);
        }
    }
    out
}

#[cfg(test)]
mod tests;
