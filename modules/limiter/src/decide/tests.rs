//! Decisions of one tick, one rule at a time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use trimtab_crds::limiter::{
    DescriptorState, DescriptorStatus, FallbackAction, FillInterval, LimiterSpec,
};

use super::{decide, metric_key, shown_metrics};
use crate::input::{LimiterInput, Reading, ReadingState, SetFacts, TargetFacts};
use crate::owner::Owner;
use crate::validate::validate;

/// A limiter with one rule for `_base` and pods in `_base` and `v1`.
fn input(condition: &str, quota: &str, strategy: &str, pods: i64) -> LimiterInput {
    let rule = json!({"condition": condition, "action": {"quota": quota, "strategy": strategy, "fill_interval": {"seconds": 1}}});
    let spec: LimiterSpec = serde_json::from_value(json!({"sets": {"_base": [rule]}})).unwrap();
    let facts = |pods| SetFacts {
        pods,
        ..SetFacts::default()
    };
    let sets = BTreeMap::from([
        ("_base".to_owned(), facts(pods)),
        ("v1".to_owned(), facts(1)),
    ]);
    let metrics = BTreeMap::from([
        ("_base.pod".to_owned(), Reading::fresh(pods as f64)),
        ("v1.pod".to_owned(), Reading::fresh(1.0)),
        ("_base.cpu".to_owned(), Reading::fresh(0.9)),
        ("v1.cpu".to_owned(), Reading::fresh(0.1)),
    ]);
    LimiterInput {
        owner: Owner {
            api_version: "microservice.slime.io/v1alpha2".into(),
            namespace: "default".into(),
            name: "a".into(),
            ..Owner::default()
        },
        spec,
        target: TargetFacts {
            sets,
            ..TargetFacts::default()
        },
        metrics,
        previous: Vec::new(),
        overdue: <_>::default(),
        defaults: None,
        adaptive: BTreeMap::new(),
        settings: std::sync::Arc::default(),
    }
}

fn decided(input: &LimiterInput) -> DescriptorStatus {
    decide(input, &validate(&input.owner, &input.spec)).remove(0)
}

fn quota(condition: &str, quota: &str, strategy: &str, pods: i64) -> (Option<i64>, Option<i64>) {
    let d = decided(&input(condition, quota, strategy, pods));
    (d.quota, d.total)
}

#[test]
fn a_quota_is_per_pod_or_shared() {
    assert_eq!(quota("true", "30", "single", 3), (Some(30), None));
    assert_eq!(quota("true", "30", "average", 3), (Some(10), Some(30)));
    assert_eq!(quota("true", "31", "average", 3), (Some(11), Some(31)));
    assert_eq!(
        quota("true", "30/{pod}", "average", 3),
        (Some(10), None),
        "divided once"
    );
    assert_eq!(
        quota("true", "2", "average", 3),
        (Some(1), Some(2)),
        "never below 1: the interval is longer"
    );
    assert_eq!(
        quota("true", "0", "average", 3),
        (Some(0), None),
        "0 stays 0"
    );
    assert_eq!(quota("true", "30", "average", 0), (Some(30), Some(30)));
}

#[test]
fn names_are_of_the_rules_set_unless_they_name_one() {
    let i = input("true", "1", "single", 3);
    assert_eq!(metric_key(&i, "v1", "cpu"), "v1.cpu");
    assert_eq!(metric_key(&i, "v1", "_base.cpu"), "_base.cpu");
    assert_eq!(metric_key(&i, "_base", "v1.cpu"), "v1.cpu");
    assert_eq!(
        metric_key(&i, "_base", "v2.cpu"),
        "_base.v2.cpu",
        "no set of that name"
    );
    assert_eq!(
        quota(
            "{v1.cpu}<0.5 & {_base.cpu}>0.5",
            "{_base.pod}*{v1.pod}",
            "single",
            3
        ),
        (Some(3), None)
    );
}

#[test]
fn reasons_show_condition_values_and_arithmetic() {
    let d = decided(&input("{cpu}>0.8", "30/{pod}", "single", 3));
    assert_eq!((d.state, d.quota), (DescriptorState::Limiting, Some(10)));
    assert_eq!(
        d.reason,
        "{cpu}>0.8 holds with cpu=0.9; quota 30/{pod} = 10 per pod with pod=3"
    );
    let d = decided(&input("{cpu}<0.8", "30", "single", 3));
    assert_eq!((d.state, d.quota), (DescriptorState::Idle, None));
    assert_eq!(d.reason, "{cpu}<0.8 does not hold with cpu=0.9");
}

