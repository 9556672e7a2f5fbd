//! `meta.k8s.io/v1` tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jsonpath;
use crate::kinds::{Column, Version};
use crate::reply::partial;

fn columns(version: Option<&Version>) -> &[Column] {
    version.map_or(&[], |v| v.columns.as_slice())
}

/// A table of rows; `header` says whether the columns are described.
pub(crate) fn table(
    version: Option<&Version>,
    rows: &[Value],
    metadata: &Value,
    header: bool,
) -> Value {
    let mut definitions = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })];
    definitions.extend(columns(version).iter().map(|c| {
        let kind = if c.kind == "date" { "string" } else { &c.kind };
        json!({
            "name": c.name, "type": kind, "format": c.format, "description": c.description, "priority": c.priority,
        })
    }));
    if !header {
        definitions.clear();
    }
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The row of one object.
pub(crate) fn row(version: Option<&Version>, object: &Value, now: Timestamp) -> Value {
    let mut cells = vec![json!(crate::meta::name(object))];
    cells.extend(columns(version).iter().map(|c| cell(c, object, now)));
    json!({ "cells": cells, "object": partial(object) })
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = jsonpath::find(object, &column.path);
    match (column.kind.as_str(), found.as_slice()) {
        // kubectl prints "<none>" for an empty string column and "<unknown>" for an unknown age.
        ("date", []) => json!("<unknown>"),
        (_, []) => Value::Null,
        ("date", [first, ..]) => first
            .as_str()
            .and_then(|t| t.parse::<Timestamp>().ok())
            .map_or_else(|| json!("<invalid>"), |at| json!(age(at, now))),
        ("integer" | "number" | "boolean", [first, ..]) => (*first).clone(),
        (_, many) => json!(many.iter().map(|v| text(v)).collect::<Vec<_>>().join(",")),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// An age as kubectl writes it: two units at most, the second only where it still says something.
fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let at = |s: i64| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(s).unwrap());
        assert_eq!(at(59), "59s");
        assert_eq!(at(125), "2m5s");
        assert_eq!(at(3600), "60m");
        assert_eq!(at(4 * 3600 + 60), "4h1m");
        assert_eq!(at(3 * 86400), "3d");
    }
}
