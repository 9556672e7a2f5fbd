//! Protobuf's merge rules on the JSON form of Envoy's messages.
//!
//! JSON alone does not tell a message from a map, so the few map fields that patches use are listed here by name.
//! Not covered: a patch that sets another member of a oneof (Envoy then refuses the configuration, nothing is lost
//! silently).

use serde_json::{Map, Value};

/// Fields whose keys are data, not field names, and whose entries are replaced as a whole.
const MAP_FIELDS: [&str; 6] = [
    "filter_metadata",
    "typed_filter_metadata",
    "typed_per_filter_config",
    "typed_extension_protocol_options",
    "per_filter_config",
    "cluster_name_by_alias",
];

/// The end of a TypedStruct's type, of both packages that have one.
const TYPED_STRUCT: &str = ".v1.TypedStruct";
const XDS_TYPED_STRUCT: &str = ".v3.TypedStruct";

/// Two messages of different types cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeMismatch {
    pub(crate) base: String,
    pub(crate) patch: String,
}

/// Gives every field name its snake_case form. Protobuf's JSON accepts both spellings of a field, so both must be one
/// key before messages can be merged. Keys of maps and the content of a TypedStruct are data and stay as they are.
pub(crate) fn snake_case(message: &Value) -> Value {
    match message {
        Value::Array(items) => Value::Array(items.iter().map(snake_case).collect()),
        Value::Object(fields) => {
            let opaque = is_typed_struct(message);
            let field = |(key, value): (&String, &Value)| {
                let name = snake_name(key);
                let value = match value {
                    Value::Object(entries) if is_map_field(&name) => Value::Object(
                        entries
                            .iter()
                            .map(|(key, entry)| (key.clone(), map_entry(&name, entry)))
                            .collect(),
                    ),
                    data if opaque && name == "value" => data.clone(),
                    other => snake_case(other),
                };
                (name, value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        scalar => scalar.clone(),
    }
}

/// Merges `patch` into `base`, both with snake_case names: messages deep, lists by appending, scalars by replacing.
/// A nested `Any` (an object with `@type`) is replaced, since protobuf sees only its bytes.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) if !patch.contains_key("@type") => {
            merge_fields(base, patch);
        }
        (Value::Array(base), Value::Array(patch)) => base.extend(patch.iter().cloned()),
        (base, patch) => *base = patch.clone(),
    }
}

/// Merges a filter's own `typed_config`, which Istio decodes before it merges.
pub(crate) fn merge_any(base: &mut Value, patch: &Value) -> Result<(), TypeMismatch> {
    let of = |any: &Value| any["@type"].as_str().unwrap_or_default().to_owned();
    let mismatch = TypeMismatch {
        base: of(base),
        patch: of(patch),
    };
    if mismatch.base != mismatch.patch {
        return Err(mismatch);
    }
    let opaque = is_typed_struct(patch);
    let (Value::Object(base), Value::Object(patch)) = (base, patch) else {
        return Err(mismatch);
    };
    if opaque {
        // The content is a map from names to values for protobuf: entries of the first level are replaced.
        for (key, value) in patch {
            match (base.get_mut(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) if key == "value" => {
                    old.extend(
                        new.iter()
                            .map(|(name, entry)| (name.clone(), entry.clone())),
                    );
                }
                _ => {
                    base.insert(key.clone(), value.clone());
                }
            }
        }
    } else {
        merge_fields(base, patch);
    }
    Ok(())
}

fn merge_fields(base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (base.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if is_map_field(key) => {
                old.extend(
                    new.iter()
                        .map(|(name, entry)| (name.clone(), entry.clone())),
                );
            }
            (Some(old), _) => merge(old, value),
            (None, _) => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn is_map_field(name: &str) -> bool {
    MAP_FIELDS.contains(&name)
}

/// The entries of the metadata and alias maps are data all the way down, those of the others are messages.
fn map_entry(field: &str, entry: &Value) -> Value {
    if matches!(
        field,
        "filter_metadata" | "cluster_name_by_alias" | "per_filter_config"
    ) {
        entry.clone()
    } else {
        snake_case(entry)
    }
}

fn is_typed_struct(any: &Value) -> bool {
    any["@type"]
        .as_str()
        .is_some_and(|name| name.ends_with(TYPED_STRUCT) || name.ends_with(XDS_TYPED_STRUCT))
}

/// `statPrefix` -> `stat_prefix`. What is no lowerCamelCase name (`@type`, dotted names) stays as it is.
fn snake_name(name: &str) -> String {
    if !name.chars().all(|c| c.is_ascii_alphanumeric())
        || name.starts_with(|c: char| c.is_ascii_uppercase())
    {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_become_snake_case_except_where_keys_are_data() {
        let patch = json!({
            "typedPerFilterConfig": {"myFilter": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "typeUrl": "x", "value": {"statPrefix": "kept"}}},
            "metadata": {"filterMetadata": {"aB": {"cD": 1}}},
            "route": {"rateLimits": [{"remoteAddress": {}}]},
        });
        assert_eq!(
            snake_case(&patch),
            json!({
                "typed_per_filter_config": {"myFilter": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "type_url": "x", "value": {"statPrefix": "kept"}}},
                "metadata": {"filter_metadata": {"aB": {"cD": 1}}},
                "route": {"rate_limits": [{"remote_address": {}}]},
            })
        );
    }

    #[test]
    fn messages_merge_lists_append_scalars_and_map_entries_replace() {
        let mut base = json!({
            "route": {"cluster": "a", "rate_limits": [1]},
            "typed_per_filter_config": {"f": {"@type": "t", "old": 1}, "g": {"@type": "t"}},
        });
        merge(
            &mut base,
            &json!({
                "route": {"cluster": "b", "rate_limits": [2]},
                "typed_per_filter_config": {"f": {"@type": "t", "new": 2}},
            }),
        );
        assert_eq!(
            base,
            json!({
                "route": {"cluster": "b", "rate_limits": [1, 2]},
                "typed_per_filter_config": {"f": {"@type": "t", "new": 2}, "g": {"@type": "t"}},
            })
        );
    }

    #[test]
    fn a_filters_own_config_merges_only_with_its_own_type() {
        let mut base = json!({"@type": "hcm", "stat_prefix": "a", "http_filters": [1]});
        merge_any(&mut base, &json!({"@type": "hcm", "http_filters": [2]})).unwrap();
        assert_eq!(
            base,
            json!({"@type": "hcm", "stat_prefix": "a", "http_filters": [1, 2]})
        );
        let error = merge_any(&mut base, &json!({"@type": "tcp"})).unwrap_err();
        assert_eq!((error.base.as_str(), error.patch.as_str()), ("hcm", "tcp"));
    }

    #[test]
    fn typed_structs_replace_entries_of_the_first_level() {
        let kind = "type.googleapis.com/xds.type.v3.TypedStruct";
        let mut base = json!({"@type": kind, "type_url": "u", "value": {"a": {"x": 1}, "b": 1}});
        merge_any(
            &mut base,
            &json!({"@type": kind, "type_url": "u", "value": {"a": {"y": 2}}}),
        )
        .unwrap();
        assert_eq!(
            base,
            json!({"@type": kind, "type_url": "u", "value": {"a": {"y": 2}, "b": 1}})
        );
    }
}
