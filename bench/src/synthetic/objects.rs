//! The Kubernetes objects of a synthetic mesh.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service as KubeService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{ServiceEntry, VirtualService};

use super::{Kind, Service, Synthetic};

/// All objects, in the order of the mesh.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services.
    pub services: Vec<Arc<KubeService>>,
    /// Their endpoints.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Pods of all callers.
    pub pods: Vec<Arc<Pod>>,
    /// Hosts outside.
    pub entries: Vec<Arc<ServiceEntry>>,
    /// Redirects.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// A fence for each caller, enabled.
    pub fences: Vec<Arc<ServiceFence>>,
}

fn typed<K: DeserializeOwned>(value: Value) -> anyhow::Result<Arc<K>> {
    let text = value.to_string();
    let object = serde_json::from_value(value).with_context(|| format!("not an object: {text}"))?;
    Ok(Arc::new(object))
}

impl Objects {
    /// The objects of a mesh. Fails only on a mistake in here.
    pub fn of(mesh: &Synthetic) -> anyhow::Result<Self> {
        let mut out = Self::default();
        for service in &mesh.services {
            out.services.push(typed(kube_service(mesh, service))?);
            if !matches!(service.kind, Kind::Alias(_)) {
                out.slices.push(typed(slice(service))?);
            }
            if let Kind::Redirect(to) = service.kind {
                let host = mesh.services[to].host();
                out.virtual_services.push(typed(redirect(service, &host))?);
            }
        }
        let mut imported: Vec<&str> = mesh.externals.iter().map(|e| e.imported.as_str()).collect();
        imported.dedup();
        for (number, host) in imported.into_iter().enumerate() {
            out.entries.push(typed(json!({
                "metadata": {"name": format!("external{number}"), "namespace": "ns0"},
                "spec": {"hosts": [host], "location": "MESH_EXTERNAL", "resolution": "DNS",
                    "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]},
            }))?);
        }
        for (caller, addresses) in &mesh.callers {
            for (number, address) in addresses.iter().enumerate() {
                out.pods.push(typed(pod(
                    &caller.namespace,
                    &caller.workload,
                    number,
                    *address,
                ))?);
            }
            out.fences.push(typed(json!({
                "metadata": {"name": caller.workload, "namespace": caller.namespace, "uid": caller.to_string(), "generation": 1},
                "spec": {"enable": true},
            }))?);
        }
        Ok(out)
    }
}

fn kube_service(mesh: &Synthetic, service: &Service) -> Value {
    let spec = match service.kind {
        Kind::Alias(to) => {
            json!({"type": "ExternalName", "externalName": mesh.services[to].host()})
        }
        Kind::Headless => json!({"clusterIP": "None"}),
        _ => json!({"clusterIP": service.address.to_string()}),
    };
    let mut object = json!({
        "metadata": {"name": service.name, "namespace": service.namespace, "uid": service.host()},
        "spec": spec,
    });
    object["spec"]["ports"] = json!([{"name": "http", "port": 8080}]);
    if !matches!(service.kind, Kind::Alias(_)) {
        object["spec"]["selector"] = json!({"app": service.name});
    }
    object
}

fn slice(service: &Service) -> Value {
    let endpoint = |(number, address): (usize, &Ipv4Addr)| {
        json!({
            "addresses": [address.to_string()],
            "conditions": {"ready": true},
            "hostname": format!("{}-{number}", service.name),
            "targetRef": {"kind": "Pod", "namespace": service.namespace, "name": format!("{}-{number}", service.name)},
        })
    };
    let endpoints: Vec<Value> = service.pods.iter().enumerate().map(endpoint).collect();
    json!({
        "metadata": {"name": format!("{}-1", service.name), "namespace": service.namespace,
            "labels": {"kubernetes.io/service-name": service.name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    })
}

fn pod(namespace: &str, workload: &str, number: usize, address: Ipv4Addr) -> Value {
    // Jobs of CronJobs are named by the minute that they are for.
    let owner = if workload.starts_with("cron") {
        json!({"kind": "Job", "name": format!("{workload}-29000000"), "controller": true, "apiVersion": "batch/v1", "uid": "u"})
    } else {
        json!({"kind": "StatefulSet", "name": workload, "controller": true, "apiVersion": "apps/v1", "uid": "u"})
    };
    json!({
        "metadata": {"name": format!("{workload}-{number}"), "namespace": namespace,
            "labels": {"app": workload}, "ownerReferences": [owner]},
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}]},
    })
}

fn redirect(service: &Service, to: &str) -> Value {
    json!({
        "metadata": {"name": service.name, "namespace": service.namespace},
        "spec": {"hosts": [service.host()], "http": [{"route": [{"destination": {"host": to}}]}]},
    })
}
