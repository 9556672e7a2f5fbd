//! A mesh of any size: Services, one SmartLimiter each, Ready pods. The same size gives the same objects.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use trimtab_embedded::Embedded;
use trimtab_limiter::index::{FirstForm, V1alpha2};
use trimtab_mesh::model::{Pod, Service};
use trimtab_mesh::table::Row;

/// Services for each namespace, about: a mesh of one namespace would hide costs that grow with namespaces.
const PER_NAMESPACE: usize = 100;
/// One limiter out of so many has the form `v1alpha2`.
const NEWER_EVERY: usize = 4;

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    /// Services, and as many SmartLimiters.
    pub limiters: usize,
    /// Pods, spread evenly over the Services.
    pub pods: usize,
}

impl Mesh {
    /// Namespace of a Service.
    pub fn namespace(&self, service: usize) -> String {
        format!(
            "ns-{}",
            service % self.limiters.div_ceil(PER_NAMESPACE).max(1)
        )
    }

    /// Namespace and name of a pod.
    pub fn pod_name(&self, pod: usize) -> (String, String) {
        let service = pod % self.limiters.max(1);
        (
            self.namespace(service),
            format!("svc-{service}-{}", pod / self.limiters.max(1)),
        )
    }

    /// A Service.
    pub fn service(&self, i: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("svc-{i}"), "namespace": self.namespace(i)},
            "spec": {"selector": {"app": format!("svc-{i}")}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        })
    }

    /// The SmartLimiter of a Service: 30 requests a second in all, while the CPU is above 0.8.
    pub fn limiter(&self, i: usize) -> Value {
        let metadata = json!({"name": format!("svc-{i}"), "namespace": self.namespace(i), "generation": 1, "uid": format!("uid-{i}")});
        if newer(i) {
            let rule = json!({
                "condition": "{{._base.cpu.max}}>0.8",
                "action": {"quota": "30/{{._base.pod}}", "fill_interval": {"seconds": 1}, "strategy": "single"},
            });
            return json!({
                "apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": metadata,
                "spec": {"sets": {"_base": {"descriptor": [rule]}}},
            });
        }
        let rule = json!({"condition": "{cpu}>0.8", "action": {"quota": "30/{pod}", "fill_interval": {"seconds": 1}}});
        json!({
            "apiVersion": "microservice.netease.com/v1alpha1", "kind": "SmartLimiter", "metadata": metadata,
            "spec": {"descriptors": [rule]},
        })
    }

    /// A Ready pod with a sidecar.
    pub fn pod(&self, j: usize) -> Value {
        let (namespace, name) = self.pod_name(j);
        let app = format!("svc-{}", j % self.limiters.max(1));
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {"app": app, "pod-template-hash": "5d4f8c7b9", "security.istio.io/tlsMode": "istio"},
                "annotations": {"prometheus.io/scrape": "true", "sidecar.istio.io/status": "{\"containers\":[\"istio-proxy\"]}"},
            },
            "spec": {"containers": [
                {"name": "app", "image": "registry.example/app:1", "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}}},
                {"name": "istio-proxy", "image": "registry.example/proxy:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}},
            ]},
            "status": {"phase": "Running", "podIP": format!("10.{}.{}.{}", j >> 16, (j >> 8) & 255, j & 255),
                "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    /// Fills an API with all objects.
    pub fn load(&self, embedded: &Embedded) -> anyhow::Result<()> {
        for i in 0..self.limiters {
            embedded.ensure_namespace(&self.namespace(i))?;
            embedded
                .load(self.service(i))
                .with_context(|| format!("Service {i}"))?;
            embedded
                .load(self.limiter(i))
                .with_context(|| format!("SmartLimiter {i}"))?;
        }
        for j in 0..self.pods {
            embedded
                .load(self.pod(j))
                .with_context(|| format!("Pod {j}"))?;
        }
        Ok(())
    }

    /// Fills a mesh as the first lists of watches do.
    pub fn feed(&self, mesh: &trimtab_mesh::Mesh) -> anyhow::Result<()> {
        let (newer, first): (Vec<usize>, Vec<usize>) = (0..self.limiters).partition(|i| newer(*i));
        replace::<Service>(mesh, (0..self.limiters).map(|i| self.service(i)))?;
        replace::<Pod>(mesh, (0..self.pods).map(|j| self.pod(j)))?;
        replace::<V1alpha2>(mesh, newer.into_iter().map(|i| self.limiter(i)))?;
        replace::<FirstForm>(mesh, first.into_iter().map(|i| self.limiter(i)))
    }
}

fn newer(limiter: usize) -> bool {
    limiter % NEWER_EVERY == NEWER_EVERY - 1
}

fn replace<R: Row<Object: serde::de::DeserializeOwned>>(
    mesh: &trimtab_mesh::Mesh,
    objects: impl Iterator<Item = Value>,
) -> anyhow::Result<()> {
    let objects = objects
        .map(|o| Ok(Arc::new(serde_json::from_value(o)?)))
        .collect::<anyhow::Result<Vec<Arc<R::Object>>>>()?;
    mesh.table::<R>().replace(&objects);
    Ok(())
}
