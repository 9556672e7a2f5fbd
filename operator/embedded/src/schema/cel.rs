//! CEL rules (`x-kubernetes-validations`), compiled once per CRD version.

use std::fmt;

use kube_cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use crate::error::Cause;

/// The compiled rules of one schema.
pub(crate) struct Rules {
    compiled: CompiledSchema,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("any", &self.any()).finish()
    }
}

thread_local! {
    // Building a validator registers some hundred functions; it is not `Sync`, so each thread keeps its own.
    static VALIDATOR: Validator = Validator::new();
}

impl Rules {
    pub(crate) fn compile(schema: &Value) -> Self {
        Self {
            compiled: compile_schema(&with_doubled_underscores(schema)),
        }
    }

    /// Whether there is any rule.
    pub(crate) fn any(&self) -> bool {
        any(&self.compiled)
    }

    /// Rules that do not compile.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        problems(&self.compiled, &mut found);
        found
    }

    /// Evaluates all rules; `old` makes transition rules apply.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let result = VALIDATOR.with(|v| v.validate_compiled(&self.compiled, object, old));
        let Err(errors) = result else {
            return Vec::new();
        };
        errors
            .into_iter()
            .map(|error| {
                let kind = type_at(object, &error.field_path);
                let message = match error.kind {
                    ErrorKind::ValidationFailure if error.message.is_empty() => {
                        format!("failed rule: {}", error.rule)
                    }
                    _ => error.message,
                };
                let reason = error.reason.as_deref().unwrap_or("FieldValueInvalid");
                let text = match reason {
                    "FieldValueRequired" => format!("Required value: {message}"),
                    "FieldValueForbidden" => format!("Forbidden: {message}"),
                    "FieldValueDuplicate" => format!("Duplicate value: \"{kind}\": {message}"),
                    _ => format!("Invalid value: \"{kind}\": {message}"),
                };
                let field = if error.field_path.is_empty() {
                    "<nil>".to_owned()
                } else {
                    error.field_path
                };
                Cause::new(reason, field, text)
            })
            .collect()
    }
}

/// kube-cel 0.8 writes a property `a_b` as `a__b`, a real API server leaves it as it is (only `__` is escaped there), so
/// rules that select such a property are rewritten for kube-cel.
fn with_doubled_underscores(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let value = match (key.as_str(), value.as_str()) {
                    ("rule" | "messageExpression", Some(text)) => {
                        Value::String(double_underscores(text))
                    }
                    _ => with_doubled_underscores(value),
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(with_doubled_underscores).collect(),
        other => other.clone(),
    }
}

/// Doubles underscores in selected fields: not in string literals, not in calls such as `.exists_one(`.
fn double_underscores(rule: &str) -> String {
    let mut out = String::with_capacity(rule.len());
    let mut quote: Option<char> = None;
    let mut chars = rule.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        out.push(c);
        match quote {
            Some(_) if c == '\\' => out.extend(chars.next().map(|(_, escaped)| escaped)),
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '.' => {
                let rest = rule.get(at + 1..).unwrap_or_default();
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                let (name, after) = rest.split_at(end);
                let call = after.trim_start().starts_with('(');
                // `__` is the mark of a name that the author escaped, such as `foo__dash__bar`.
                if name.contains('_') && !name.contains("__") && !name.starts_with('_') && !call {
                    out.push_str(&name.replace('_', "__"));
                    for _ in name.chars() {
                        chars.next();
                    }
                }
            }
            Some(_) | None => {}
        }
    }
    out
}

fn children(schema: &CompiledSchema) -> impl Iterator<Item = &CompiledSchema> {
    schema
        .properties
        .values()
        .chain(schema.items.as_deref())
        .chain(schema.additional_properties.as_deref())
        .chain(&schema.all_of)
        .chain(&schema.any_of)
        .chain(&schema.one_of)
}

fn any(schema: &CompiledSchema) -> bool {
    !schema.validations.is_empty() || children(schema).any(any)
}

fn problems(schema: &CompiledSchema, found: &mut Vec<String>) {
    found.extend(schema.compilation_errors().iter().map(ToString::to_string));
    for child in children(schema) {
        problems(child, found);
    }
    found.sort();
}

/// The type name that the real API server shows instead of the value.
fn type_at(object: &Value, path: &str) -> &'static str {
    let mut at = Some(object);
    for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
        at = match step.strip_suffix(']').map(str::parse::<usize>) {
            Some(Ok(index)) => at.and_then(|v| v.get(index)),
            _ => at.and_then(|v| v.get(step.trim_end_matches(']'))),
        };
    }
    match at {
        Some(Value::String(_)) => "string",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Array(_)) => "array",
        Some(Value::Number(n)) if n.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Null) => "null",
        Some(Value::Object(_)) | None => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_with_underscores_are_seen_by_rules() {
        for (rule, want) in [
            ("self.a_b > 1", "self.a__b > 1"),
            (
                "has(self.a_b) && self.l.exists_one(x, x.c_d == '.e_f')",
                "has(self.a__b) && self.l.exists_one(x, x.c__d == '.e_f')",
            ),
            (
                "self.a__dash__b == 'it\\'s.x_y'",
                "self.a__dash__b == 'it\\'s.x_y'",
            ),
        ] {
            assert_eq!(double_underscores(rule), want);
        }
        let rules = Rules::compile(
            &json!({"type": "object", "properties": {"a_b": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.a_b > 1", "message": "too small"}]}),
        );
        assert!(rules.check(&json!({"a_b": 2}), None).is_empty());
        let causes = rules.check(&json!({"a_b": 1}), None);
        assert_eq!(causes[0].message, "Invalid value: \"object\": too small");
    }
}
