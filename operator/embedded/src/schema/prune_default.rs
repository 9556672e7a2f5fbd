//! Removing undeclared fields and filling in defaults.

use serde_json::{Map, Value};

use super::{Schema, join};
use crate::spelling::nearest;

/// Fields that every object has, whatever its schema says.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Fields of `metadata`.
const METADATA_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// So many known fields are named where none is near.
const NAMED: usize = 12;

/// A field that the schema does not declare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) path: String,
    name: String,
    /// The fields that are known in its place.
    known: Vec<String>,
}

impl Unknown {
    fn new<'a>(path: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self {
            path: join(path, name),
            name: name.to_owned(),
            known: known.map(str::to_owned).collect(),
        }
    }

    /// What the field may be meant for.
    pub(crate) fn hint(&self) -> String {
        let known = self.known.iter().map(String::as_str);
        if let Some(near) = nearest(&self.name, known) {
            return format!("unknown field, did you mean {near}?");
        }
        match self.known.as_slice() {
            [] => "unknown field: no field is known here".to_owned(),
            all if all.len() <= NAMED => {
                format!("unknown field: known here are {}", all.join(", "))
            }
            _ => "unknown field: remove it, or look it up in the documentation".to_owned(),
        }
    }
}

/// Removes fields that the schema does not declare; returns them.
pub(crate) fn prune(schema: &Schema, object: &mut Value) -> Vec<Unknown> {
    let mut unknown = Vec::new();
    prune_node(schema, object, "", true, &mut unknown);
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.retain(|name, _| {
            let known = METADATA_FIELDS.contains(&name.as_str());
            if !known {
                unknown.push(Unknown::new("metadata", name, METADATA_FIELDS.into_iter()));
            }
            known
        });
    }
    unknown
}

fn prune_node(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    root: bool,
    unknown: &mut Vec<Unknown>,
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
    unknown: &mut Vec<Unknown>,
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
                let known = schema.properties.keys().map(String::as_str);
                unknown.push(Unknown::new(path, name, known));
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
        let mut o = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x", "lables": {}}, "extra": 1,
            "spec": {"foo": 1, "free": {"any": 1}, "list": [{"a": "1", "b": 2}]}});
        let unknown = prune(&schema(), &mut o);
        let paths: Vec<&str> = unknown.iter().map(|u| u.path.as_str()).collect();
        assert_eq!(
            paths,
            ["extra", "spec.foo", "spec.list[0].b", "metadata.lables"]
        );
        assert_eq!(
            unknown[1].hint(),
            "unknown field: known here are free, list, map, n"
        );
        assert_eq!(unknown[3].hint(), "unknown field, did you mean labels?");
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
