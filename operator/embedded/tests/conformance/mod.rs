//! Cases that hold for every Kubernetes API. Each takes a client and works in a namespace of its own, so that the
//! same cases run against the embedded API and against a real API server.

pub mod apply;
pub mod collect;
pub mod crud;
pub mod schema;
pub mod watch;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `check` gives a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A new namespace.
pub async fn namespace(client: &Client) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    let made = serde_json::from_value(json!({"metadata": {"generateName": "case-"}})).unwrap();
    api.create(&PostParams::default(), &made)
        .await
        .unwrap()
        .name_any()
}

/// The CRD that the cases use.
pub fn widget_crd() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.conformance.example"},
        "spec": {
            "group": "conformance.example", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": widget_schema()},
            }],
        },
    }))
    .unwrap()
}

fn widget_schema() -> Value {
    json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "x-kubernetes-validations": [
                    {"rule": "!has(self.min) || self.min <= self.size", "message": "min must not exceed size"},
                    {"rule": "!has(self.max_rate) || self.max_rate >= self.size", "message": "max_rate is below size"},
                ],
                "properties": {
                    "size": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100, "default": 1},
                    "min": {"type": "integer"},
                    "max_rate": {"type": "integer"},
                    "color": {"type": "string", "enum": ["red", "green"]},
                    "name": {"type": "string", "maxLength": 10,
                        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}]},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "limit": {"x-kubernetes-int-or-string": true},
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "plain": {"type": "array", "items": {"type": "string"}},
                    "parts": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                        "items": {"type": "object", "required": ["id"], "properties": {
                            "id": {"type": "string"}, "weight": {"type": "integer"}, "unit": {"type": "string"},
                        }},
                    },
                },
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

/// Installs the CRD and waits until it is established.
pub async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("conformance").force();
    api.patch(
        "widgets.conformance.example",
        &params,
        &Patch::Apply(&widget_crd()),
    )
    .await
    .unwrap();
    eventually("the CRD is established", || async {
        let crd = api.get("widgets.conformance.example").await.unwrap();
        let conditions = crd.status?.conditions?;
        conditions
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
            .then_some(())
    })
    .await;
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &widget_resource());
    eventually("widgets are served", || async {
        all.list(&ListParams::default()).await.ok()
    })
    .await;
}

pub fn widget_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("conformance.example", "v1", "Widget"),
        "widgets",
    )
}

/// Widgets of a namespace.
pub fn widgets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &widget_resource())
}

/// A widget as it is sent.
pub fn widget(name: &str, spec: impl Into<Value>) -> DynamicObject {
    let spec: Value = spec.into();
    serde_json::from_value(json!({
        "apiVersion": "conformance.example/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

pub fn config(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: serde_json::Map<String, Value> = data
        .iter()
        .map(|(k, v)| ((*k).to_owned(), json!(v)))
        .collect();
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
}

/// The code of a refusal, with the whole status.
pub fn refusal<T: std::fmt::Debug>(
    result: Result<T, kube::Error>,
) -> (u16, String, kube::core::Status) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone(), *status),
        other => panic!("a refusal was expected, not {other:?}"),
    }
}
