//! Rules of strategy `adaptive`.

use std::collections::BTreeMap;

use trimtab_crds::Duration;
use trimtab_crds::limiter::{Adaptive, Descriptor, MetricQuery};
use trimtab_kit::problem::Problem;
use trimtab_law::Config;

use super::{Checked, Scope};
use crate::decide::adaptive::measure::OWN;

/// Reason of mistakes in options of the strategy.
const INVALID: &str = "InvalidAdaptive";
/// Shortest SLO and interval.
const SHORTEST: Duration = Duration::from_millis(1);

/// What an adaptive rule says.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveRule {
    /// What the law is told; its times are completed by the operator's settings.
    pub law: Config,
    /// Time between two decisions, where the limiter says.
    pub interval: Option<Duration>,
    /// Priority of what the rule matches; none: it is for all requests.
    pub tier: Option<i64>,
    /// Own queries.
    pub metrics: BTreeMap<String, MetricQuery>,
}

pub(super) fn is_adaptive(d: &Descriptor) -> bool {
    d.action.strategy.as_deref() == Some("adaptive")
}

/// Checks a descriptor with the strategy.
pub(super) fn check(scope: Scope<'_>, d: &Descriptor, path: &str) -> Result<AdaptiveRule, Problem> {
    let wrong = |field: &str, message: String| Problem::of_field(field, INVALID, message);
    if !matches!(d.condition.trim(), "" | "true") {
        let message = "strategy adaptive finds out itself when to limit: remove the condition, or write \"true\"";
        return Err(wrong(&format!("{path}.condition"), message.to_owned()));
    }
    let unused = [
        ("quota", !d.action.quota.is_empty()),
        ("fill_interval", d.action.fill_interval.is_some()),
    ];
    if let Some((name, _)) = unused.iter().find(|(_, is_set)| *is_set) {
        let message = format!("strategy adaptive finds the limit itself: remove {name}");
        return Err(wrong(&format!("{path}.action.{name}"), message));
    }
    let target = d.target.as_ref().or(scope.spec.target.as_ref());
    if scope.spec.gateway || target.is_some_and(trimtab_crds::limiter::Target::is_outbound) {
        return Err(Problem::of_field(
            format!("{path}.action.strategy"),
            "NotSupported",
            "strategy adaptive is for the pods of a Service, inbound: at gateways and for outbound targets use single or average",
        ));
    }
    let default = Adaptive::default();
    let own = d.action.adaptive.as_ref().unwrap_or(&default);
    let field = |name: &str| format!("{path}.action.adaptive.{name}");
    let span = |name: &str, text: &Option<String>| -> Result<Option<Duration>, Problem> {
        let Some(text) = text else { return Ok(None) };
        match text.parse::<Duration>() {
            Ok(span) if span >= SHORTEST => Ok(Some(span)),
            Ok(_) => Err(wrong(
                &field(name),
                format!("{text} is too short: write for example 500ms"),
            )),
            Err(error) => Err(wrong(&field(name), error.to_string())),
        }
    };
    let (slo, interval) = (span("slo", &own.slo)?, span("interval", &own.interval)?);
    bounds(own, &field)?;
    metrics(own, &field)?;
    tier(d, own, path)?;
    let defaults = Config::default();
    let law = Config {
        slo_s: slo.map_or(defaults.slo_s, |slo| slo.as_secs_f64()),
        floor: own.floor.map_or(defaults.floor, number),
        max_shed: own
            .max_shed
            .map_or(defaults.max_shed, |percent| number(percent) / 100.0),
        fallback: own.fallback.map(number),
        ..defaults
    };
    Ok(AdaptiveRule {
        law,
        interval,
        tier: own.tier,
        metrics: own.metrics.clone(),
    })
}

#[allow(clippy::cast_precision_loss)] // the check bounds them
fn number(value: i64) -> f64 {
    value as f64
}

