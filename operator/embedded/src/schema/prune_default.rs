//! Removing undeclared fields and filling in defaults.

use serde_json::{Map, Value};

use super::{Schema, join};

/// Fields that every object has, whatever its schema says.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes fields that the schema does not declare; returns their paths.
pub(crate) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_node(schema, object, "", true, &mut unknown);
    unknown
}

fn prune_node(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    root: bool,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => prune_map(schema, map, path, root, unknown),
        Value::Array(items) => {
            if let Some(of) = schema.items.as_deref() {
                for (i, item) in items.iter_mut().enumerate() {
                    prune_node(of, item, &format!("{path}[{i}]"), false, unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_map(
    schema: &Schema,
    map: &mut Map<String, Value>,
    path: &str,
    root: bool,
    unknown: &mut Vec<String>,
) {
    let keep = schema.preserve_unknown || schema.additional_any;
    let object = root || schema.embedded;
    map.retain(|name, child| {
        if object && OBJECT_FIELDS.contains(&name.as_str()) {
            return true;
        }
        match schema.field(name) {
            Some(of) => {
                prune_node(of, child, &join(path, name), false, unknown);
                true
            }
            None if keep => true,
            None => {
                unknown.push(join(path, name));
                false
            }
        }
    });
}

/// Fills in the defaults of absent fields, and of nulls where null is not allowed; such a null without a default goes.
pub(crate) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, of) in &schema.properties {
                let absent = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !of.nullable,
                    Some(_) => false,
                };
                if absent && let Some(value) = &of.default {
                    map.insert(name.clone(), value.clone());
                }
                if let Some(child) = map.get_mut(name) {
                    default(of, child);
                }
            }
            if let Some(of) = schema.additional.as_deref() {
                for (name, child) in map.iter_mut() {
                    if !schema.properties.contains_key(name) {
                        default(of, child);
                    }
                }
            }
            map.retain(|name, child| {
                !child.is_null() || schema.field(name).is_none_or(|of| of.nullable)
            });
        }
        Value::Array(items) => {
            if let Some(of) = schema.items.as_deref() {
                for item in items {
                    default(of, item);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::parse(&json!({
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {
                "n": {"type": "integer", "default": 3},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string", "default": "d"}}}},
            }}},
        }))
        .unwrap()
    }

    #[test]
    fn prunes_and_names_the_paths() {
        let mut o = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "extra": 1,
            "spec": {"foo": 1, "free": {"any": 1}, "list": [{"a": "1", "b": 2}]}});
        let unknown = prune(&schema(), &mut o);
        assert_eq!(unknown, ["extra", "spec.foo", "spec.list[0].b"]);
        assert_eq!(
            o,
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"free": {"any": 1}, "list": [{"a": "1"}]}})
        );
    }

    #[test]
    fn fills_absent_and_null_fields() {
        let mut o = json!({"spec": {"n": null, "map": {"k": {}}}});
        default(&schema(), &mut o);
        assert_eq!(o, json!({"spec": {"n": 3, "map": {"k": {"v": "d"}}}}));
        let mut null = json!({"spec": {"list": null, "unknown": null, "map": {"k": null}}});
        default(&schema(), &mut null);
        assert_eq!(null, json!({"spec": {"n": 3, "unknown": null, "map": {}}}));
        let mut absent = json!({});
        default(&schema(), &mut absent);
        assert_eq!(absent, json!({}));
    }
}
