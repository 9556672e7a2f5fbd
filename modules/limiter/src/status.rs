//! Status from decisions: conditions, summary columns, Slime's two maps. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trimtab_crds::limiter::{
    DescriptorState, DescriptorStatus, LimiterStatus, RatelimitSet, StatusAction, StatusDescriptor,
};
use trimtab_kit::answers::{Outcome, Words};
use trimtab_kit::condition::{Draft, shorten, stamp};
use trimtab_kit::problem::Problem;

use crate::decide::shown_metrics;
use crate::input::{LimiterInput, ReadingState};
use crate::validate::Validated;

/// What is known besides input and decisions.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// Problems that the newest version cannot be read with.
    pub undecodable: Option<&'a str>,
    /// A failed write of an output: reason and message.
    pub apply_error: Option<(&'static str, String)>,
    /// What proxies say to values that go over xDS.
    pub taken: Outcome,
    /// What proxies say against it, so that it is left out of their routes.
    pub blame: Option<Words>,
    /// Problem of the delivery.
    pub delivery: Option<Problem>,
}

/// Builds the status. Transition times are kept from `before` where a condition's status did not change.
pub fn status(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
    report: &Report<'_>,
    before: &[Condition],
    now: Timestamp,
) -> LimiterStatus {
    let mut conditions = vec![
        accepted(input, validated, decisions, report),
        applied(input, report),
        metrics_available(input),
        resolved(input),
    ];
    conditions.push(ready(&conditions));
    let lead = leading(decisions);
    LimiterStatus {
        observed_generation: Some(input.owner.generation),
        limit: Some(limit_text(input, decisions)),
        strategy: Some(strategies(validated)),
        state: Some(lead.map_or("Refused", |d| state_name(d.state)).to_owned()),
        reason: lead_reason(decisions).or_else(|| Some(first_problem(validated))),
        conditions: stamp(conditions, input.owner.generation, before, now),
        descriptors: decisions.to_vec(),
        ratelimit_status: slime_map(input, decisions),
        metric_status: shown_metrics(input),
    }
}

/// Whether two statuses say the same apart from values that move all the time.
pub fn same_decisions(a: &LimiterStatus, b: &LimiterStatus) -> bool {
    let core = |s: &LimiterStatus| {
        let conditions: Vec<(String, String, String, Option<i64>)> = s
            .conditions
            .iter()
            .map(|c| {
                (
                    c.type_.clone(),
                    c.status.clone(),
                    c.reason.clone(),
                    c.observed_generation,
                )
            })
            .collect();
        let descriptors: Vec<(DescriptorState, Option<i64>, Option<i64>)> = s
            .descriptors
            .iter()
            .map(|d| (d.state, d.quota, d.total))
            .collect();
        (
            s.observed_generation,
            s.limit.clone(),
            s.state.clone(),
            conditions,
            descriptors,
        )
    };
    core(a) == core(b)
}

fn accepted(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
    report: &Report<'_>,
) -> Draft {
    if let Some(error) = report.undecodable {
        return Draft::new(
            "Accepted",
            false,
            "Undecodable",
            format!("the object cannot be read: {error}; the last readable version stays in force"),
        );
    }
    let problems: Vec<&Problem> = validated.problems().chain(report.delivery.iter()).collect();
    if let Some(first) = problems.first() {
        let more = if problems.len() > 1 {
            format!(" (and {} more)", problems.len() - 1)
        } else {
            String::new()
        };
        return Draft::new("Accepted", false, first.reason, format!("{first}{more}"));
    }
    // Found only with the mesh at hand: unknown metrics, missing subsets, expressions that do not evaluate. A target that
    // is missing is told by Resolved.
    let bad = decisions
        .iter()
        .find(|d| d.state == DescriptorState::Refused);
    if let Some(bad) = bad.filter(|_| input.target.problem.is_none()) {
        return Draft::new(
            "Accepted",
            false,
            bad.refusal.as_deref().unwrap_or("Refused"),
            bad.reason.clone(),
        );
    }
    Draft::new("Accepted", true, "Accepted", "all descriptors are valid")
}

fn resolved(input: &LimiterInput) -> Draft {
    if let Some(problem) = &input.target.problem {
        let host = input.spec.host.as_deref().unwrap_or_default();
        let problem = problem.problem(&input.owner, host);
        return Draft::new("Resolved", false, problem.reason, problem.to_string());
    }
    let base = input.target.sets.get(trimtab_crds::limiter::BASE_SET);
    let pods = base.map_or(0, |s| s.pods);
    Draft::new(
        "Resolved",
        true,
        "TargetFound",
        format!("{pods} Ready pods"),
    )
}

fn metrics_available(input: &LimiterInput) -> Draft {
    let missing: Vec<String> = input
        .metrics
        .iter()
        .filter(|(_, r)| r.state != ReadingState::Fresh || r.value.is_none())
        .map(|(name, r)| {
            format!(
                "{name}: {}",
                r.failure.as_deref().unwrap_or("nothing measured yet")
            )
        })
        .collect();
    if missing.is_empty() {
        Draft::new(
            "MetricsAvailable",
            true,
            "Fresh",
            "every metric in use has a fresh value",
        )
    } else {
        let expired = input
            .metrics
            .values()
            .any(|r| r.state == ReadingState::Expired);
        let reason = if expired { "Expired" } else { "Held" };
        Draft::new("MetricsAvailable", false, reason, missing.join("; "))
    }
}

