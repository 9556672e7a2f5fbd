//! What holds without a value: the last decision for `holdFor`, then the declared fallback.
//!
//! A reason says first what holds, then why: columns and conditions cut long texts at their end.

use trimtab_crds::limiter::{DescriptorState, DescriptorStatus, Fallback, FallbackAction};

use super::share::{Share, share, shared};
use super::{Missing, blank, gather, last_decision};
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
        fall_back(input, rule, why, last.flatten(), &mut out);
    } else if let Some(share) = last {
        out.state = DescriptorState::Held;
        take(&mut out, share);
        let what = spoken(out.quota);
        out.reason = if how_long == Missing::Elsewhere {
            format!("the last decision ({what}) stays until there is a number again: {why}")
        } else {
            format!("the last decision ({what}) holds for up to {hold}: {why}")
        };
    } else {
        out.reason = format!("{why}: no decision yet, no limit");
    }
    out
}

/// Writes a share, or no limit.
fn take(out: &mut DescriptorStatus, share: Option<Share>) {
    out.quota = share.map(|s| s.quota);
    out.total = share.and_then(|s| s.total);
    out.interval = share.and_then(|s| s.interval);
}

/// The last decision for the pods of now: a service that scales out while its metric is away must not multiply its limit.
#[allow(clippy::cast_precision_loss)] // totals have 32 bits
fn kept(input: &LimiterInput, rule: &Rule, last: &DescriptorStatus) -> Option<Share> {
    let quota = last.quota?;
    let pods = input.target.sets.get(&rule.set).map_or(0, |s| s.pods);
    // After a restart in the fallback, its quota is in force and not the rule's.
    let declared = input.spec.fallback.as_ref().map(|f| f.action) == Some(FallbackAction::Limit)
        && last.state == DescriptorState::Fallback;
    let again = gather(input, rule, &rule.quota, "action.quota")
        .ok()
        .filter(|_| !declared)
        .and_then(|g| rule.quota.number(&g.values).ok());
    let interval = rule.descriptor.action.fill_interval.unwrap_or_default();
    Some(match (again, last.total) {
        (Some(value), _) => share(rule, value, pods),
        // A total below 1 is rounded in the status: what is in force is nearer to it.
        (None, Some(total)) if last.interval.is_none() || total > 1 => {
            shared(total as f64, pods, interval, total)
        }
        (None, total) => Share {
            quota,
            total,
            interval: last.interval,
        },
    })
}

#[allow(clippy::cast_precision_loss)] // the schema bounds the quota
fn fall_back(
    input: &LimiterInput,
    rule: &Rule,
    why: &str,
    last: Option<Share>,
    out: &mut DescriptorStatus,
) {
    let hold = input.hold_for();
    let default = Fallback::default();
    let fallback = input.spec.fallback.as_ref().unwrap_or(&default);
    match fallback.action {
        FallbackAction::KeepLast => {
            take(out, last);
            let what = spoken(out.quota);
            out.reason = format!(
                "fallback KeepLast, the last decision ({what}) stays: for longer than {hold} {why}"
            );
        }
        FallbackAction::NoLimit => {
            out.reason = format!("fallback NoLimit: for longer than {hold} {why}");
        }
        FallbackAction::Limit => {
            let pods = input.target.sets.get(&rule.set).map_or(0, |s| s.pods);
            let quota = fallback.quota.unwrap_or(1).max(0);
            let interval = rule.descriptor.action.fill_interval.unwrap_or_default();
            let share = if rule.strategy == Strategy::Average && quota > 0 {
                shared(quota as f64, pods, interval, quota)
            } else {
                Share {
                    quota,
                    total: None,
                    interval: None,
                }
            };
            take(out, Some(share));
            let per_pod = share.quota;
            out.reason = format!("fallback Limit, {per_pod} per pod: for longer than {hold} {why}");
        }
    }
}

fn spoken(quota: Option<i64>) -> String {
    quota.map_or_else(|| "no limit".to_owned(), |q| format!("{q} per pod"))
}
