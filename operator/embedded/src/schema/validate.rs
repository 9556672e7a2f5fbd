//! Checks an object against its schema, with the messages of the real API server.

use serde_json::{Map, Value};

use super::{ListType, Schema, join};
use crate::error::Cause;

/// All violations, in document order.
pub(crate) fn validate(schema: &Schema, object: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    node(schema, object, "", &mut found);
    found
}

fn node(schema: &Schema, value: &Value, path: &str, found: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !type_matches(schema, value) {
        found.push(wrong_type(schema, value, path));
        return;
    }
    if !schema.enumeration.is_empty() && !schema.enumeration.contains(value) {
        let allowed: Vec<String> = schema.enumeration.iter().map(Value::to_string).collect();
        found.push(Cause::new(
            "FieldValueNotSupported",
            path,
            format!(
                "Unsupported value: {value}: supported values: {}",
                allowed.join(", ")
            ),
        ));
    }
    match value {
        Value::String(text) => string(schema, text, path, found),
        Value::Number(number) => {
            if let Some(n) = number.as_f64() {
                numeric(schema, value, n, path, found);
            }
        }
        Value::Array(items) => array(schema, items, path, found),
        Value::Object(map) => object(schema, map, path, found),
        _ => {}
    }
    combined(schema, value, path, found);
}

fn type_matches(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.as_i64().is_some();
    }
    match schema.kind.as_str() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(schema: &Schema, value: &Value, path: &str) -> Cause {
    let have = type_name(value);
    let want = if schema.int_or_string {
        "integer,string"
    } else {
        &schema.kind
    };
    Cause::new(
        "FieldValueTypeInvalid",
        path,
        format!("Invalid value: \"{have}\": {path} in body must be of type {want}: \"{have}\""),
    )
}

fn invalid(value: &Value, path: &str, what: &str) -> Cause {
    Cause::new(
        "FieldValueInvalid",
        path,
        format!("Invalid value: {value}: {path} in body {what}"),
    )
}

fn string(schema: &Schema, text: &str, path: &str, found: &mut Vec<Cause>) {
    let value = || Value::String(text.to_owned());
    let length = text.chars().count() as u64;
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        found.push(Cause::new(
            "FieldValueTooLong",
            path,
            format!("Too long: may not be more than {max} bytes"),
        ));
    }
    if let Some(min) = schema.min_length.filter(|min| length < *min) {
        found.push(invalid(
            &value(),
            path,
            &format!("should be at least {min} chars long"),
        ));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|p| !p.is_match(text)) {
        found.push(invalid(
            &value(),
            path,
            &format!("should match '{pattern}'"),
        ));
    }
    let format_ok = match schema.format.as_str() {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    };
    if !format_ok {
        let what = format!("must be of type {}: {text:?}", schema.format);
        found.push(invalid(&value(), path, &what));
    }
}

fn numeric(schema: &Schema, value: &Value, n: f64, path: &str, found: &mut Vec<Cause>) {
    if let Some(max) = schema.maximum {
        let (bad, or_equal) = if schema.exclusive_maximum {
            (n >= max, "")
        } else {
            (n > max, " or equal to")
        };
        if bad {
            found.push(invalid(
                value,
                path,
                &format!("should be less than{or_equal} {max}"),
            ));
        }
    }
    if let Some(min) = schema.minimum {
        let (bad, or_equal) = if schema.exclusive_minimum {
            (n <= min, "")
        } else {
            (n < min, " or equal to")
        };
        if bad {
            found.push(invalid(
                value,
                path,
                &format!("should be greater than{or_equal} {min}"),
            ));
        }
    }
    if let Some(step) = schema.multiple_of.filter(|step| (n / step).fract() != 0.0) {
        found.push(invalid(
            value,
            path,
            &format!("should be a multiple of {step}"),
        ));
    }
    let fits = match schema.format.as_str() {
        "int32" => i32::try_from(value.as_i64().unwrap_or(i64::MAX)).is_ok(),
        "int64" => value.is_i64(),
        _ => true,
    };
    if schema.kind == "integer" && !fits {
        found.push(invalid(
            value,
            path,
            &format!("must be of type {}", schema.format),
        ));
    }
}

fn array(schema: &Schema, items: &[Value], path: &str, found: &mut Vec<Cause>) {
    let length = items.len() as u64;
    if let Some(max) = schema.max_items.filter(|max| length > *max) {
        found.push(Cause::new(
            "FieldValueTooMany",
            path,
            format!("Too many: {length}: must have at most {max} items"),
        ));
    }
    if let Some(min) = schema.min_items.filter(|min| length < *min) {
        found.push(invalid(
            &Value::from(length),
            path,
            &format!("should have at least {min} items"),
        ));
    }
    duplicates(schema, items, path, found);
    if let Some(of) = schema.items.as_deref() {
        for (i, item) in items.iter().enumerate() {
            node(of, item, &format!("{path}[{i}]"), found);
        }
    }
}

