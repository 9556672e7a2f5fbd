//! What every write passes: options, identity, pruning, defaulting, validation, CEL, generation.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::apply::{Manager, Scope, Shape};
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::request::{Query, Target};
use crate::schema::{self, Unknown};

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
    /// As strict, and a refusal says what each field may be meant for.
    Explained,
}

/// Options of a write.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
}

impl Options {
    pub(crate) fn parse(query: &Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let validation = match query.get("fieldValidation") {
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                return Err(ApiError::BadRequest(format!(
                    "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        // Without a field manager, the first part of the user agent names the writer.
        let agent = headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split('/').next())
            .unwrap_or("unknown");
        let manager = match query.get("fieldManager") {
            "" => agent.to_owned(),
            name => name.to_owned(),
        };
        Ok(Self {
            dry_run: query.get("dryRun") == "All",
            force: query.flag("force"),
            manager,
            validation,
        })
    }
}

/// Metadata that only the API server writes.
const SERVER_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "selfLink",
];

impl Target {
    pub(crate) fn shape(&self) -> Shape<'_> {
        let schema = self
            .resource
            .version(&self.version)
            .and_then(|v| v.schema.as_ref());
        Shape::root(schema, &self.resource.kind)
    }

    pub(crate) fn scope(&self) -> Scope {
        let has_status = self
            .resource
            .version(&self.version)
            .is_some_and(|v| v.status);
        match (self.status, has_status) {
            (true, _) => Scope::Status,
            (false, true) => Scope::WithoutStatus,
            (false, false) => Scope::Whole,
        }
    }

    pub(crate) fn manager(&self, operation: &str, name: &str) -> Manager {
        Manager {
            operation: operation.to_owned(),
            name: name.to_owned(),
            api_version: self.api_version(),
            subresource: if self.status { "status" } else { "" }.to_owned(),
        }
    }

    /// Checks that the body is about the addressed object, and fills in what the path says.
    pub(crate) fn identify(&self, body: &mut Value) -> Result<(), ApiError> {
        if !body.is_object() {
            return Err(ApiError::BadRequest("the body is not an object".to_owned()));
        }
        for (field, want) in [
            ("apiVersion", self.api_version()),
            ("kind", self.resource.kind.clone()),
        ] {
            let have = body[field].as_str().unwrap_or_default();
            if !have.is_empty() && have != want {
                let what = if field == "kind" {
                    "kind"
                } else {
                    "API version"
                };
                return Err(ApiError::BadRequest(format!(
                    "the {what} in the data ({have}) does not match the expected {what} ({want})"
                )));
            }
            body[field] = json!(want);
        }
        for (field, want, what) in [
            ("namespace", self.namespace.as_deref(), "namespace"),
            ("name", self.name.as_deref(), "name"),
        ] {
            let have = meta::text(body, field).unwrap_or_default();
            match want {
                Some(want) if have.is_empty() => meta::set(body, field, json!(want)),
                Some(want) if have != want => {
                    return Err(ApiError::BadRequest(format!(
                        "the {what} of the provided object ({have}) does not match the {what} sent on the request ({want})"
                    )));
                }
                None if field == "namespace" && !have.is_empty() => {
                    meta::of(body).remove("namespace");
                }
                _ => {}
            }
        }
        check_metadata(body)
    }

    /// Takes from `old` what a client may not change through this door.
    pub(crate) fn carry_over(&self, old: &Value, new: Value) -> Value {
        if self.scope() == Scope::Status {
            let mut result = old.clone();
            meta::put_field(&mut result, "status", new.get("status"));
            meta::copy(&mut result, &new, "managedFields");
            return result;
        }
        let mut result = new;
        if self.scope() == Scope::WithoutStatus {
            meta::put_field(&mut result, "status", old.get("status"));
        }
        for field in SERVER_FIELDS {
            meta::copy(&mut result, old, field);
        }
        result
    }

    /// Prunes, defaults, validates and counts generations.
    pub(crate) fn admit(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        new["apiVersion"] = json!(self.resource.api_version(&self.resource.storage));
        if self.resource.builtin {
            strip_nulls(new);
            crate::builtin::complete(&self.resource, new, old);
        }
        let version = self.served()?;
        if let Some(schema) = &version.schema {
            let unknown = schema::prune(schema, new);
            self.report_unknown(meta::name(new), &unknown, validation, warnings)?;
            schema::default(schema, new);
            let mut causes = schema::validate(schema, new);
            if let (Some(rules), true) = (&version.rules, causes.is_empty()) {
                causes = rules.check(new, old);
            }
            self.refuse(meta::name(new), causes)?;
        }
        self.count_generation(new, old);
        Ok(())
    }

    pub(crate) fn refuse(&self, name: &str, causes: Vec<Cause>) -> Result<(), ApiError> {
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::Invalid {
            subject: self.resource.kind_subject(name),
            causes,
        })
    }

