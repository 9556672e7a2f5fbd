//! What holds without a value: the last decision for `holdFor`, then the declared fallback.

use trimtab_crds::limiter::{DescriptorState, DescriptorStatus, Fallback, FallbackAction};

use super::{Missing, blank, gather, last_decision, share};
use crate::input::LimiterInput;
use crate::validate::{Rule, Strategy};

pub(super) fn stand_in(
    input: &LimiterInput,
    rule: &Rule,
    why: &str,
    how_long: Missing,
) -> DescriptorStatus {
    let mut out = blank(&rule.set, rule.index);
    let last = last_decision(input, &rule.set, out.index).map(|last| kept(input, rule, last));
    let hold = input.hold_for();
    if how_long == Missing::TooLong {
        out.state = DescriptorState::Fallback;
        fall_back(input, rule, why, last, &mut out);
    } else if let Some((quota, total)) = last {
        out.state = DescriptorState::Held;
        (out.quota, out.total) = (quota, total);
        let what = spoken(quota);
        out.reason = if how_long == Missing::Elsewhere {
            format!("{why}: the last decision ({what}) stays until there is a number again")
        } else {
            format!("{why}: the last decision ({what}) holds for up to {hold}")
        };
    } else {
        out.reason = format!("{why}: no decision yet, no limit");
    }
    out
}

/// The last decision for the pods of now: a service that scales out while its metric is away must not multiply its limit.
fn kept(input: &LimiterInput, rule: &Rule, last: &DescriptorStatus) -> (Option<i64>, Option<i64>) {
    if last.quota.is_none() {
        return (None, None);
    }
    let pods = input.target.sets.get(&rule.set).map_or(0, |s| s.pods);
    let again = gather(input, rule, &rule.quota, "action.quota")
        .ok()
        .and_then(|g| rule.quota.number(&g.values).ok());
    match (again, last.total) {
        (Some(value), _) => {
            let (per_pod, total) = share(rule, value, pods);
            (Some(per_pod), total)
        }
        (None, Some(total)) => (Some(divide(total, pods)), Some(total)),
        (None, None) => (last.quota, None),
    }
}

fn divide(total: i64, pods: i64) -> i64 {
    let pods = pods.max(1);
    ((total + pods - 1) / pods).max(i64::from(total > 0))
}

fn fall_back(
    input: &LimiterInput,
    rule: &Rule,
    why: &str,
    last: Option<(Option<i64>, Option<i64>)>,
    out: &mut DescriptorStatus,
) {
    let hold = input.hold_for();
    let default = Fallback::default();
    let fallback = input.spec.fallback.as_ref().unwrap_or(&default);
    match fallback.action {
        FallbackAction::KeepLast => {
            let (quota, total) = last.unwrap_or_default();
            (out.quota, out.total) = (quota, total);
            let what = spoken(quota);
            out.reason = format!(
                "{why} for longer than {hold}: fallback KeepLast, the last decision ({what}) stays"
            );
        }
        FallbackAction::NoLimit => {
            out.reason = format!("{why} for longer than {hold}: fallback NoLimit");
        }
        FallbackAction::Limit => {
            let pods = input.target.sets.get(&rule.set).map_or(0, |s| s.pods);
            let quota = fallback.quota.unwrap_or(1).max(0);
            let shared = rule.strategy == Strategy::Average && quota > 0;
            let per_pod = if shared { divide(quota, pods) } else { quota };
            out.quota = Some(per_pod);
            out.total = shared.then_some(quota);
            out.reason = format!("{why} for longer than {hold}: fallback Limit, {per_pod} per pod");
        }
    }
}

fn spoken(quota: Option<i64>) -> String {
    quota.map_or_else(|| "no limit".to_owned(), |q| format!("{q} per pod"))
}
