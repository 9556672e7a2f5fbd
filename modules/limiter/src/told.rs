//! Events of a limiter: what a new status says that the one before did not. Pure.
//!
//! The status is compared as it is at the API server, so that neither a restart nor another leader tells anything twice.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trimtab_crds::limiter::{DescriptorState, DescriptorStatus, KIND, LimiterStatus};
use trimtab_kit::events::{Event, Step};

use crate::decide::adaptive::decided::sheds;
use crate::owner::Owner;

/// A condition whose turns are told.
struct Told {
    kind: &'static str,
    /// Its reason when it counts; none: any, when it is False.
    only: Option<&'static str>,
    /// Another message is told too; else it has numbers that move.
    worded: bool,
    bad: &'static str,
    /// What is told when it is True again.
    good: Option<&'static str>,
}

const TOLD: [Told; 3] = [
    Told {
        kind: "Accepted",
        only: None,
        worded: true,
        bad: "Refused",
        good: None,
    },
    Told {
        kind: "MetricsAvailable",
        only: None,
        worded: false,
        bad: "MetricsMissing",
        good: Some("MetricsBack"),
    },
    Told {
        kind: "Applied",
        only: Some("Rejected"),
        worded: false,
        bad: "RefusedByProxy",
        good: Some("AcceptedByProxy"),
    },
];

/// The Events between two statuses.
pub(crate) fn steps(
    owner: &Owner,
    before: Option<&LimiterStatus>,
    after: &LimiterStatus,
) -> Vec<Step> {
    let step = |field: String, reason, warning, note| Step {
        event: Event {
            api_version: owner.api_version.clone(),
            kind: KIND.to_owned(),
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            field,
            reason,
            note,
        },
        warning,
    };
    let mut out = Vec::new();
    for d in &after.descriptors {
        let old = before.and_then(|s| s.descriptors.iter().find(|o| is_same_rule(o, d)));
        let limited = old.is_some_and(limits);
        if limits(d) == limited {
            continue;
        }
        let path = owner.descriptor_path(&d.set, usize::try_from(d.index).unwrap_or_default());
        out.push(if limited {
            step(path, "LimitStopped", false, d.reason.clone())
        } else {
            step(path, "LimitStarted", false, d.reason.clone())
        });
    }
    for told in TOLD {
        let find = |status: &LimiterStatus| {
            let mut all = status.conditions.iter();
            all.find(|c| c.type_ == told.kind).cloned()
        };
        let (then, now) = (before.and_then(find), find(after));
        let Some(now) = now else { continue };
        let field = format!("status.conditions[{}]", told.kind);
        let was_bad = then.as_ref().is_some_and(|then| told.is_bad(then));
        if told.is_bad(&now) {
            let same = then.is_some_and(|then| told.is_bad(&then) && told.is_same(&then, &now));
            if !same {
                out.push(step(field, told.bad, true, now.message));
            }
        } else if let Some(good) = told.good.filter(|_| was_bad && now.status == "True") {
            out.push(step(field, good, false, now.message));
        }
    }
    out
}

impl Told {
    fn is_bad(&self, condition: &Condition) -> bool {
        condition.status == "False" && self.only.is_none_or(|reason| condition.reason == reason)
    }

    fn is_same(&self, then: &Condition, now: &Condition) -> bool {
        then.reason == now.reason && (!self.worded || then.message == now.message)
    }
}

/// Whether proxies have a limit of it, as far as is known.
fn limits(d: &DescriptorStatus) -> bool {
    // Where Trimtab finds the limit, one that refuses nobody before an overload is no news.
    let sheds = d.adaptive.as_ref().is_none_or(sheds);
    d.quota.is_some() && sheds && d.state != DescriptorState::NoProxy
}

fn is_same_rule(a: &DescriptorStatus, b: &DescriptorStatus) -> bool {
    (&a.set, a.index) == (&b.set, b.index)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(quota: Option<i64>, conditions: &[(&str, &str, &str, &str)]) -> LimiterStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason, message)| {
                json!({"type": kind, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2023-11-14T22:13:20Z"})
            })
            .collect();
        let state = if quota.is_some() { "Limiting" } else { "Idle" };
        serde_json::from_value(json!({"conditions": conditions, "descriptors": [
            {"set": "_base", "index": 0, "quota": quota, "state": state, "reason": "why"}]}))
        .unwrap()
    }

    fn told(before: Option<&LimiterStatus>, after: &LimiterStatus) -> Vec<(&'static str, bool)> {
        let owner = Owner {
            uid: "u".to_owned(),
            ..Owner::default()
        };
        let steps = steps(&owner, before, after).into_iter();
        steps
            .map(|step| {
                assert_eq!(
                    (step.event.kind.as_str(), step.event.uid.as_str()),
                    (KIND, "u")
                );
                (step.event.reason, step.warning)
            })
            .collect()
    }

    #[test]
    fn a_limit_that_begins_and_ends() {
        let (idle, some, more) = (
            status(None, &[]),
            status(Some(5), &[]),
            status(Some(9), &[]),
        );
        assert_eq!(told(None, &idle), []);
        assert_eq!(told(None, &some), [("LimitStarted", false)]);
        assert_eq!(told(Some(&idle), &some), [("LimitStarted", false)]);
        assert_eq!(told(Some(&some), &more), [], "another quota");
        assert_eq!(told(Some(&more), &more), [], "a restart");
        assert_eq!(told(Some(&more), &idle), [("LimitStopped", false)]);
        let mut held_by_none = some.clone();
        held_by_none.descriptors[0].state = DescriptorState::NoProxy;
        assert_eq!(told(Some(&some), &held_by_none), [("LimitStopped", false)]);
    }

    #[test]
    fn conditions_that_turn() {
        let good = status(
            None,
            &[
                ("Accepted", "True", "Accepted", ""),
                ("MetricsAvailable", "True", "Fresh", ""),
                ("Applied", "True", "Applied", ""),
            ],
        );
        for (bad, other, warned, back) in [
            (
                ("Accepted", "False", "InvalidRegex", "a"),
                Some(("Accepted", "False", "InvalidRegex", "b")),
                "Refused",
                None,
            ),
            (
                ("MetricsAvailable", "False", "Held", "cpu: timeout"),
                Some(("MetricsAvailable", "False", "Expired", "cpu: timeout")),
                "MetricsMissing",
                Some("MetricsBack"),
            ),
            (
                ("Applied", "False", "Rejected", "1 of 2"),
                None,
                "RefusedByProxy",
                Some("AcceptedByProxy"),
            ),
        ] {
            let one = status(None, &[bad]);
            assert_eq!(told(None, &one), [(warned, true)]);
            assert_eq!(told(Some(&good), &one), [(warned, true)]);
            assert_eq!(told(Some(&one), &one), []);
            if let Some(other) = other {
                assert_eq!(told(Some(&one), &status(None, &[other])), [(warned, true)]);
            }
            let back: Vec<_> = back.map(|reason| (reason, false)).into_iter().collect();
            assert_eq!(told(Some(&one), &good), back);
        }
        let counted = status(None, &[("Applied", "False", "Rejected", "2 of 2")]);
        let one = status(None, &[("Applied", "False", "Rejected", "1 of 2")]);
        assert_eq!(told(Some(&one), &counted), [], "a number that moves");
        let forbidden = status(None, &[("Applied", "False", "Forbidden", "")]);
        assert_eq!(told(Some(&good), &forbidden), [], "the log tells that");
    }
}
