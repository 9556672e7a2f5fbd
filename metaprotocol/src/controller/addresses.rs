//! Addresses for ServiceEntries that have none. They are written into the objects, which are all that is kept.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use trimtab_crds::istio::ServiceEntry;
use trimtab_kit::apply::{ApplyError, call};

use super::{FIELD_MANAGER, Runtime};
use crate::vip::{Assignment, allocate};

/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(2);

impl Runtime {
    /// Gives addresses whenever addresses in the mesh have changed.
    pub(super) async fn addresses(self) {
        if !self.start().await {
            return;
        }
        loop {
            if self.assign().await.is_err() {
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => self.addresses.notify_one(),
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.addresses.notified() => {}
            }
        }
    }

    async fn assign(&self) -> Result<(), ()> {
        let (entries, taken) = self.engine.index.addresses();
        let allocation = allocate(&self.config.vips, &entries, &taken);
        for problem in &allocation.problems {
            tracing::warn!(%problem, "a ServiceEntry gets no address");
        }
        let mut outcome = Ok(());
        for assignment in &allocation.assignments {
            if let Err(error) = self.write_addresses(assignment).await {
                tracing::warn!(%error, "addresses cannot be written; trying again");
                outcome = Err(());
            }
        }
        outcome
    }

    /// The version is a condition: an entry that was changed meanwhile is looked at again first.
    async fn write_addresses(&self, assignment: &Assignment) -> Result<(), ApplyError> {
        let Assignment {
            namespace,
            name,
            addresses,
        } = assignment;
        let version = self.engine.index.entry_version(namespace, name);
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "spec": {"addresses": addresses},
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api: Api<ServiceEntry> = Api::namespaced(self.client.clone(), namespace);
        let what = || format!("write addresses of ServiceEntry {namespace}/{name}");
        call(what, api.patch(name, &params, &Patch::Merge(&patch)))
            .await
            .map(drop)
    }
}
