//! From metrics to quotas: expressions, and the decision of one tick. Pure: no client, no clock.

pub mod adaptive;
pub mod bucket;
pub mod defaults;
mod error;
pub mod expression;
mod parse;
pub mod plan;
mod scan;
mod share;
mod stand_in;
pub mod steady;

use std::collections::BTreeSet;

use trimtab_crds::limiter::{DescriptorState, DescriptorStatus};
use trimtab_kit::problem::Problem;

const SUBSET_NOT_FOUND: &str = "SubsetNotFound";

use crate::input::{LimiterInput, Reading, ReadingState, TargetProblem};
use crate::validate::{Checked, Rule, Validated};
use expression::{Expression, ExpressionError, pretty};
use share::{Share, share};

/// Decides every descriptor of `input`, in the order of the spec.
///
/// A descriptor that cannot be decided keeps its last decision for `holdFor`, then the declared fallback holds:
/// a limit is never dropped in silence.
pub fn decide(input: &LimiterInput, validated: &Validated) -> Vec<DescriptorStatus> {
    let target = input.target.problem.is_some() || !validated.object.is_empty();
    validated
        .rules
        .iter()
        .map(|checked| match &checked.rule {
            Err(problem) => broken(input, checked, problem),
            Ok(_) if target => unresolved(checked, input),
            Ok(rule) => decide_rule(input, rule),
        })
        .collect()
}

fn blank(set: &str, index: usize) -> DescriptorStatus {
    DescriptorStatus {
        set: set.to_owned(),
        index: i32::try_from(index).unwrap_or(i32::MAX),
        ..DescriptorStatus::default()
    }
}

fn refused(input: &LimiterInput, set: &str, index: usize, problem: &Problem) -> DescriptorStatus {
    let mut out = DescriptorStatus {
        state: DescriptorState::Refused,
        refusal: Some(problem.reason.to_owned()),
        reason: problem.to_string(),
        ..blank(set, index)
    };
    // A mistake in an edit does not take away what was in force; without its subset a limit has no pods to be in force on.
    if problem.reason != SUBSET_NOT_FOUND
        && let Some(last) = last_decision(input, set, out.index)
        && let Some(quota) = last.quota
    {
        (out.quota, out.total, out.interval) = (last.quota, last.total, last.interval);
        out.adaptive.clone_from(&last.adaptive);
        out.reason =
            format!("{problem}; the last decision ({quota} per pod) stays until this is corrected");
    }
    out
}

fn unresolved(checked: &Checked, input: &LimiterInput) -> DescriptorStatus {
    let problem = match &input.target.problem {
        Some(TargetProblem::Shadowed { .. }) | None => None,
        Some(p) => Some(p.problem(&input.owner, input.spec.host.as_deref().unwrap_or_default())),
    };
    match (&problem, &input.target.problem) {
        (Some(problem), _) => refused(input, &checked.set, checked.index, problem),
        (None, Some(shadowed)) => DescriptorStatus {
            state: DescriptorState::Refused,
            refusal: Some("Conflict".to_owned()),
            reason: shadowed.problem(&input.owner, "").message,
            ..blank(&checked.set, checked.index)
        },
        (None, None) => DescriptorStatus {
            state: DescriptorState::Refused,
            refusal: Some("Refused".to_owned()),
            reason: "the limiter is refused as a whole: see its conditions".to_owned(),
            ..blank(&checked.set, checked.index)
        },
    }
}

/// A descriptor with a mistake: the version before stays in force when it is known.
fn broken(input: &LimiterInput, checked: &Checked, problem: &Problem) -> DescriptorStatus {
    let Some(rule) = &checked.kept else {
        return refused(input, &checked.set, checked.index, problem);
    };
    let kept = decide_rule(input, rule);
    DescriptorStatus {
        state: DescriptorState::Refused,
        refusal: Some(problem.reason.to_owned()),
        reason: format!(
            "{problem}; the version before stays in force until this is corrected ({})",
            kept.reason
        ),
        ..kept
    }
}

/// What was decided before, when that was something.
fn last_decision<'a>(
    input: &'a LimiterInput,
    set: &str,
    index: i32,
) -> Option<&'a DescriptorStatus> {
    input.previous.iter().find(|d| {
        let decided = !matches!(d.state, DescriptorState::Refused | DescriptorState::Unknown);
        d.set == set && d.index == index && (decided || d.quota.is_some())
    })
}

/// Where the values of an expression stand.
struct Gathered {
    values: Vec<f64>,
    held: bool,
    missing: Option<(String, Reading)>,
}

