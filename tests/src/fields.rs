//! Objects with a field too many in every place where a schema would see it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// The name of the field.
pub const UNKNOWN: &str = "fieldTooMany";

/// An object of the CRD that has every field, and [`UNKNOWN`] wherever the schema does not keep fields that it does not
/// declare; with the paths of these.
pub fn with_unknown_fields(crd: &CustomResourceDefinition) -> (Value, Vec<String>) {
    let version = &crd.spec.versions[0];
    let schema = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema).unwrap_or_default();
    let mut paths = vec![UNKNOWN.to_owned(), format!("metadata.{UNKNOWN}")];
    let mut object = json!({
        "apiVersion": format!("{}/{}", crd.spec.group, version.name),
        "kind": crd.spec.names.kind,
        "metadata": {"name": "everything", UNKNOWN: 1},
        UNKNOWN: 1,
    });
    if crd.spec.scope == "Namespaced" {
        object["metadata"]["namespace"] = json!("default");
    }
    for part in ["spec", "status"] {
        let below = &schema["properties"][part];
        if below.is_object() {
            object[part] = fill(below, part, &mut paths);
        }
    }
    paths.sort();
    (object, paths)
}

fn fill(schema: &Value, path: &str, paths: &mut Vec<String>) -> Value {
    if schema["x-kubernetes-int-or-string"] == true {
        return json!(1);
    }
    match schema["type"].as_str() {
        Some("string") => json!("x"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([fill(&schema["items"], &format!("{path}[0]"), paths)]),
        _ => Value::Object(fill_object(schema, path, paths)),
    }
}

fn fill_object(schema: &Value, path: &str, paths: &mut Vec<String>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        out.insert(name.clone(), fill(below, &format!("{path}.{name}"), paths));
    }
    let values = &schema["additionalProperties"];
    if values.is_object() {
        let name = "anyName";
        out.insert(
            name.to_owned(),
            fill(values, &format!("{path}.{name}"), paths),
        );
        return out;
    }
    out.insert(UNKNOWN.to_owned(), json!(1));
    if schema["x-kubernetes-preserve-unknown-fields"] != true {
        paths.push(format!("{path}.{UNKNOWN}"));
    }
    out
}
