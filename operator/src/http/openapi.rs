//! The index of the API and its OpenAPI document, both from what modules declare of their routes.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};
use trimtab_kit::api::{Answer, ErrorBody, Method, Operation, Parameter};

use super::REQUEST_HEADER;

/// Where the document is.
pub(super) const PATH: &str = "/openapi.json";

/// What there is at this port.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Index {
    /// Version of the program.
    pub version: String,
    /// Path of the OpenAPI document.
    pub openapi: String,
    /// Paths, sorted.
    pub paths: Vec<Entry>,
}

/// One path and method.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Entry {
    /// Method.
    pub method: String,
    /// Path with `{names}`.
    pub path: String,
    /// What it is for.
    pub summary: String,
}

/// The index.
pub(super) fn index(operations: &[Operation]) -> Index {
    let entry = |o: &Operation| Entry {
        method: o.method.as_str().to_owned(),
        path: o.path.to_owned(),
        summary: o.summary.to_owned(),
    };
    Index {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        openapi: PATH.to_owned(),
        paths: operations.iter().map(entry).collect(),
    }
}

/// The document.
pub(super) fn document(operations: &[Operation]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut schemas = SchemaGenerator::new(settings);
    let failure = schemas.subschema_for::<ErrorBody>().to_value();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let method = operation.method.as_str().to_lowercase();
        let described = describe(operation, &failure, &mut schemas);
        let path = paths.entry(operation.path).or_default();
        path.insert(method, described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Trimtab",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What is in force and why. Every error is JSON with the key error.",
        },
        "paths": paths,
        "components": {"schemas": schemas.take_definitions(true)},
    })
}

fn describe(operation: &Operation, failure: &Value, schemas: &mut SchemaGenerator) -> Value {
    let in_path = operation.path.split('/').filter_map(name_of).map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let mut parameters: Vec<Value> = in_path.collect();
    parameters.extend(operation.query.iter().map(parameter));
    if operation.method == Method::Post {
        parameters.push(json!({
            "name": REQUEST_HEADER, "in": "header", "required": true, "schema": {"type": "string"},
            "description": "Any value: no page of another site can send it",
        }));
    }
    let (kind, schema) = match operation.answer {
        Answer::Json(schema) => ("application/json", schema(schemas).to_value()),
        Answer::Text(kind) => (kind, json!({"type": "string"})),
    };
    let refused = json!({"description": "The request is wrong", "content": {"application/json": {"schema": failure}}});
    let mut responses = json!({"200": {"description": "OK", "content": {kind: {"schema": schema}}}, "400": refused});
    if operation.path.contains('{') {
        responses["404"] = json!({"description": "There is no such thing", "content": {"application/json": {"schema": failure}}});
    }
    json!({"summary": operation.summary, "parameters": parameters, "responses": responses})
}

fn name_of(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = parameter.most.map_or_else(
        || json!({"type": "string"}),
        |most| json!({"type": "integer", "minimum": 1, "maximum": most}),
    );
    json!({
        "name": parameter.name, "in": "query", "required": parameter.required,
        "description": parameter.text, "schema": schema,
    })
}