fn applied(input: &LimiterInput, report: &Report<'_>) -> Draft {
    if let Some((reason, message)) = &report.apply_error {
        return Draft::new(
            "Applied",
            false,
            reason,
            format!("{message}; the last good state stays and the write is tried again"),
        );
    }
    if let Some(Words { node, message }) = &report.blame {
        let message = format!(
            "proxies refuse routes with this limit, and are served without it: correct it; {node} says: {message}"
        );
        return Draft::new("Applied", false, "Rejected", message);
    }
    if let Some(message) = report.taken.problem() {
        return Draft::new("Applied", false, "Rejected", message);
    }
    let how = match input.delivery() {
        trimtab_crds::limiter::Delivery::EnvoyFilter => "by EnvoyFilter",
        trimtab_crds::limiter::Delivery::Ecds => "by ECDS",
    };
    let mut message = format!("outputs are as decided, {how}");
    let Outcome {
        proxies, holding, ..
    } = report.taken;
    if proxies > 0 {
        // A string takes whatever is written to it.
        let _ = write!(message, "; {holding} of {proxies} proxies have them");
    }
    Draft::new("Applied", true, "Applied", message)
}

fn ready(conditions: &[Draft]) -> Draft {
    match conditions.iter().find(|c| !c.status) {
        None => Draft::new("Ready", true, "Ready", "the limiter works"),
        Some(bad) => Draft::new(
            "Ready",
            false,
            &bad.reason,
            format!("{}: {}", bad.kind, bad.message),
        ),
    }
}

/// The descriptor that the summary speaks of: the one in the state that an operator must know of first.
/// Reason of the decision that is shown first.
pub fn lead_reason(decisions: &[DescriptorStatus]) -> Option<String> {
    leading(decisions).map(|d| shorten(&d.reason, 256))
}

fn leading(decisions: &[DescriptorStatus]) -> Option<&DescriptorStatus> {
    let rank = |s: DescriptorState| match s {
        DescriptorState::Fallback => 0,
        DescriptorState::Held => 1,
        DescriptorState::Limiting => 2,
        DescriptorState::Unknown => 3,
        DescriptorState::Idle => 4,
        DescriptorState::Refused => 5,
    };
    decisions.iter().min_by_key(|d| rank(d.state))
}

/// Name of a state, as shown.
pub fn state_name(state: DescriptorState) -> &'static str {
    match state {
        DescriptorState::Limiting => "Limiting",
        DescriptorState::Idle => "Idle",
        DescriptorState::Held => "Held",
        DescriptorState::Fallback => "Fallback",
        DescriptorState::Unknown => "Unknown",
        DescriptorState::Refused => "Refused",
    }
}

fn first_problem(validated: &Validated) -> String {
    validated
        .problems()
        .next()
        .map_or_else(String::new, |p| shorten(&p.to_string(), 256))
}

fn limit_text(input: &LimiterInput, decisions: &[DescriptorStatus]) -> String {
    let live: Vec<&DescriptorStatus> = decisions.iter().filter(|d| d.quota.is_some()).collect();
    let Some(first) = live.first() else {
        return "none".to_owned();
    };
    let interval = usize::try_from(first.index)
        .ok()
        .and_then(|i| input.spec.sets.get(&first.set).and_then(|s| s.get(i)))
        .and_then(|d| first.interval.or(d.action.fill_interval))
        .unwrap_or_default()
        .to_proto_json();
    let more = if live.len() > 1 {
        format!(" (+{})", live.len() - 1)
    } else {
        String::new()
    };
    let shadow = if input.spec.mode == trimtab_crds::limiter::Mode::Shadow {
        " shadow"
    } else {
        ""
    };
    format!(
        "{}/{interval} per pod{more}{shadow}",
        first.quota.unwrap_or_default()
    )
}

fn strategies(validated: &Validated) -> String {
    let mut names: Vec<&str> = validated
        .rules
        .iter()
        .filter_map(|c| c.rule.as_ref().ok())
        .map(|r| r.strategy.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

fn slime_map(
    input: &LimiterInput,
    decisions: &[DescriptorStatus],
) -> BTreeMap<String, RatelimitSet> {
    let mut out: BTreeMap<String, RatelimitSet> = BTreeMap::new();
    for decision in decisions {
        let Some(quota) = decision.quota else {
            continue;
        };
        let Some(descriptor) = usize::try_from(decision.index)
            .ok()
            .and_then(|i| input.spec.sets.get(&decision.set).and_then(|s| s.get(i)))
        else {
            continue;
        };
        out.entry(decision.set.clone())
            .or_default()
            .descriptor
            .push(StatusDescriptor {
                action: StatusAction {
                    quota: quota.to_string(),
                    fill_interval: decision.interval.or(descriptor.action.fill_interval),
                    strategy: descriptor.action.strategy.clone(),
                },
                matches: descriptor.matches.clone(),
                target: descriptor
                    .target
                    .clone()
                    .or_else(|| input.spec.target.clone()),
            });
    }
    out
}
