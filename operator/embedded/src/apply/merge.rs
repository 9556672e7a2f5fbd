//! Merging an applied configuration into a live object, and taking fields away again.

use serde_json::Value;

use super::fields::{FieldSet, element_of};
use super::shape::Shape;
use crate::schema::ListType;

/// Lays `config` over `live`.
pub(crate) fn overlay(live: &mut Value, config: &Value, shape: Shape<'_>) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !shape.is_atomic_map() => {
            for (name, value) in config {
                match live.get_mut(name) {
                    Some(mine) => overlay(mine, value, shape.field(name)),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config)) if shape.list_type() != ListType::Atomic => {
            let keyed = matches!(shape.list_type(), ListType::Map(_));
            for item in config {
                let element = element_of(item, shape);
                match live.iter_mut().find(|i| element_of(i, shape) == element) {
                    Some(mine) if keyed => overlay(mine, item, shape.item()),
                    Some(_) => {}
                    None => live.push(item.clone()),
                }
            }
        }
        (live, config) => *live = config.clone(),
    }
}

/// Removes the members of `gone` from a value, except what `keep` (or something below it) still owns.
/// Returns whether the value itself has to go.
pub(crate) fn take_away(
    value: &mut Value,
    gone: &FieldSet,
    keep: Option<&FieldSet>,
    shape: Shape<'_>,
) -> bool {
    if gone.member && keep.is_none_or(FieldSet::is_empty) {
        return true;
    }
    let had = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => return false,
    };
    let below = |element: &str| keep.and_then(|k| k.children.get(element));
    match value {
        Value::Object(map) if !shape.is_atomic_map() => {
            map.retain(|name, child| {
                let element = format!("f:{name}");
                gone.children
                    .get(&element)
                    .is_none_or(|g| !take_away(child, g, below(&element), shape.field(name)))
            });
        }
        Value::Array(items) if shape.list_type() != ListType::Atomic => {
            items.retain_mut(|item| {
                let element = element_of(item, shape);
                gone.children
                    .get(&element)
                    .is_none_or(|g| !take_away(item, g, below(&element), shape.item()))
            });
        }
        _ => {}
    }
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    had && empty && keep.is_none_or(FieldSet::is_empty)
}
