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
            compiled: compile_schema(schema),
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
                    ErrorKind::ValidationFailure if error.message.is_empty() => format!("failed rule: {}", error.rule),
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
