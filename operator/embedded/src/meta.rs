//! Reading and writing `metadata` of untyped objects.

use serde_json::{Map, Value};

/// A string field of `metadata`, if it is there and not empty.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get(field)?
        .as_str()
        .filter(|s| !s.is_empty())
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "name").unwrap_or_default()
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "namespace").unwrap_or_default()
}

pub(crate) fn uid(object: &Value) -> Option<&str> {
    text(object, "uid")
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    text(object, "deletionTimestamp").is_some()
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    strings(object.pointer("/metadata/finalizers"))
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .map(|a| a.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub(crate) fn owner_uids(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .map(|a| {
            a.iter()
                .filter_map(|r| r.get("uid").and_then(Value::as_str))
                .collect()
        })
        .unwrap_or_default()
}

/// `metadata` as a map; made if it is missing.
pub(crate) fn of(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// A field as a map; made if it is missing or not a map.
pub(crate) fn child<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    as_map(
        as_map(object)
            .entry(field.to_owned())
            .or_insert(Value::Null),
    )
}

/// The value as a map; replaced by an empty one if it is something else.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made a map above"),
    }
}

pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    of(object).insert(field.to_owned(), value);
}

/// Copies a metadata field from `from`, or removes it where `from` has none.
pub(crate) fn copy(object: &mut Value, from: &Value, field: &str) {
    match from.get("metadata").and_then(|m| m.get(field)) {
        Some(value) => set(object, field, value.clone()),
        None => {
            of(object).remove(field);
        }
    }
}

/// Sets or removes a top-level field.
pub(crate) fn put_field(object: &mut Value, field: &str, value: Option<&Value>) {
    let map = as_map(object);
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}
