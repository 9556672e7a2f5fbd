//! Label and field selectors.

use serde_json::Value;

use crate::error::ApiError;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// What a list or a watch selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Vec<String>, String, bool)>,
}

/// Fields that every kind can be selected by, and those of built-in kinds.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "status.phase",
    "spec.nodeName",
    "spec.restartPolicy",
    "status.podIP",
    "type",
    "reason",
    "spec.unschedulable",
];

impl Selector {
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = split_top(labels)
            .into_iter()
            .map(requirement)
            .collect::<Result<_, _>>()?;
        let fields = split_top(fields)
            .into_iter()
            .map(field)
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can match, if there is one.
    pub(crate) fn single_name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(path, _, equal)| *equal && *path == ["metadata", "name"])
            .map(|(_, value, _)| value.as_str())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels_match(object)
            && self.fields.iter().all(|(path, want, equal)| {
                let mut at = Some(object);
                for step in path {
                    at = at.and_then(|v| v.get(step));
                }
                let have = match at {
                    Some(Value::String(s)) => s.clone(),
                    None | Some(Value::Null) => String::new(),
                    Some(other) => other.to_string(),
                };
                (have == *want) == *equal
            })
    }

    fn labels_match(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.labels.iter().all(|r| {
            let have = labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str);
            match &r.operator {
                Operator::Exists => have.is_some(),
                Operator::Missing => have.is_none(),
                Operator::In(values) => have.is_some_and(|h| values.iter().any(|v| v == h)),
                Operator::NotIn(values) => have.is_none_or(|h| !values.iter().any(|v| v == h)),
            }
        })
    }

    /// Whether the namespace of an object, as a field, can be anything but `namespace`.
    pub(crate) fn excludes_namespace(&self, namespace: &str) -> bool {
        self.fields.iter().any(|(path, v, equal)| {
            *path == ["metadata", "namespace"] && (v == namespace) != *equal
        })
    }
}

/// Splits at commas that are not inside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|p| !p.trim().is_empty());
    parts
}

fn requirement(text: &str) -> Result<Requirement, ApiError> {
    let text = text.trim();
    let of = |key: &str, operator| Requirement {
        key: key.trim().to_owned(),
        operator,
    };
    let parsed = if let Some(key) = text.strip_prefix('!') {
        of(key, Operator::Missing)
    } else if let Some((key, value)) = text.split_once("!=") {
        of(key, Operator::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        of(key, Operator::In(vec![value.trim().to_owned()]))
    } else if let Some((key, values)) = text.split_once(" notin ") {
        of(key, Operator::NotIn(set(text, values)?))
    } else if let Some((key, values)) = text.split_once(" in ") {
        of(key, Operator::In(set(text, values)?))
    } else {
        of(text, Operator::Exists)
    };
    let bad = |c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c));
    if parsed.key.is_empty() || parsed.key.contains(bad) {
        return Err(unparsable(text));
    }
    Ok(parsed)
}

fn set(whole: &str, text: &str) -> Result<Vec<String>, ApiError> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'))
        .ok_or_else(|| unparsable(whole))?;
    Ok(inner.split(',').map(|v| v.trim().to_owned()).collect())
}

fn unparsable(text: &str) -> ApiError {
    ApiError::BadRequest(format!(
        "unable to parse requirement \"{text}\": write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY"
    ))
}

fn field(text: &str) -> Result<(Vec<String>, String, bool), ApiError> {
    let (key, value, equal) = if let Some((k, v)) = text.split_once("!=") {
        (k, v, false)
    } else if let Some((k, v)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (k, v, true)
    } else {
        return Err(ApiError::BadRequest(format!(
            "invalid field selector \"{text}\": write FIELD=VALUE or FIELD!=VALUE"
        )));
    };
    let key = key.trim();
    let of_event = [
        "involvedObject.",
        "regarding.",
        "source",
        "reportingComponent",
    ];
    if !FIELDS.contains(&key) && !of_event.iter().any(|p| key.starts_with(p)) {
        return Err(ApiError::BadRequest(format!(
            "field label not supported: {key}; use metadata.name or metadata.namespace"
        )));
    }
    let path = key.split('.').map(str::to_owned).collect();
    Ok((path, value.trim().to_owned(), equal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_and_equality() {
        let o = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "web"}}});
        for (text, want) in [
            ("app=x", true),
            ("app==y", false),
            ("app in (x, y),tier", true),
            ("app notin (x),tier", false),
            ("missing notin (x)", true),
            ("!missing,app!=z", true),
            ("!app", false),
        ] {
            let s = Selector::parse(text, "").unwrap();
            assert_eq!(s.matches(&o), want, "{text}");
        }
        assert!(Selector::parse("app in x", "").is_err());
        assert!(Selector::parse("", "spec.replicas=1").is_err());
        assert!(Selector::parse("", "metadata.name=a").unwrap().matches(&o));
    }
}