fn duplicates(schema: &Schema, items: &[Value], path: &str, found: &mut Vec<Cause>) {
    let key = |item: &Value| match &schema.list_type {
        ListType::Map(keys) => Some(
            keys.iter()
                .map(|k| item[k].to_string())
                .collect::<Vec<_>>()
                .join(","),
        ),
        ListType::Set => Some(item.to_string()),
        ListType::Atomic if schema.unique_items => Some(item.to_string()),
        ListType::Atomic => None,
    };
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        if let Some(id) = key(item)
            && !seen.insert(id)
        {
            found.push(Cause::new(
                "FieldValueDuplicate",
                format!("{path}[{i}]"),
                format!("Duplicate value: {item}"),
            ));
        }
    }
}

fn object(schema: &Schema, map: &Map<String, Value>, path: &str, found: &mut Vec<Cause>) {
    let count = map.len() as u64;
    if let Some(max) = schema.max_properties.filter(|max| count > *max) {
        found.push(Cause::new(
            "FieldValueTooMany",
            path,
            format!("Too many: {count}: must have at most {max} items"),
        ));
    }
    if let Some(min) = schema.min_properties.filter(|min| count < *min) {
        let what = format!("should have at least {min} properties");
        found.push(invalid(&Value::from(count), path, &what));
    }
    for name in &schema.required {
        if !map.contains_key(name) {
            found.push(Cause::new(
                "FieldValueRequired",
                join(path, name),
                "Required value",
            ));
        }
    }
    for (name, value) in map {
        if path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            continue;
        }
        if let Some(of) = schema.field(name) {
            node(of, value, &join(path, name), found);
        }
    }
}

fn holds(schema: &Schema, value: &Value, path: &str) -> bool {
    let mut found = Vec::new();
    node(schema, value, path, &mut found);
    found.is_empty()
}

fn combined(schema: &Schema, value: &Value, path: &str, found: &mut Vec<Cause>) {
    let mut fail = |what: &str| {
        found.push(Cause::new(
            "FieldValueInvalid",
            path,
            format!("Invalid value: \"{}\": \"{path}\" {what}", type_name(value)),
        ));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(|s| holds(s, value, path)) {
        fail("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() {
        match schema
            .one_of
            .iter()
            .filter(|s| holds(s, value, path))
            .count()
        {
            1 => {}
            0 => fail("must validate one and only one schema (oneOf). Found none valid"),
            n => fail(&format!(
                "must validate one and only one schema (oneOf). Found {n} valid alternatives"
            )),
        }
    }
    if schema.not.as_deref().is_some_and(|s| holds(s, value, path)) {
        fail("must not validate the schema (not)");
    }
    for branch in &schema.all_of {
        node(branch, value, path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(schema: &Value, object: &Value) -> Vec<String> {
        validate(&Schema::parse(schema).unwrap(), object)
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn messages_are_those_of_the_api_server() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "minLength": 2, "pattern": "^x"},
            "n": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 5},
            "e": {"type": "string", "enum": ["A", "B"]},
            "p": {"x-kubernetes-int-or-string": true},
            "l": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "q": {"type": "string", "nullable": true},
        }}}});
        assert_eq!(
            messages(&schema, &json!({"spec": {}})),
            ["spec.a: Required value"]
        );
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": "xy", "e": "C"}})),
            ["spec.e: Unsupported value: \"C\": supported values: \"A\", \"B\""]
        );
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": 1}})),
            [
                "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\""
            ]
        );
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": "xy", "n": 6}})).len(),
            1
        );
        assert_eq!(
            messages(
                &schema,
                &json!({"spec": {"a": "xy", "n": 3_000_000_000_u64}})
            )
            .len(),
            2
        );
        assert_eq!(messages(&schema, &json!({"spec": {"a": "y"}})).len(), 2);
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": "xy", "p": true}})).len(),
            1
        );
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": "xy", "l": ["1", 2]}})).len(),
            2
        );
        assert!(messages(&schema, &json!({"spec": {"a": "xy", "q": null, "p": "1%"}})).is_empty());
    }

    #[test]
    fn combinations() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}}});
        assert!(messages(&schema, &json!({"spec": {"a": 1}})).is_empty());
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": 1, "b": 1}})).len(),
            1
        );
        assert_eq!(
            messages(&schema, &json!({"spec": {"a": 1, "c": 1}})).len(),
            1
        );
    }
}
