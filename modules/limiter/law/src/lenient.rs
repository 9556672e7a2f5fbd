//! Measurements and configuration as JSON in which anything may be missing, null or no number: such a value is a missing metric.

use serde_json::{Map, Value};

use crate::{Config, Tick};

/// Reads one tick. Only a line that is no JSON object is an error.
///
/// # Errors
/// The text says what is wrong with the line.
pub fn tick(line: &str) -> Result<Tick, String> {
    let value: Value =
        serde_json::from_str(&finite(line)).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(mut object) = value else {
        return Err("a tick must be a JSON object".to_owned());
    };
    numbers(&mut object, &["as_of"]);
    let t = object.get("t").and_then(number).unwrap_or(0.0);
    object.insert("t".to_owned(), t.into());
    for (group, texts) in [
        ("apis", &["path", "tier"][..]),
        ("pods", &["service", "ready"][..]),
    ] {
        let mut kept = Map::new();
        if let Some(Value::Object(entries)) = object.remove(group) {
            for (name, entry) in entries {
                if let Value::Object(mut entry) = entry {
                    entry.retain(|key, value| {
                        texts.contains(&key.as_str()) || number(value).is_some()
                    });
                    tidy(&mut entry);
                    kept.insert(name, Value::Object(entry));
                }
            }
        }
        object.insert(group.to_owned(), Value::Object(kept));
    }
    let in_force = object.remove("in_force").and_then(outputs);
    object.insert("in_force".to_owned(), in_force.unwrap_or(Value::Null));
    serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())
}

/// Reads the configuration; what is missing or null has its default.
///
/// # Errors
/// The text names the key that has another type.
pub fn config(value: &Value) -> Result<Config, String> {
    let mut object = match value {
        Value::Object(object) => object.clone(),
        Value::Null => Map::new(),
        _ => return Err("config must be an object".to_owned()),
    };
    object.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(object)).map_err(|error| format!("config: {error}"))
}

/// Some writers put `NaN` and `Infinity`, which are no JSON, where a number is.
fn finite(line: &str) -> String {
    if !line.contains("NaN") && !line.contains("Infinity") {
        return line.to_owned();
    }
    let mut text = String::with_capacity(line.len());
    let mut quoted = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !quoted && rest.starts_with(word));
        if let Some(word) = word {
            text.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        if c == '\\' {
            let two = rest.chars().take(2).map(char::len_utf8).sum();
            text.push_str(&rest[..two]);
            rest = &rest[two..];
            continue;
        }
        quoted ^= c == '"';
        text.push(c);
        rest = &rest[c.len_utf8()..];
    }
    text
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn numbers(object: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        if object
            .get(*key)
            .is_some_and(|value| number(value).is_none())
        {
            object.remove(*key);
        }
    }
}

/// Keeps texts where texts are expected.
fn tidy(entry: &mut Map<String, Value>) {
    if entry.get("path").is_some_and(|path| {
        path.as_array()
            .is_none_or(|path| !path.iter().all(Value::is_string))
    }) {
        entry.remove("path");
    }
    if entry
        .get("service")
        .is_some_and(|service| !service.is_string())
    {
        entry.remove("service");
    }
    if entry.get("ready").is_some_and(|ready| !ready.is_boolean()) {
        entry.remove("ready");
    }
}

/// Limits with numbers only.
fn outputs(value: Value) -> Option<Value> {
    let Value::Object(mut object) = value else {
        return None;
    };
    numbers(&mut object, &["limit", "bucket_s"]);
    for key in ["per_pod", "per_api"] {
        if let Some(Value::Object(mut limits)) = object.remove(key) {
            limits.retain(|_, limit| number(limit).is_some());
            object.insert(key.to_owned(), Value::Object(limits));
        }
    }
    Some(Value::Object(object))
}