fn decide_rule(input: &LimiterInput, rule: &Rule) -> DescriptorStatus {
    if let Some(options) = &rule.adaptive {
        return adaptive::decide(input, rule, options);
    }
    match try_rule(input, rule) {
        Ok(status) => status,
        Err(EvalError::Problem(p)) => refused(input, &rule.set, rule.index, &p),
        Err(EvalError::Missing { why, how_long }) => {
            let how_long = match how_long {
                Missing::Elsewhere if input.overdue.contains(&rule.path) => Missing::TooLong,
                Missing::Elsewhere if is_measured(rule) => Missing::NotLong,
                known => known,
            };
            stand_in::stand_in(input, rule, &why, how_long)
        }
    }
}

/// Paths of the rules whose metrics give no number, as by a division by zero; not of those that only lack pods.
pub fn undefined(input: &LimiterInput, validated: &Validated) -> BTreeSet<String> {
    if input.target.problem.is_some() {
        return BTreeSet::new();
    }
    let no_number = |rule: &&Rule| {
        let result = try_rule(input, rule);
        matches!(
            result,
            Err(EvalError::Missing {
                how_long: Missing::Elsewhere,
                ..
            })
        )
    };
    let rules = validated.good().filter(|rule| is_measured(rule));
    rules
        .filter(no_number)
        .map(|rule| rule.path.clone())
        .collect()
}

/// Whether it asks for more than the number of pods.
fn is_measured(rule: &Rule) -> bool {
    let mut names = rule.condition.names().iter().chain(rule.quota.names());
    names.any(|name| name != "pod" && !name.ends_with(".pod"))
}

/// Since when a decision lacks what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// A metric, for less than `holdFor`.
    NotLong,
    /// A metric, for longer.
    TooLong,
    /// No metric is missing: the values give no number. With no Ready pods that may last, and nobody is waited for.
    Elsewhere,
}

enum EvalError {
    /// The user must act.
    Problem(Problem),
    /// No value now.
    Missing { why: String, how_long: Missing },
}

fn try_rule(input: &LimiterInput, rule: &Rule) -> Result<DescriptorStatus, EvalError> {
    if !input.target.sets.contains_key(&rule.set) {
        return Err(EvalError::Problem(subset_missing(input, rule)));
    }
    let texts = &rule.descriptor;
    let condition = gather(input, rule, &rule.condition, "condition")?;
    if !evaluated(
        rule.condition.condition(&condition.values),
        rule,
        "condition",
    )? {
        let state = if condition.held {
            DescriptorState::Held
        } else {
            DescriptorState::Idle
        };
        return Ok(DescriptorStatus {
            state,
            reason: sentence(
                &texts.condition,
                "does not hold",
                &rule.condition.show(&condition.values),
                condition.held,
                input,
            ),
            ..blank(&rule.set, rule.index)
        });
    }
    let quota = gather(input, rule, &rule.quota, "action.quota")?;
    let value = evaluated(rule.quota.number(&quota.values), rule, "action.quota")?;
    let pods = input.target.sets.get(&rule.set).map_or(0, |s| s.pods);
    let share = share(rule, value, pods);
    let held = condition.held || quota.held;
    let why = sentence(
        &texts.condition,
        "holds",
        &rule.condition.show(&condition.values),
        held,
        input,
    );
    let how = sentence_quota(
        &texts.action.quota,
        &rule.quota.show(&quota.values),
        value,
        share,
        pods,
    );
    Ok(DescriptorStatus {
        state: if held {
            DescriptorState::Held
        } else {
            DescriptorState::Limiting
        },
        quota: Some(share.quota),
        total: share.total,
        interval: share.interval,
        reason: format!("{why}; {how}"),
        ..blank(&rule.set, rule.index)
    })
}

fn sentence(text: &str, verb: &str, values: &str, held: bool, input: &LimiterInput) -> String {
    let with = if values.is_empty() {
        String::new()
    } else {
        format!(" with {values}")
    };
    let suffix = if held {
        format!(" (last values, held for up to {})", input.hold_for())
    } else {
        String::new()
    };
    format!("{text} {verb}{with}{suffix}")
}

fn sentence_quota(text: &str, values: &str, value: f64, share: Share, pods: i64) -> String {
    let with = if values.is_empty() {
        String::new()
    } else {
        format!(" with {values}")
    };
    let Share { quota, total, .. } = share;
    let per_pod = share.interval.map_or_else(
        || format!("{quota} per pod"),
        |longer| format!("{quota} per {} and pod", longer.to_proto_json()),
    );
    let remark = if value < 0.0 {
        " (less than nothing counts as 0, which refuses every request)"
    } else if value > f64::from(u32::MAX) {
        " (the largest quota that Envoy takes)"
    } else {
        ""
    };
    match total {
        Some(_) => format!(
            "quota {} shared by {pods} pods = {per_pod}{with}{remark}",
            pretty(value)
        ),
        None if text == quota.to_string() => format!("quota {per_pod}"),
        None => format!("quota {text} = {per_pod}{with}{remark}"),
    }
}

