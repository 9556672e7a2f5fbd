//! Objects of lazy scoping that make the operator use each of its rights on them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::Sidecar;
use trimtab_embedded::Embedded;
use trimtab_lab::LabError;
use trimtab_lab::process::wait_until;

const BOUND: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";

fn service(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 9080}]}})
}

fn fence(enable: bool, host: &Value) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"name": "scoped", "namespace": NAMESPACE}, "spec": {"enable": enable, "host": host}})
}

/// A fence, a Service that asks for one, and a fallback with a pod.
pub(crate) fn load(embedded: &Embedded) {
    embedded
        .ensure_namespace("istio-system")
        .expect("a namespace");
    for object in [
        service("lazy", &json!({"lazy-xds": "true"})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "global-sidecar", "namespace": "istio-system"},
            "spec": {"selector": {"app": "global-sidecar"}, "ports": [{"name": "http-80", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "global-sidecar-x", "namespace": "istio-system", "labels": {"kubernetes.io/service-name": "global-sidecar"}},
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}],
            "ports": [{"name": "http-80", "port": 15080, "protocol": "TCP"}]}),
        fence(true, &json!({})),
    ] {
        embedded.load(object).expect("the object is good");
    }
}

async fn sidecar(
    embedded: &Embedded,
    what: &str,
    good: impl Fn(Option<&Sidecar>) -> bool,
) -> Result<(), LabError> {
    wait_until(what, BOUND, || async {
        let api: Api<Sidecar> = Api::namespaced(embedded.client(), NAMESPACE);
        let found = api.get_opt("scoped").await.map_err(|e| e.to_string())?;
        if good(found.as_ref()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

async fn automatic(embedded: &Embedded, there: bool) -> Result<(), LabError> {
    wait_until(&format!("an automatic fence: {there}"), BOUND, || async {
        let api: Api<ServiceFence> = Api::namespaced(embedded.client(), NAMESPACE);
        let found = api.get_opt("lazy").await.map_err(|e| e.to_string())?;
        if found.is_some() == there {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

/// Everything that an operator does with these objects.
pub(crate) async fn whole_life(embedded: &Embedded) -> Result<(), LabError> {
    wait_until("the ports of the fallback", BOUND, || async {
        let api: Api<Service> = Api::namespaced(embedded.client(), "istio-system");
        let service = api.get("global-sidecar").await.map_err(|e| e.to_string())?;
        let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
        if ports.iter().any(|p| p.port == 9080) {
            Ok(())
        } else {
            Err(format!("{ports:?}"))
        }
    })
    .await?;
    sidecar(embedded, "a Sidecar", |s| s.is_some()).await?;
    automatic(embedded, true).await?;
    // A field that another manager added can only be taken away by an update.
    let api: Api<Sidecar> = Api::namespaced(embedded.client(), NAMESPACE);
    let somebody = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    let edit = Patch::Merge(json!({"spec": {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}}));
    api.patch("scoped", &somebody, &edit)
        .await
        .expect("a patch");
    sidecar(embedded, "the added field is gone", |s| {
        s.is_some_and(|s| {
            !serde_json::to_string(&s.spec)
                .expect("JSON")
                .contains("ALLOW_ANY")
        })
    })
    .await?;
    embedded
        .load(fence(false, &json!({})))
        .expect("the object is good");
    sidecar(embedded, "the Sidecar is gone", |s| s.is_none()).await?;
    embedded
        .load(service("lazy", &json!({})))
        .expect("the object is good");
    automatic(embedded, false).await
}
