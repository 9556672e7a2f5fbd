//! Built-in objects as modules decode them. The embedded API stores them as they are sent, and one that cannot be decoded is
//! a mistake of its file.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether modules can read the object; the error names the field.
pub(super) fn check(api_version: &str, kind: &str, object: &Value) -> Result<(), String> {
    match (api_version, kind) {
        ("v1", "ConfigMap") => decodes::<ConfigMap>(object),
        ("v1", "Namespace") => decodes::<Namespace>(object),
        ("v1", "Pod") => decodes::<Pod>(object),
        ("v1", "Secret") => decodes::<Secret>(object),
        ("v1", "Service") => decodes::<Service>(object),
        ("discovery.k8s.io/v1", "EndpointSlice") => decodes::<EndpointSlice>(object),
        _ => Ok(()),
    }
}

fn decodes<K: DeserializeOwned>(object: &Value) -> Result<(), String> {
    let decoded: Result<K, _> = serde_path_to_error::deserialize(object);
    decoded.map(drop).map_err(|error| {
        let path = error.path().to_string();
        format!("{path}: {}", error.into_inner())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fault_o9_the_field_that_cannot_be_read_is_named() {
        for (api_version, kind, rest, field) in [
            (
                "v1",
                "Pod",
                json!({"spec": {"containers": "oops"}}),
                "spec.containers: ",
            ),
            (
                "v1",
                "Pod",
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": "x"}]}]}}),
                "spec.containers[0].ports[0].containerPort: ",
            ),
            (
                "v1",
                "Service",
                json!({"spec": {"ports": [{"port": "80"}]}}),
                "spec.ports[0].port: ",
            ),
            (
                "v1",
                "Service",
                json!({"spec": {"selector": ["a"]}}),
                "spec.selector: ",
            ),
            (
                "v1",
                "Namespace",
                json!({"metadata": {"name": "a", "labels": []}}),
                "metadata.labels: ",
            ),
            (
                "discovery.k8s.io/v1",
                "EndpointSlice",
                json!({"addressType": "IPv4", "endpoints": {}}),
                "endpoints: ",
            ),
            ("v1", "ConfigMap", json!({"data": "x"}), "data: "),
            ("v1", "Secret", json!({"data": {"a": "%"}}), "data.a: "),
        ] {
            let mut object =
                json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
            for (key, value) in rest.as_object().unwrap() {
                object[key] = value.clone();
            }
            let error = check(api_version, kind, &object).unwrap_err();
            assert!(error.starts_with(field), "{kind}: {error}");
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": null}, "spec": null});
        assert_eq!(check("v1", "Pod", &pod), Ok(()));
        assert_eq!(
            check("batch/v1", "Job", &json!({"spec": 1})),
            Ok(()),
            "nobody reads it"
        );
    }
}
