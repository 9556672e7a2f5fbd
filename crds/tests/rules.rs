//! CEL rules of the CRDs: each with an accepted and a refused object.

// Helpers outside of #[test] functions fail the test by panicking too.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

fn schema(file: &str) -> Value {
    let (_, crd) = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .find(|(name, _)| *name == file)
        .unwrap();
    serde_json::to_value(
        &crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema,
    )
    .unwrap()
}

/// What the embedded API says of an object with this descriptor.
fn first_form(descriptor: &Value) -> String {
    let embedded = trimtab_embedded::Embedded::new();
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        embedded.install_crd(&crd).unwrap();
    }
    let object = json!({"apiVersion": "microservice.netease.com/v1alpha1", "kind": "SmartLimiter",
        "metadata": {"name": "a", "namespace": "default"}, "spec": {"descriptors": [descriptor]}});
    embedded
        .load(object)
        .map_or_else(|e| e.to_string(), |_| String::new())
}

#[test]
fn good_descriptors_pass() {
    for good in [
        json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"seconds": 1}}}),
        json!({"condition": "true", "action": {"quota": "1", "fillInterval": {"nanos": 50_000_000}}}),
        json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"seconds": 1}}, "match": [{"name": "a", "exact_match": "b"}]}),
        json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"seconds": 1}}, "match": [{"matchSource": "SourceIpMatch", "exactMatch": "10.0.0.1"}]}),
        json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"seconds": 1}}, "target": {"direction": "outbound", "host": ["a"]}}),
    ] {
        assert_eq!(first_form(&good), "", "{good}");
    }
}

#[test]
fn bad_descriptors_name_the_field_and_the_fix() {
    let interval = json!({"seconds": 1});
    for (bad, want) in [
        (
            json!({"condition": "true", "action": {"quota": "1"}}),
            "fill_interval is required",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"nanos": 5}}}),
            "50 ms",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": interval, "fillInterval": interval}}),
            "two spellings",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": interval}, "match": [{"name": "a"}]}),
            "a match needs one of",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": interval}, "match": [{"exact_match": "b"}]}),
            "name is required",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": interval}, "target": {"direction": "outbound"}}),
            "needs route or host",
        ),
        (
            json!({"condition": "true", "action": {"quota": "1", "fill_interval": interval}, "custom_key": "k"}),
            "go together",
        ),
    ] {
        let errors = first_form(&bad);
        assert!(errors.contains(want), "{bad}: {errors}");
    }
}

#[test]
fn every_rule_compiles() {
    fn walk(value: &Value, seen: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Array(rules)) = map.get("x-kubernetes-validations") {
                    for rule in rules {
                        let text = rule["rule"].as_str().unwrap();
                        assert!(kube_cel::cel::Program::compile(text).is_ok(), "{text}");
                        *seen += 1;
                    }
                }
                map.values().for_each(|v| walk(v, seen));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    for (file, _) in trimtab_crds::manifests::trimtab_crds() {
        walk(&schema(file), &mut seen);
    }
    assert!(seen > 60, "{seen} rules");
}

#[test]
fn documented_fields_are_not_pruned_and_formats_are_signed() {
    let text = serde_json::to_string(&schema("microservice.slime.io_smartlimiters.yaml")).unwrap();
    for field in [
        "headers_to_add",
        "headersToAdd",
        "matchSource",
        "useQueryMatch",
        "fillInterval",
        "present_match_separate",
        "customKey",
    ] {
        assert!(text.contains(&format!("\"{field}\"")), "{field}");
    }
    for (file, _) in trimtab_crds::manifests::trimtab_crds() {
        assert!(
            !schema(file).to_string().contains("\"uint"),
            "{file}: API servers from 1.34 on warn about unsigned formats"
        );
    }
}

#[test]
fn manifests_are_up_to_date() {
    for (name, crd) in trimtab_crds::manifests::trimtab_crds() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/").to_owned() + name;
        let have: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            have,
            serde_json::to_value(&crd).unwrap(),
            "{path} is stale: run `trimtab crds --write crds/manifests`"
        );
    }
}
