//! Resources that CRDs add.

use serde_json::{Value, json};

use crate::error::{ApiError, Cause, Subject};
use crate::kinds::{CRD_GROUP, Column, Resource, Version, column};
use crate::schema::{Rules, Schema};
use crate::store::ResourceId;

/// Makes a resource of a `CustomResourceDefinition`.
pub(crate) fn from_crd(crd: &Value) -> Result<Resource, ApiError> {
    let name = crate::meta::name(crd).to_owned();
    let mut causes = Vec::new();
    let text = |path: &str| {
        crd.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    for (path, field) in [
        ("/spec/group", "spec.group"),
        ("/spec/names/plural", "spec.names.plural"),
        ("/spec/names/kind", "spec.names.kind"),
        ("/spec/scope", "spec.scope"),
    ] {
        if text(path).is_empty() {
            causes.push(Cause::new("FieldValueRequired", field, "Required value"));
        }
    }
    let (group, plural, kind) = (
        text("/spec/group"),
        text("/spec/names/plural"),
        text("/spec/names/kind"),
    );
    if name != format!("{plural}.{group}") {
        causes.push(Cause::new(
            "FieldValueInvalid",
            "metadata.name",
            format!("Invalid value: \"{name}\": must be spec.names.plural+\".\"+spec.group"),
        ));
    }
    let (versions, storage) = crd_versions(crd, &mut causes);
    if !causes.is_empty() {
        return Err(ApiError::Invalid {
            subject: Subject {
                group: CRD_GROUP.to_owned(),
                resource: "CustomResourceDefinition".to_owned(),
                name,
            },
            causes,
        });
    }
    Ok(crd_resource(crd, &group, &plural, kind, &storage, versions))
}

/// The served versions, and the name of the storage version.
fn crd_versions(crd: &Value, causes: &mut Vec<Cause>) -> (Vec<Version>, String) {
    let listed = crd
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut versions = Vec::new();
    for (i, version) in listed.iter().enumerate() {
        if version["served"].as_bool().unwrap_or(false) {
            versions.extend(crd_version(version, i, causes));
        }
    }
    let storage: Vec<&str> = listed
        .iter()
        .filter(|v| v["storage"].as_bool().unwrap_or(false))
        .filter_map(|v| v["name"].as_str())
        .collect();
    if let [name] = storage.as_slice() {
        return (versions, (*name).to_owned());
    }
    causes.push(Cause::new(
        "FieldValueInvalid",
        "spec.versions",
        "Invalid value: must have exactly one version marked as storage version",
    ));
    (versions, String::new())
}

fn crd_resource(
    crd: &Value,
    group: &str,
    plural: &str,
    kind: String,
    storage: &str,
    mut versions: Vec<Version>,
) -> Resource {
    let names = accepted_names(crd);
    let list = |field: &str| -> Vec<String> {
        names[field]
            .as_array()
            .map(|a| {
                a.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    };
    versions.sort_by(|a, b| a.name.cmp(&b.name));
    Resource {
        id: ResourceId::new(group, plural),
        list_kind: names["listKind"].as_str().unwrap_or_default().to_owned(),
        singular: names["singular"].as_str().unwrap_or_default().to_owned(),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: crd.pointer("/spec/scope").and_then(Value::as_str) == Some("Namespaced"),
        builtin: false,
        generation: true,
        storage: storage.to_owned(),
        versions,
        kind,
    }
}

/// `spec.names` with the defaults that the API server fills in.
pub(crate) fn accepted_names(crd: &Value) -> Value {
    let mut names = crd
        .pointer("/spec/names")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if names["listKind"].as_str().is_none_or(str::is_empty) {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if names["singular"].as_str().is_none_or(str::is_empty) {
        names["singular"] = json!(kind.to_lowercase());
    }
    names
}

fn crd_version(version: &Value, index: usize, causes: &mut Vec<Cause>) -> Option<Version> {
    let at = format!("spec.versions[{index}]");
    let Some(raw) = version.pointer("/schema/openAPIV3Schema") else {
        causes.push(Cause::new(
            "FieldValueRequired",
            format!("{at}.schema.openAPIV3Schema"),
            "Required value: schemas are required",
        ));
        return None;
    };
    let path = format!("{at}.schema.openAPIV3Schema");
    let schema = match Schema::parse(raw) {
        Ok(schema) => schema,
        Err(problem) => {
            causes.push(Cause::new(
                "FieldValueInvalid",
                path,
                format!("Invalid value: {problem}"),
            ));
            return None;
        }
    };
    let rules = Rules::compile(raw);
    for problem in rules.problems() {
        causes.push(Cause::new(
            "FieldValueInvalid",
            path.clone(),
            format!("Invalid value: {problem}"),
        ));
    }
    Some(Version {
        name: version["name"].as_str().unwrap_or_default().to_owned(),
        status: version.pointer("/subresources/status").is_some(),
        schema: Some(schema),
        rules: rules.any().then_some(rules),
        raw_schema: Some(raw.clone()),
        columns: crd_columns(version),
    })
}

fn crd_columns(version: &Value) -> Vec<Column> {
    let text = |c: &Value, f: &str| c[f].as_str().unwrap_or_default().to_owned();
    match version["additionalPrinterColumns"].as_array() {
        Some(columns) if !columns.is_empty() => columns
            .iter()
            .map(|c| Column {
                name: text(c, "name"),
                kind: text(c, "type"),
                format: text(c, "format"),
                description: text(c, "description"),
                priority: c["priority"].as_i64().unwrap_or(0),
                path: text(c, "jsonPath"),
            })
            .collect(),
        _ => vec![column("Age", "date", ".metadata.creationTimestamp")],
    }
}