fn bounds(own: &Adaptive, field: &impl Fn(&str) -> String) -> Result<(), Problem> {
    for (name, value, most) in [
        ("floor", own.floor, 1_000_000_000),
        ("maxShed", own.max_shed, 100),
        ("fallback", own.fallback, 1_000_000_000),
        ("tier", own.tier, 1000),
    ] {
        if value.is_some_and(|value| !(0..=most).contains(&value)) {
            let message = format!(
                "{} is out of range: write 0 to {most}",
                value.unwrap_or_default()
            );
            return Err(Problem::of_field(field(name), INVALID, message));
        }
    }
    Ok(())
}

fn metrics(own: &Adaptive, field: &impl Fn(&str) -> String) -> Result<(), Problem> {
    let unknown = own
        .metrics
        .keys()
        .find(|name| !OWN.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| {
        Err(Problem::of_field(
            field(&format!("metrics.{name}")),
            "UnknownMetric",
            format!(
                "\"{name}\" is nothing that strategy adaptive measures: use {}",
                OWN.join(", ")
            ),
        ))
    })
}

/// What is for some requests only has a tier, and a tier has little else.
fn tier(d: &Descriptor, own: &Adaptive, path: &str) -> Result<(), Problem> {
    let some = !d.matches.is_empty() || d.custom_key.is_some();
    let refuse = |field: &str, message: &str| {
        Err(Problem::of_field(
            format!("{path}.{field}"),
            INVALID,
            message,
        ))
    };
    if own.tier.is_none() {
        return if some {
            refuse(
                "action.adaptive.tier",
                "strategy adaptive limits all requests of its pods: add a tier to say that the matching ones are refused before or after others, or remove match",
            )
        } else {
            Ok(())
        };
    }
    if !some {
        return refuse(
            "match",
            "a tier is for some requests: add match, or remove tier",
        );
    }
    if d.matches
        .iter()
        .any(|m| m.present_match_separate == Some(true))
    {
        return refuse(
            "match",
            "a tier has one limit: remove present_match_separate",
        );
    }
    if !own.metrics.contains_key("offered") {
        return refuse(
            "action.adaptive.metrics.offered",
            "Istio's series do not tell paths and headers apart: add a query for the requests per second that are sent in this tier",
        );
    }
    let set = options(own);
    if set.is_empty() {
        return Ok(());
    }
    refuse(
        "action.adaptive",
        &format!(
            "a tier has no {} of its own: write it in the descriptor without a tier (of metrics a tier has only offered)",
            set.join(", ")
        ),
    )
}

/// Options that a tier cannot have, as far as they are set.
fn options(own: &Adaptive) -> Vec<&'static str> {
    let other = own.metrics.keys().any(|name| name != "offered");
    let options = [
        ("slo", own.slo.is_some()),
        ("floor", own.floor.is_some()),
        ("maxShed", own.max_shed.is_some()),
        ("fallback", own.fallback.is_some()),
        ("interval", own.interval.is_some()),
        ("metrics", other),
    ];
    let set = options.iter().filter(|(_, set)| *set);
    set.map(|(name, _)| *name).collect()
}

/// In each set one adaptive rule is for all requests, and tiers are beside it.
pub(super) fn check_sets(rules: &mut [Checked]) {
    let mut main: Vec<String> = Vec::new();
    for checked in rules.iter_mut() {
        let Ok(rule) = &checked.rule else { continue };
        if rule.adaptive.as_ref().is_none_or(|a| a.tier.is_some()) {
            continue;
        }
        if main.contains(&rule.set) {
            checked.rule = Err(Problem::of_field(
                format!("{}.action.strategy", rule.path),
                INVALID,
                "an earlier descriptor of the set has strategy adaptive for all requests: keep one of the two, or add match and tier",
            ));
        } else {
            main.push(rule.set.clone());
        }
    }
    for checked in rules.iter_mut() {
        let Ok(rule) = &checked.rule else { continue };
        if rule.adaptive.as_ref().is_some_and(|a| a.tier.is_some()) && !main.contains(&rule.set) {
            checked.rule = Err(Problem::of_field(
                format!("{}.action.adaptive.tier", rule.path),
                INVALID,
                "tiers share the limit of all requests: add a descriptor with strategy: adaptive and without match to the set",
            ));
        }
    }
}
