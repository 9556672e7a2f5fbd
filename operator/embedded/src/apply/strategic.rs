//! Strategic merge patch for built-in kinds: keyed lists merge, `$patch` directives are obeyed.

use serde_json::{Map, Value};

use super::fields::element_of;
use super::shape::Shape;
use crate::schema::ListType;

/// Applies a strategic merge patch to a value.
pub(crate) fn strategic_merge(target: &mut Value, patch: &Value, shape: Shape<'_>) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = Value::Object(without_directives(patch));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            delete_items(map.get_mut(list), value);
        } else if !name.starts_with('$') {
            merge_field(map, name, value, shape.field(name));
        }
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            reorder(map.get_mut(list), order, shape.field(list));
        }
    }
}

fn merge_field(map: &mut Map<String, Value>, name: &str, value: &Value, shape: Shape<'_>) {
    match value {
        Value::Null => {
            map.remove(name);
        }
        Value::Object(_) => {
            let child = map.entry(name.to_owned()).or_insert(Value::Null);
            strategic_merge(child, value, shape);
        }
        Value::Array(items) if shape.list_type() != ListType::Atomic => {
            let child = map
                .entry(name.to_owned())
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = child {
                merge_items(list, items, shape);
            }
        }
        _ => {
            map.insert(name.to_owned(), value.clone());
        }
    }
}

fn merge_items(list: &mut Vec<Value>, items: &[Value], shape: Shape<'_>) {
    let directive =
        |item: &Value, what: &str| item.get("$patch").and_then(Value::as_str) == Some(what);
    if items.iter().any(|i| directive(i, "replace")) {
        *list = items
            .iter()
            .filter(|i| !directive(i, "replace"))
            .cloned()
            .collect();
        return;
    }
    for item in items {
        let element = element_of(item, shape);
        let at = list.iter().position(|i| element_of(i, shape) == element);
        match at {
            Some(at) if directive(item, "delete") => {
                list.remove(at);
            }
            Some(at) if item.is_object() => strategic_merge(&mut list[at], item, shape.item()),
            None if !directive(item, "delete") => list.push(item.clone()),
            _ => {}
        }
    }
}

fn delete_items(list: Option<&mut Value>, gone: &Value) {
    if let (Some(Value::Array(list)), Value::Array(gone)) = (list, gone) {
        list.retain(|item| !gone.contains(item));
    }
}

fn reorder(list: Option<&mut Value>, order: &Value, shape: Shape<'_>) {
    if let (Some(Value::Array(list)), Value::Array(order)) = (list, order) {
        let order: Vec<String> = order.iter().map(|o| element_of(o, shape)).collect();
        list.sort_by_key(|item| {
            let element = element_of(item, shape);
            order
                .iter()
                .position(|o| *o == element)
                .unwrap_or(usize::MAX)
        });
    }
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keyed_lists_merge_and_items_are_deleted() {
        let mut service = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        let patch = json!({"spec": {"$setElementOrder/ports": [{"port": 82}, {"port": 80}],
            "ports": [{"port": 82, "name": "n"}, {"port": 81, "$patch": "delete"}]}});
        strategic_merge(&mut service, &patch, Shape::root(None, "Service"));
        assert_eq!(
            service,
            json!({"spec": {"ports": [{"port": 82, "name": "n"}, {"port": 80, "protocol": "TCP"}]}})
        );
    }
}
