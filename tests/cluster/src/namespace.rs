//! One namespace a test, with pods that have an address and a status.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Pod as KubePod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::{Cluster, Result, net};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace of one test.
pub struct Namespace<'c> {
    cluster: &'c Cluster,
    client: Client,
    name: String,
}

/// A pod as Kubernetes and istiod see it. Processes of the test stand for it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Address in Kubernetes.
    pub ip: Ipv4Addr,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Pod {
    /// Where the processes of the pod listen.
    pub fn local(&self) -> Ipv4Addr {
        net::local(self.ip)
    }

    /// A port of [`Self::local`].
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.local(), port))
    }
}

impl<'c> Namespace<'c> {
    /// Makes a namespace whose name begins with `prefix` and that no other test has.
    pub async fn create(cluster: &'c Cluster, prefix: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::named(
            cluster,
            &format!("{prefix}-{}-{number}", std::process::id()),
        )
        .await
    }

    /// Makes the namespace of this name, which only one test may use.
    pub async fn named(cluster: &'c Cluster, name: &str) -> Result<Self> {
        let client = cluster.client().await?;
        let name = name.to_owned();
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let api: Api<KubeNamespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &object).await?;
        Ok(Self {
            cluster,
            client,
            name,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// A client with all rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Applies manifests with kubectl. `NAMESPACE` in the text becomes the name.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        let text = manifests.replace("NAMESPACE", &self.name);
        self.kubectl(&["apply", "-f", "-"], &text).await
    }

    /// Runs kubectl in the namespace.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args);
        self.cluster.kubectl(&all, input).await
    }

    /// Writes a running, ready pod with a new address.
    pub async fn pod(&self, name: &str, labels: &[(&str, &str)]) -> Result<Pod> {
        self.pod_at(net::pod_ip()?, name, labels).await
    }

    /// The same with an address that is the caller's to choose: no process can stand for such a pod.
    pub async fn pod_at(&self, ip: Ipv4Addr, name: &str, labels: &[(&str, &str)]) -> Result<Pod> {
        let labels: BTreeMap<String, String> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": "trimtab-test-node", "containers": [
                {"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "istio-proxy"}]},
        });
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let api: Api<KubePod> = Api::namespaced(self.client.clone(), &self.name);
        api.create(&PostParams::default(), &object).await?;
        let pod = Pod {
            name: name.to_owned(),
            namespace: self.name.clone(),
            ip,
            labels,
        };
        self.set_ready(&pod, true).await?;
        Ok(pod)
    }

    /// Changes the readiness of a pod.
    pub async fn set_ready(&self, pod: &Pod, ready: bool) -> Result<()> {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running",
            "podIP": pod.ip,
            "podIPs": [{"ip": pod.ip}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        let api: Api<KubePod> = Api::namespaced(self.client.clone(), &self.name);
        api.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// Deletes a pod at once, as its node does when the grace period is over.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        let api: Api<KubePod> = Api::namespaced(self.client.clone(), &self.name);
        api.delete(name, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }
}
