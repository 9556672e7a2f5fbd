//! The label by which a Service finds the leader's pod.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::admission::WriteAdmission;
use super::timing::Timing;
use crate::apply::{ApplyError, call};

/// Label of the pod that leads; its value is the name of the Lease.
pub const LEADER_LABEL: &str = "trimtab.io/leader";

/// The pods of the replicas.
pub(super) struct Pods {
    api: Api<Pod>,
    /// Name of the own pod.
    own: String,
    lease: String,
    admission: WriteAdmission,
    timing: Timing,
}

impl Pods {
    pub(super) fn new(
        client: Client,
        (namespace, own): (&str, String),
        lease: String,
        admission: WriteAdmission,
        timing: Timing,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            own,
            lease,
            admission,
            timing,
        }
    }

    /// Keeps the label where it belongs while this replica leads, until shutdown. The next leader takes it away.
    pub(super) async fn follow(self, shutdown: CancellationToken) {
        let mut told = false;
        let following = async {
            loop {
                self.admission.led().await;
                match self.label().await {
                    Ok(()) => {
                        told = false;
                        self.admission.deposed().await;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "the leader's pod is not labelled: access logs and pushed metrics do not find it; the operator needs patch on pods of its namespace");
                        }
                        tokio::time::sleep(self.timing.retry).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(following).await;
    }

    async fn label(&self) -> Result<(), ApplyError> {
        self.set(&self.own, Some(&self.lease)).await?;
        let labelled = ListParams::default().labels(&format!("{LEADER_LABEL}={}", self.lease));
        let listing = self.api.list_metadata(&labelled);
        let what = || "list pods of the leader".to_owned();
        let listed = crate::apply::read(what, listing).await?;
        for pod in listed.items.iter().filter(|pod| pod.name_any() != self.own) {
            match self.set(&pod.name_any(), None).await {
                Err(error) if error.code() != Some(404) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn set(&self, pod: &str, value: Option<&str>) -> Result<(), ApplyError> {
        let patch = json!({"metadata": {"labels": {LEADER_LABEL: value}}});
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let sent = self.api.patch_metadata(pod, &params, &patch);
        call(&self.admission, || format!("label Pod {pod}"), sent)
            .await
            .map(drop)
    }
}