fn subset_missing(input: &LimiterInput, rule: &Rule) -> Problem {
    let known: Vec<&str> = input.target.sets.keys().map(String::as_str).collect();
    let misread = input.target.misread.first_key_value();
    let misread = misread.map_or_else(String::new, |(written, meant)| {
        format!("; Istio takes the host \"{written}\" of a DestinationRule as it is: write {meant}")
    });
    Problem::of_field(
        rule.path.clone(),
        SUBSET_NOT_FOUND,
        format!(
            "no DestinationRule of the host has a subset \"{}\": known sets are {}; create the subset or rename the set{misread}",
            rule.set,
            known.join(", ")
        ),
    )
}

/// The key of a metric named in set `set`: names that begin with a set's name are meant for that set.
pub fn metric_key(input: &LimiterInput, set: &str, name: &str) -> String {
    let of_set = name.split_once('.').is_some_and(|(head, _)| {
        head == trimtab_crds::limiter::BASE_SET || input.target.sets.contains_key(head)
    });
    if of_set {
        name.to_owned()
    } else {
        format!("{set}.{name}")
    }
}

fn gather(
    input: &LimiterInput,
    rule: &Rule,
    e: &Expression,
    field: &str,
) -> Result<Gathered, EvalError> {
    let mut out = Gathered {
        values: Vec::with_capacity(e.names().len()),
        held: false,
        missing: None,
    };
    for name in e.names() {
        let key = metric_key(input, &rule.set, name);
        let Some(reading) = input.metrics.get(&key) else {
            return Err(unknown(input, rule, name, &key, field));
        };
        match reading.value {
            Some(value) => {
                out.held |= reading.state != ReadingState::Fresh;
                out.values.push(value);
            }
            None => {
                out.missing
                    .get_or_insert_with(|| (name.clone(), reading.clone()));
            }
        }
    }
    match out.missing {
        None => Ok(out),
        Some((name, reading)) => Err(EvalError::Missing {
            why: format!(
                "no value for {name} ({})",
                reading.failure.as_deref().unwrap_or("nothing measured yet")
            ),
            how_long: if reading.state == ReadingState::Expired {
                Missing::TooLong
            } else {
                Missing::NotLong
            },
        }),
    }
}

fn unknown(input: &LimiterInput, rule: &Rule, name: &str, key: &str, field: &str) -> EvalError {
    let bare = key.split_once('.').map_or(key, |(_, n)| n);
    if input.spec.metrics.contains_key(bare) && !input.settings.prometheus {
        return EvalError::Problem(Problem::of_field(
            format!("spec.metrics.{bare}"),
            "NotConfigured",
            "queries of a limiter need a Prometheus: set metrics.prometheus.address in the operator's configuration",
        ));
    }
    // A series of a Group query is known when it has been seen.
    let series = bare.starts_with('{') && input.settings.prometheus;
    if series
        || input.settings.known_metrics.contains(bare)
        || input.spec.metrics.contains_key(bare)
    {
        return EvalError::Missing {
            why: format!("no value for {name} (nothing measured yet)"),
            how_long: Missing::NotLong,
        };
    }
    let mut known: Vec<&str> = input
        .settings
        .known_metrics
        .iter()
        .map(String::as_str)
        .chain(input.spec.metrics.keys().map(String::as_str))
        .chain(["pod"])
        .collect();
    known.sort_unstable();
    known.dedup();
    let e = ExpressionError::UnknownMetric {
        name: name.to_owned(),
        known: known.join(", "),
    };
    EvalError::Problem(Problem::of_field(
        format!("{}.{field}", rule.path),
        e.reason(),
        format!(
            "{e}; correct the name, or add it to spec.metrics or to the operator's metric handlers"
        ),
    ))
}

fn evaluated<T>(
    result: Result<T, ExpressionError>,
    rule: &Rule,
    field: &str,
) -> Result<T, EvalError> {
    result.map_err(|e| match e {
        // With no Ready pods a division by {pod} is infinite: that passes, it is nobody's mistake.
        ExpressionError::NotFinite { .. } => EvalError::Missing {
            why: e.to_string(),
            how_long: Missing::Elsewhere,
        },
        other => EvalError::Problem(Problem::of_field(
            format!("{}.{field}", rule.path),
            other.reason(),
            other.to_string(),
        )),
    })
}

/// Metric values for `status.metricStatus`.
pub fn shown_metrics(input: &LimiterInput) -> std::collections::BTreeMap<String, String> {
    input
        .metrics
        .iter()
        .filter_map(|(k, r)| r.value.map(|v| (k.clone(), pretty(v))))
        .collect()
}

#[cfg(test)]
mod tests;
