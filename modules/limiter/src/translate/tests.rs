//! Identity and determinism of outputs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::translate;
use crate::decide::decide;
use crate::input::LimiterInput;
use crate::validate::validate;

fn input(delivery: &str, quota: u32, others: usize) -> LimiterInput {
    let rule = |quota: String, path: String| {
        json!({"condition": "true", "action": {"quota": quota, "fill_interval": {"seconds": 1}},
            "match": [{"name": ":path", "prefix_match": path}]})
    };
    let mut descriptors = vec![rule(quota.to_string(), "/a".to_owned())];
    descriptors.extend((0..others).map(|i| rule("7".to_owned(), format!("/other{i}"))));
    serde_json::from_value(json!({
        "owner": {"apiVersion": "microservice.slime.io/v1alpha2", "namespace": "default", "name": "a"},
        "spec": {"sets": {"_base": descriptors}, "delivery": delivery},
        "target": {"selector": {"app": "a"}, "sets": {"_base": {"pods": 2}}},
        "metrics": {"_base.pod": {"value": 2}},
    }))
    .unwrap()
}

/// EnvoyFilters and canonical ECDS values as one text.
fn output(input: &LimiterInput) -> String {
    let validated = validate(&input.owner, &input.spec);
    let decisions = decide(input, &validated);
    let out = translate(input, &validated, &decisions);
    let hot: Vec<Value> = out
        .extension_configs
        .iter()
        .map(|c| json!([c.name, c.canonical, c.body]))
        .collect();
    json!([out.envoy_filters, hot]).to_string()
}

fn identities(text: &str) -> Vec<String> {
    let parts = text.split("Service[").skip(1);
    parts.map(|p| p.chars().take(40).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_input_gives_the_same_bytes(quota in 1u32..1_000_000, others in 0usize..5) {
        for delivery in ["EnvoyFilter", "ECDS"] {
            let one = input(delivery, quota, others);
            let again: LimiterInput = serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
            prop_assert_eq!(output(&one), output(&again));
        }
    }

    #[test]
    fn a_changed_quota_changes_no_identity(quota in 1u32..1_000_000, other in 1u32..1_000_000) {
        for delivery in ["EnvoyFilter", "ECDS"] {
            let (one, two) = (output(&input(delivery, quota, 2)), output(&input(delivery, other, 2)));
            prop_assert_eq!(identities(&one), identities(&two));
            prop_assert_eq!(one == two, quota == other);
        }
    }
}

#[test]
fn a_rule_keeps_its_identity_when_others_come() {
    let alone = identities(&output(&input("EnvoyFilter", 5, 0)));
    let among = identities(&output(&input("EnvoyFilter", 5, 3)));
    assert!(among.contains(&alone[0]), "{alone:?} {among:?}");
}
