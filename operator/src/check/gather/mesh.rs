//! Pods with proxies, and namespaces.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{self, Pod};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::super::facts::{Asked, Namespace, Proxies};
use super::api::each;
use super::platform::{REVISION, version_of};

/// Container of a sidecar or gateway.
const PROXY: &str = "istio-proxy";
/// What the injector has done.
const STATUS: &str = "sidecar.istio.io/status";
/// Asks for sidecars.
const INJECTION: &str = "istio-injection";
/// Asks for ambient mode.
const MODE: &str = "istio.io/dataplane-mode";

/// What is known of pods.
pub(super) struct Mesh {
    pods: Asked<BTreeMap<String, usize>>,
    /// Namespace, revision, version.
    proxies: BTreeMap<(String, String, String), usize>,
}

impl Mesh {
    /// Reads all pods.
    pub(super) async fn read(client: &Client) -> Self {
        let api: Api<Pod> = Api::all(client.clone());
        let mut pods: BTreeMap<String, usize> = BTreeMap::new();
        let mut proxies = BTreeMap::new();
        let listed = each(&api, "", |pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                return;
            }
            let namespace = pod.namespace().unwrap_or_default();
            *pods.entry(namespace.clone()).or_default() += 1;
            if let Some((revision, version)) = proxy(&pod) {
                *proxies.entry((namespace, revision, version)).or_default() += 1;
            }
        });
        let pods = listed.await.map(|_| pods);
        Self { pods, proxies }
    }

    /// Proxies, sorted.
    pub(super) fn proxies(&self) -> Asked<Vec<Proxies>> {
        self.pods.as_ref().map_err(Clone::clone)?;
        let groups = self.proxies.iter();
        Ok(groups
            .map(|((namespace, revision, version), pods)| Proxies {
                namespace: namespace.clone(),
                revision: revision.clone(),
                version: version.clone(),
                pods: *pods,
            })
            .collect())
    }

    /// Namespaces with proxies, sorted.
    pub(super) fn meshed(&self) -> Vec<String> {
        let mut out: Vec<String> = self
            .proxies
            .keys()
            .map(|(namespace, ..)| namespace.clone())
            .collect();
        out.dedup();
        out
    }
}

/// Revision and version of the pod's proxy; empty: not known.
fn proxy(pod: &Pod) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    let proxy = spec
        .containers
        .iter()
        .chain(init)
        .find(|c| c.name == PROXY)?;
    let told = || {
        let status = pod.annotations().get(STATUS)?;
        let status: Value = serde_json::from_str(status).ok()?;
        Some(status["revision"].as_str()?.to_owned())
    };
    // The injector writes what it is. A label may be of the pod's template, and then have the name of a tag.
    let revision = told()
        .or_else(|| pod.annotations().get(REVISION).cloned())
        .or_else(|| pod.labels().get(REVISION).cloned());
    let version = proxy.image.as_deref().and_then(version_of);
    let revision = revision.unwrap_or_default();
    Some((revision, version.unwrap_or_default()))
}

/// Namespaces with objects of ours. `objects`: how many each has.
pub(super) async fn namespaces(
    client: &Client,
    objects: &BTreeMap<String, usize>,
    mesh: &Mesh,
) -> Asked<Vec<Namespace>> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let pods = mesh.pods.as_ref().map_err(Clone::clone)?;
    let api: Api<v1::Namespace> = Api::all(client.clone());
    let mut out = Vec::new();
    each(&api, "", |namespace| {
        let name = namespace.name_any();
        let Some(objects) = objects.get(&name) else {
            return;
        };
        let label = |key: &str| namespace.labels().get(key).map(String::as_str);
        let injected = label(INJECTION) == Some("enabled") || label(REVISION).is_some();
        out.push(Namespace {
            objects: *objects,
            injected: injected && label(INJECTION) != Some("disabled"),
            ambient: label(MODE) == Some("ambient"),
            pods: pods.get(&name).copied().unwrap_or_default(),
            name,
        });
    })
    .await?;
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proxy_is_a_container_or_a_native_sidecar() {
        let of = |pod: &Value| proxy(&serde_json::from_value(pod.clone()).unwrap());
        let image = json!({"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.30.4"});
        let app = json!({"name": "app"});
        let labelled = json!({"metadata": {"labels": {"istio.io/rev": "stable"}}, "spec": {"containers": [app, image]}});
        assert_eq!(
            of(&labelled),
            Some(("stable".to_owned(), "1.30.4".to_owned()))
        );
        let told = json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{\"revision\": \"default\"}"}},
            "spec": {"containers": [app], "initContainers": [image]}});
        assert_eq!(of(&told), Some(("default".to_owned(), "1.30.4".to_owned())));
        let by_tag = json!({"metadata": {"labels": {"istio.io/rev": "stable"}, "annotations": {"istio.io/rev": "1-30"}},
            "spec": {"containers": [image]}});
        assert_eq!(of(&by_tag), Some(("1-30".to_owned(), "1.30.4".to_owned())));
        assert_eq!(of(&json!({"spec": {"containers": [app]}})), None);
    }
}
