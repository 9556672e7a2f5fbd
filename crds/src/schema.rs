//! Schema parts that several kinds share: null handling, CEL rules, durations, host names.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// A host name; letters of both cases, because Dubbo interfaces serve as hosts.
const HOST_PATTERN: &str =
    "^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*[.]?$";
/// DNS-1123 label, as Istio checks subset names; empty = unset, as in protobuf.
pub(crate) const LABEL_PATTERN: &str = "^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)?$";
const DURATION_PATTERN: &str = "^(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$";

/// One entry of `x-kubernetes-validations`.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// Adds CEL rules to a schema node.
pub(crate) fn add_rules(schema: &mut Schema, rules: Vec<Value>) {
    let list = schema
        .ensure_object()
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.extend(rules);
    }
}

/// Takes `null` out of every property, so that an API server drops nulls as protobuf JSON does ("unset") before rules run.
///
/// Values of maps keep their `null`: in `attributes` it means "is present".
pub(crate) fn no_nulls(schema: &mut Schema) {
    walk(schema.ensure_object());
}

fn walk(node: &mut Map<String, Value>) {
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(types)) = property.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    property.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(values)) = property.get_mut("enum") {
                values.retain(|v| !v.is_null());
            }
            unwrap_any_of(property);
            walk(property);
        }
    }
    for below in ["items", "additionalProperties"] {
        if let Some(Value::Object(below)) = node.get_mut(below) {
            walk(below);
        }
    }
}

/// `anyOf: [X, null]` becomes X; what the node says itself (its description) wins.
fn unwrap_any_of(node: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = node.get("anyOf") else {
        return;
    };
    let real: Vec<Value> = branches
        .iter()
        .filter(|b| b["type"] != "null")
        .cloned()
        .collect();
    if let [Value::Object(only)] = real.as_slice() {
        node.remove("anyOf");
        for (key, value) in only {
            node.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Restricts a string to positive durations as Go writes them.
pub(crate) fn duration(schema: &mut Schema) {
    duration_or_zero(schema);
    add_rules(
        schema,
        vec![rule(
            "self.matches('[1-9]')",
            "this duration must be longer than nothing, for example 100ms, 60s or 1m30s",
        )],
    );
}

/// Restricts a string to durations as Go writes them, `0s` among them.
pub(crate) fn duration_or_zero(schema: &mut Schema) {
    schema.insert("maxLength".into(), json!(32));
    add_rules(
        schema,
        vec![rule(
            &format!("self == '0' || self.matches('{DURATION_PATTERN}')"),
            "a duration is a number with a unit, for example 100ms, 60s or 1m30s",
        )],
    );
}

/// Restricts a string to DNS names; without a rule, because hosts stand in lists of lists.
pub(crate) fn host(schema: &mut Schema) {
    schema.insert("minLength".into(), json!(1));
    schema.insert("maxLength".into(), json!(255));
    schema.insert("pattern".into(), json!(HOST_PATTERN));
}

/// Rule for a short list of hosts named `field`: DNS names, no wildcards, no addresses.
pub(crate) fn hosts_rule(field: &str) -> Value {
    rule(
        &format!(
            "self.{field}.all(h, h.matches('{HOST_PATTERN}') && !h.matches('(^|[.])[0-9]+[.]?$'))"
        ),
        &format!(
            "{field} must be full DNS names of services, for example demo.default.svc.cluster.local: no wildcard, no address"
        ),
    )
}

/// A list of conditions, one of each type: server-side apply merges it by type.
pub(crate) fn conditions(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
}

/// Restricts a string to a label or nothing.
pub(crate) fn label(schema: &mut Schema) {
    schema.insert("maxLength".into(), json!(63));
    schema.insert("pattern".into(), json!(LABEL_PATTERN));
}

/// Takes a number as text too, as protobuf JSON does.
pub(crate) fn number_or_text(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.remove("type");
    object.remove("format");
    object.insert("x-kubernetes-int-or-string".into(), json!(true));
    object.insert("maxLength".into(), json!(10));
    object.insert("pattern".into(), json!("^[0-9]+$"));
}
