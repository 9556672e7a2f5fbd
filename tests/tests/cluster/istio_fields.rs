//! The fields of Istio's kinds are those of the CRDs that a cluster has. `UPDATE_EXPECT=1` writes them anew.

use std::path::Path;

use serde_json::{Map, Value, json};

/// What [`trimtab_crds::istio::unknown_fields`] goes by: names only.
fn fields(schema: &Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!(true);
    }
    if schema["items"].is_object() {
        return fields(&schema["items"]);
    }
    if let Some(properties) = schema["properties"].as_object() {
        let named = properties
            .iter()
            .map(|(name, below)| (name.clone(), fields(below)));
        return Value::Object(named.collect());
    }
    match &schema["additionalProperties"] {
        below @ Value::Object(_) => json!({"*": fields(below)}),
        _ => json!(true),
    }
}

#[test]
fn fault_m10_fields_of_istios_kinds_are_those_of_its_crds() {
    let file = trimtab_cluster::tools::find("crds.yaml").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut all = Map::new();
    for document in trimtab::manifests::parse(Path::new("crds.yaml"), &text).unwrap() {
        let spec = &document.object["spec"];
        let word = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap();
        let versions = spec["versions"].as_array().unwrap();
        let of = |v: &Value| fields(&v["schema"]["openAPIV3Schema"]["properties"]["spec"]);
        for version in versions {
            assert_eq!(
                of(version),
                of(&versions[0]),
                "versions of a kind mean the same"
            );
        }
        all.insert(
            format!("{}/{}", word("/group"), word("/names/kind")),
            of(&versions[0]),
        );
    }
    // A line for each kind.
    let lines: Vec<String> = all
        .iter()
        .map(|(kind, fields)| format!("{}: {fields}", json!(kind)))
        .collect();
    let want = format!("{{\n{}\n}}\n", lines.join(",\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/src/istio/fields.json");
    expect_test::expect_file![path].assert_eq(&want);
    let script = include_str!("../../../scripts/cluster-tools.sh");
    let release = format!("ISTIO_VERSION={}.", trimtab_crds::istio::RELEASE);
    assert!(script.contains(&release), "{release}");
}
