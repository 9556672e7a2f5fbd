//! Which fields Istio's kinds have. Trimtab's types name only those that it reads.

use std::sync::OnceLock;

use serde_json::{Map, Value};

/// The Istio release whose CRDs the fields are from.
pub const RELEASE: &str = "1.31";

/// For each kind the fields below `spec`: an object names all that there are, `*` stands for any name, and `true` for
/// whatever there may be. Lists are as their items.
const FIELDS: &str = include_str!("fields.json");

/// A field that Istio does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Where it is, e.g. `spec.http[0].mtch`.
    pub path: String,
    /// Its name.
    pub name: String,
    /// The fields that there are in its place.
    pub known: Vec<String>,
}

/// The fields of an object of an Istio kind that the kind does not have; none of other kinds.
pub fn unknown_fields(object: &Value) -> Vec<UnknownField> {
    static PARSED: OnceLock<Value> = OnceLock::new();
    let all = PARSED.get_or_init(|| serde_json::from_str(FIELDS).unwrap_or_default());
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split('/').next().unwrap_or_default();
    let mut out = Vec::new();
    if let Some(fields) = all.get(format!("{group}/{}", text("kind"))) {
        walk(fields, &object["spec"], "spec", &mut out);
    }
    out
}

fn walk(fields: &Value, value: &Value, path: &str, out: &mut Vec<UnknownField>) {
    match (fields, value) {
        (_, Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                walk(fields, item, &format!("{path}[{i}]"), out);
            }
        }
        (Value::Object(fields), Value::Object(map)) => walk_map(fields, map, path, out),
        _ => {}
    }
}

fn walk_map(
    fields: &Map<String, Value>,
    map: &Map<String, Value>,
    path: &str,
    out: &mut Vec<UnknownField>,
) {
    for (name, value) in map {
        let path = format!("{path}.{name}");
        match fields.get(name).or_else(|| fields.get("*")) {
            Some(below) => walk(below, value, &path, out),
            None => out.push(UnknownField {
                path,
                name: name.clone(),
                known: fields.keys().cloned().collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_istio_does_not_have_are_found() {
        let paths = |object: Value| -> Vec<String> {
            let found = unknown_fields(&object);
            found.into_iter().map(|f| f.path).collect()
        };
        let service = |version: &str, spec: Value| json!({"apiVersion": format!("networking.istio.io/{version}"), "kind": "VirtualService", "spec": spec});
        let good = json!({"hosts": ["a"], "http": [{"match": [{"uri": {"prefix": "/"}, "headers": {"any-name": {"exact": "x"}}}],
            "route": [{"destination": {"host": "a", "port": {"number": 1}}, "weight": 1}], "timeout": "1s"}]});
        assert_eq!(paths(service("v1beta1", good)), Vec::<String>::new());
        let bad = json!({"host": ["a"], "http": [{}, {"match": [{"url": {}, "headers": {"x": {"exct": "y"}}}]}]});
        assert_eq!(
            paths(service("v1", bad)),
            [
                "spec.host",
                "spec.http[1].match[0].headers.x.exct",
                "spec.http[1].match[0].url"
            ]
        );
        assert_eq!(
            paths(json!({"apiVersion": "v1", "kind": "Service", "spec": {"x": 1}})),
            Vec::<String>::new()
        );
        let filter = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "spec": {"configPatches": [{"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": {"any": {"thing": 1}}}, "mtch": {}}]}});
        assert_eq!(paths(filter), ["spec.configPatches[0].mtch"]);
    }
}