#[test]
fn a_held_value_marks_the_decision_on_either_side() {
    for condition in ["{cpu}>0.8", "{cpu}<0.8"] {
        let mut i = input(condition, "3", "single", 3);
        let held = Reading {
            state: ReadingState::Held,
            ..Reading::fresh(0.9)
        };
        i.metrics.insert("_base.cpu".into(), held);
        assert_eq!(decided(&i).state, DescriptorState::Held, "{condition}");
    }
    let mut i = input("true", "{cpu}*10", "single", 3);
    i.metrics.insert(
        "_base.cpu".into(),
        Reading {
            state: ReadingState::Held,
            ..Reading::fresh(0.9)
        },
    );
    assert_eq!(
        (decided(&i).state, decided(&i).quota),
        (DescriptorState::Held, Some(9))
    );
}

fn without_value(
    state: ReadingState,
    previous: Option<(DescriptorState, Option<i64>)>,
    fallback: Option<(FallbackAction, Option<i64>)>,
) -> (DescriptorState, Option<i64>) {
    // The quota needs a value too, so it cannot be computed anew for the pods of now.
    let mut i = input("{cpu}>0.8", "{cpu}*10", "single", 2);
    i.metrics.insert(
        "_base.cpu".into(),
        Reading {
            value: None,
            state,
            failure: Some("no series".into()),
        },
    );
    i.previous = previous
        .map(|(state, quota)| DescriptorStatus {
            set: "_base".into(),
            state,
            quota,
            ..DescriptorStatus::default()
        })
        .into_iter()
        .collect();
    i.spec.fallback =
        fallback.map(|(action, quota)| trimtab_crds::limiter::Fallback { action, quota });
    let d = decided(&i);
    assert!(
        d.reason.contains("no value for cpu (no series)"),
        "{}",
        d.reason
    );
    (d.state, d.quota)
}

#[test]
fn a_missing_value_never_drops_a_limit_in_silence() {
    use DescriptorState as S;
    use FallbackAction as F;
    use ReadingState as R;
    let limiting = Some((S::Limiting, Some(7)));
    assert_eq!(
        without_value(R::Waiting, limiting, None),
        (S::Held, Some(7))
    );
    assert_eq!(
        without_value(R::Waiting, Some((S::Idle, None)), None),
        (S::Held, None)
    );
    assert_eq!(without_value(R::Waiting, None, None), (S::Unknown, None));
    assert_eq!(
        without_value(R::Waiting, Some((S::Refused, None)), None),
        (S::Unknown, None),
        "a refusal is no decision"
    );
    assert_eq!(
        without_value(R::Waiting, limiting, Some((F::NoLimit, None))),
        (S::Held, Some(7)),
        "the fallback waits for holdFor"
    );
    assert_eq!(
        without_value(R::Expired, limiting, None),
        (S::Fallback, Some(7))
    );
    assert_eq!(without_value(R::Expired, None, None), (S::Fallback, None));
    assert_eq!(
        without_value(R::Expired, limiting, Some((F::NoLimit, None))),
        (S::Fallback, None)
    );
    assert_eq!(
        without_value(R::Expired, limiting, Some((F::Limit, Some(3)))),
        (S::Fallback, Some(3))
    );
    assert_eq!(
        without_value(R::Expired, limiting, Some((F::Limit, Some(0)))),
        (S::Fallback, Some(0))
    );
}

#[test]
fn what_is_held_follows_the_pods() {
    let mut i = input("{cpu}>0.8", "30/{pod}", "single", 6);
    i.metrics.insert(
        "_base.cpu".into(),
        Reading {
            value: None,
            state: ReadingState::Waiting,
            failure: None,
        },
    );
    i.previous = vec![DescriptorStatus {
        set: "_base".into(),
        state: DescriptorState::Limiting,
        quota: Some(10),
        ..DescriptorStatus::default()
    }];
    assert_eq!(
        (decided(&i).state, decided(&i).quota),
        (DescriptorState::Held, Some(5))
    );
}

