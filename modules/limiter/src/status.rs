//! Status from decisions: conditions, summary columns, Slime's two maps. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trimtab_crds::limiter::{
    DescriptorState, DescriptorStatus, LimiterStatus, RatelimitSet, StatusAction, StatusDescriptor,
};
use trimtab_kit::answers::{Outcome, Words};
use trimtab_kit::condition::{Draft, listed, shorten, stamp};
use trimtab_kit::problem::Problem;

use crate::decide::expression::pretty;
use crate::decide::plan::fills_others;
use crate::decide::{metric_key, shown_metrics};
use crate::input::{LimiterInput, ReadingState};
use crate::overridden::limits_too;
use crate::programmed::{programmed, shown};
use crate::validate::Validated;

/// Reason of a condition that holds, with something that was surely not meant.
pub(crate) const REMARKS: &str = "AcceptedWithRemarks";

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
    /// How proxies stand to all that it has a part in, also where another module serves it.
    pub programmed: Outcome,
    /// Values of it are in the xDS cache.
    pub served: bool,
    /// Outputs of before stay, since not all can be judged.
    pub retained: bool,
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
    let shown = shown(input, validated, decisions, report);
    let mut conditions = vec![
        accepted(input, validated, decisions, report),
        applied(input, validated, report),
        metrics_available(input, validated, decisions),
        resolved(input),
        programmed(input, validated, decisions, report),
    ];
    conditions.push(ready(&conditions));
    let lead = leading(&shown);
    LimiterStatus {
        observed_generation: Some(input.owner.generation),
        limit: Some(limit_text(input, &shown)),
        strategy: Some(strategies(validated)),
        state: Some(lead.map_or("Refused", |d| d.state.as_str()).to_owned()),
        reason: lead_reason(&shown).or_else(|| Some(first_problem(validated))),
        conditions: stamp(conditions, input.owner.generation, before, now),
        ratelimit_status: slime_map(input, &shown),
        descriptors: shown,
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
        let descriptors: Vec<_> = s
            .descriptors
            .iter()
            .map(|d| {
                (
                    d.state,
                    d.quota,
                    d.total,
                    d.adaptive.as_ref().map(|a| a.state.clone()),
                )
            })
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
    if input.target.problem.is_some() {
        return Draft::not_evaluated(
            "Accepted",
            "nothing is wrong with the object alone; its metrics and sets are looked at once the target is known: see Resolved",
        );
    }
    let others = [fills_others(input, validated), limits_too(input, validated)];
    let remarks: Vec<String> = (validated.remarks().chain(others.iter().flatten()))
        .map(ToString::to_string)
        .collect();
    if remarks.is_empty() {
        Draft::new("Accepted", true, "Accepted", "all descriptors are valid")
    } else {
        Draft::new("Accepted", true, REMARKS, listed(&remarks))
    }
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

fn metrics_available(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
) -> Draft {
    const KIND: &str = "MetricsAvailable";
    if input.target.problem.is_some() {
        return Draft::not_evaluated(KIND, "metrics are of the target: see Resolved");
    }
    if validated.good().next().is_none() {
        return Draft::not_evaluated(KIND, "no rule can be in force: see Accepted");
    }
    let state = |state| move |d: &DescriptorStatus| d.state == state;
    let missing = missing(input, validated, decisions);
    if missing.is_empty() {
        return Draft::new(KIND, true, "Fresh", "every metric in use has a fresh value");
    }
    let readings = || input.metrics.values();
    let held = readings().any(|r| r.state == ReadingState::Held)
        || decisions.iter().any(state(DescriptorState::Held));
    let reason = if readings().any(|r| r.state == ReadingState::Expired) {
        "Expired"
    } else if held {
        "Held"
    } else {
        "NoValue"
    };
    Draft::new(KIND, false, reason, missing.join("; "))
}

/// Metrics in use without a fresh value, with why.
fn missing(
    input: &LimiterInput,
    validated: &Validated,
    decisions: &[DescriptorStatus],
) -> Vec<String> {
    const NEVER: &str = "nothing measured yet";
    let stale = input.metrics.iter();
    let stale = stale.filter(|(_, r)| r.state != ReadingState::Fresh || r.value.is_none());
    let mut out: BTreeMap<String, String> = stale
        .map(|(name, r)| {
            (
                name.clone(),
                r.failure.as_deref().unwrap_or(NEVER).to_owned(),
            )
        })
        .collect();
    // A rule that waits for a name which was never sampled.
    let waits = |set: &str, index: usize| {
        decisions.iter().any(|d| {
            let same = d.set == set && usize::try_from(d.index) == Ok(index);
            same && d.state != DescriptorState::Refused
        })
    };
    for rule in validated.good().filter(|r| waits(&r.set, r.index)) {
        for name in rule.condition.names().iter().chain(rule.quota.names()) {
            let key = metric_key(input, &rule.set, name);
            if !input.metrics.contains_key(&key) {
                out.insert(key, NEVER.to_owned());
            }
        }
    }
    out.into_iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect()
}

fn applied(input: &LimiterInput, validated: &Validated, report: &Report<'_>) -> Draft {
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
    if report.retained || validated.good().next().is_none() {
        return Draft::not_evaluated(
            "Applied",
            "not all can be decided: outputs of before stay as they are, until what the other conditions say is corrected",
        );
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
    let because = |c: &Draft| format!("{}: {}", c.kind, c.message);
    if let Some(bad) = conditions.iter().find(|c| c.is_false()) {
        return Draft::new("Ready", false, &bad.reason, because(bad));
    }
    let unknown = |c: &&Draft| c.status.is_none();
    match conditions.iter().find(unknown) {
        // As soon as there is a pod it will limit.
        Some(open) if open.reason == "NoPods" => {
            Draft::new("Ready", true, &open.reason, because(open))
        }
        Some(open) => Draft::unknown("Ready", &open.reason, because(open)),
        None => match conditions.iter().find(|c| c.reason == REMARKS) {
            Some(remark) => Draft::new("Ready", true, REMARKS, because(remark)),
            None => Draft::new("Ready", true, "Ready", "the limiter works"),
        },
    }
}

/// Reason of the decision that is shown first.
pub fn lead_reason(decisions: &[DescriptorStatus]) -> Option<String> {
    leading(decisions).map(|d| shorten(&d.reason, 256))
}

/// The descriptor that the summary speaks of: the one in the state that an operator must know of first.
fn leading(decisions: &[DescriptorStatus]) -> Option<&DescriptorStatus> {
    decisions.iter().min_by_key(|d| rank(d.state))
}

/// Order of states, the most broken one first.
pub(crate) fn rank(state: DescriptorState) -> u8 {
    match state {
        DescriptorState::Refused => 0,
        DescriptorState::NoProxy => 1,
        DescriptorState::Unknown => 2,
        DescriptorState::Fallback => 3,
        DescriptorState::Held => 4,
        DescriptorState::Limiting => 5,
        DescriptorState::Idle => 6,
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
    if let Some(limit) = first.adaptive.as_ref().and_then(|a| a.limit) {
        let shadow = if input.spec.mode == trimtab_crds::limiter::Mode::Shadow {
            " shadow"
        } else {
            ""
        };
        return format!("{}/s{shadow}", pretty(limit));
    }
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