    pub(super) fn report_unknown(
        &self,
        name: &str,
        unknown: &[Unknown],
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let texts = unknown
            .iter()
            .map(|u| format!("unknown field \"{}\"", u.path));
        match validation {
            FieldValidation::Strict if !unknown.is_empty() => Err(ApiError::BadRequest(format!(
                "strict decoding error: {}",
                texts.collect::<Vec<_>>().join(", ")
            ))),
            FieldValidation::Explained => {
                let cause = |u: &Unknown| Cause::new("FieldValueInvalid", &u.path, u.hint());
                self.refuse(name, unknown.iter().map(cause).collect())
            }
            FieldValidation::Warn => {
                warnings.clear();
                warnings.extend(texts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count_generation(&self, new: &mut Value, old: Option<&Value>) {
        if !self.resource.generation {
            return;
        }
        let Some(old) = old else {
            meta::set(new, "generation", json!(1));
            return;
        };
        let before = old.pointer("/metadata/generation").and_then(Value::as_i64);
        let has_status = self.served().is_ok_and(|v| v.status);
        let differs = self.scope() != Scope::Status && {
            let relevant = |name: &str| name != "metadata" && !(has_status && name == "status");
            let fields = |v: &Value| -> Vec<(String, Value)> {
                v.as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| relevant(name))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            };
            fields(new) != fields(old)
        };
        let generation = before.unwrap_or(1) + i64::from(differs);
        meta::set(new, "generation", json!(generation));
    }
}

/// Labels and annotations are maps of strings; anything else breaks every typed client.
fn check_metadata(body: &Value) -> Result<(), ApiError> {
    for field in ["labels", "annotations"] {
        let Some(value) = body.pointer(&format!("/metadata/{field}")) else {
            continue;
        };
        let ok = value.is_null()
            || value
                .as_object()
                .is_some_and(|m| m.values().all(Value::is_string));
        if !ok {
            return Err(ApiError::BadRequest(format!(
                "metadata.{field}: must be a map of strings; quote numbers and booleans"
            )));
        }
    }
    Ok(())
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Checks a name: DNS-1123 subdomain, or a stricter label where the kind asks for it.
pub(super) fn check_name(target: &Target, name: &str) -> Result<(), ApiError> {
    // As the API server has it: only whole labels end at 63 characters, parts of a subdomain do not.
    let part = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let label = |text: &str| text.len() <= 63 && part(text);
    let kind = target.resource.kind.as_str();
    let (ok, what) = match (target.resource.builtin, kind) {
        (true, "Namespace") => (label(name), "a lowercase RFC 1123 label"),
        (true, "Service") => (
            label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
            "a DNS-1035 label",
        ),
        _ => (
            name.len() <= 253 && name.split('.').all(part),
            "a lowercase RFC 1123 subdomain",
        ),
    };
    if ok {
        return Ok(());
    }
    target.refuse(
        name,
        vec![Cause::new(
            "FieldValueInvalid",
            "metadata.name",
            format!(
                "Invalid value: \"{name}\": {what} must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
            ),
        )],
    )
}