#[test]
fn a_mistake_takes_nothing_away() {
    let mut i = input("{nosuch}>0.8", "5", "single", 2);
    i.previous = vec![DescriptorStatus {
        set: "_base".into(),
        state: DescriptorState::Limiting,
        quota: Some(10),
        ..DescriptorStatus::default()
    }];
    let d = decided(&i);
    assert_eq!(
        (d.state, d.quota, d.refusal.as_deref()),
        (DescriptorState::Refused, Some(10), Some("UnknownMetric"))
    );
    assert!(
        d.reason
            .ends_with("the last decision (10 per pod) stays until this is corrected"),
        "{}",
        d.reason
    );
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    let mut i = input("{cqu}>0.8", "5", "single", 2);
    std::sync::Arc::make_mut(&mut i.settings).known_metrics = ["cpu".to_owned()].into();
    let d = decided(&i);
    assert_eq!((d.state, d.quota), (DescriptorState::Refused, None));
    assert!(d.reason.starts_with("spec.sets._base.descriptor[0].condition: unknown metric \"cqu\": known here are cpu, pod"), "{}", d.reason);
}

#[test]
fn shown_metrics_are_those_with_a_value() {
    let mut i = input("true", "1", "single", 3);
    i.metrics.insert("_base.rt99".into(), Reading::default());
    let shown = shown_metrics(&i);
    assert_eq!(shown["_base.cpu"], "0.9");
    assert_eq!(shown["_base.pod"], "3");
    assert!(!shown.contains_key("_base.rt99"));
}

/// Quota and interval in milliseconds, from an interval of a second.
fn rate(text: &str, strategy: &str, pods: i64) -> (i64, i64) {
    let d = decided(&input("true", text, strategy, pods));
    (
        d.quota.unwrap(),
        d.interval.map_or(1000, FillInterval::millis),
    )
}

#[test]
fn fault_l12_small_quotas_take_longer_and_negative_ones_are_nothing() {
    assert_eq!(rate("1/4", "average", 2), (1, 8000));
    assert_eq!(rate("5", "average", 50), (1, 10_000));
    assert_eq!(
        rate("3", "average", 2),
        (2, 1334),
        "within a tenth of the total"
    );
    assert_eq!(
        rate("31", "average", 3),
        (11, 1000),
        "rounding adds less than a tenth"
    );
    assert_eq!(rate("1/4", "single", 2), (1, 4000));
    assert_eq!(rate("30/{pod}", "single", 60), (1, 2000));
    assert_eq!(rate("0.1*30", "single", 2), (3, 1000));
    assert_eq!(rate("1e300", "single", 2), (i64::from(u32::MAX), 1000));
    // The same whether a 0 is written or not.
    for text in [
        "5-9*pod",
        "20-200*pod",
        "pod > 0 ? 20-200*pod : 50",
        "10*(pod-2)",
    ] {
        assert_eq!(rate(text, "single", 2), (0, 1000), "{text}");
    }
    assert_eq!(rate("5-9*{v1.pod}", "average", 2), (0, 1000));
    for text in ["-1", "10-20"] {
        let d = decided(&input("true", text, "single", 2));
        assert_eq!(
            (d.quota, d.refusal.as_deref()),
            (None, Some("InvalidQuota")),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn a_total_is_kept_within_a_tenth(tenths in 1_i64..1_000_000, pods in 1_i64..500) {
        let text = format!("{tenths}/10");
        let (quota, millis) = rate(&text, "average", pods);
        let total = quota as f64 * pods as f64 * 1000.0 / millis as f64;
        let wanted = tenths as f64 / 10.0;
        prop_assert!(total <= wanted * 1.1001 && total >= wanted * 0.98, "{total} of {wanted}");
    }

    #[test]
    fn shares_cover_the_total_and_waste_less_than_one_each(total in 1_i64..1_000_000, pods in 1_i64..500) {
        let (per_pod, shown) = quota("true", &total.to_string(), "average", pods);
        let per_pod = per_pod.unwrap();
        prop_assert_eq!(shown, Some(total));
        prop_assert!(per_pod * pods >= total && (per_pod - 1) * pods < total);
    }
}
