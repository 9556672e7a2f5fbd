//! `OpenAPI` v3 documents, as far as kubectl looks at them: which kinds there are, and that their paths take
//! `fieldValidation` (then kubectl leaves validation to the server).

use serde_json::{Map, Value, json};

use crate::kinds::{Registry, Resource, Version};

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `/openapi/v3`: the documents.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.all() {
        for version in &resource.versions {
            let path = path_of(resource.group(), &version.name);
            let url = format!("/openapi/v3/{path}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// One document; `None` for an unknown group or version.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in registry.all().filter(|r| r.group() == group) {
        if let Some(served) = resource.version(version) {
            add(resource, served, &mut paths, &mut schemas);
        }
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.33.0" },
            "paths": paths, "components": { "schemas": schemas },
        })
    })
}

fn add(
    resource: &Resource,
    served: &Version,
    paths: &mut Map<String, Value>,
    schemas: &mut Map<String, Value>,
) {
    let gvk = json!({ "group": resource.group(), "version": served.name, "kind": resource.kind });
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } }))
        .collect();
    let name = format!(
        "{}.{}.{}",
        reversed(resource.group()),
        served.name,
        resource.kind
    );
    let content =
        json!({ "*/*": { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
    let operation = |action: &str| {
        json!({
            "parameters": parameters, "requestBody": { "content": content },
            "responses": { "200": { "description": "OK", "content": content } },
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
        })
    };
    let base = format!("/{}", path_of(resource.group(), &served.name));
    let plural = &resource.id.plural;
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({ "get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete") }),
    );
    paths.insert(
        collection,
        json!({ "get": operation("list"), "post": operation("post") }),
    );
    let mut schema = served
        .raw_schema
        .clone()
        .unwrap_or_else(|| json!({ "type": "object" }));
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
    schemas.insert(name, schema);
}

fn reversed(group: &str) -> String {
    if group.is_empty() {
        return "io.k8s.api.core".to_owned();
    }
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    parts.join(".")
}
