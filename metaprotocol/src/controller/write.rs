//! Writers: generated objects and statuses, as they are when a writer takes them.

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use trimtab_kit::apply::{ApplyError, call};

use super::{Runtime, STATUS_MANAGER};
use crate::engine::Work;
use crate::object::{ObjectKey, ServiceKey};

impl Runtime {
    pub(super) async fn writer(self) {
        if !self.start().await {
            return;
        }
        loop {
            let (work, ()) = tokio::select! {
                () = self.shutdown.cancelled() => return,
                item = self.engine.queue.pop() => item,
            };
            let result = match &work {
                Work::Objects(owner) => self.write_objects(owner).await,
                Work::Status(key) => self.write_status(key).await,
            };
            self.engine.queue.done(&work);
            match result {
                Ok(()) => self.engine.note_success(&work),
                Err(error) => self.retry(work, &error),
            }
        }
    }

    /// Makes the generated objects of an owner be as they must be now.
    async fn write_objects(&self, owner: &ServiceKey) -> Result<(), ApplyError> {
        let Some(desired) = self.engine.desired(owner) else {
            return Ok(());
        };
        let key = owner.to_owner();
        let held = &desired.held;
        let keep = |kind: &'static str| {
            move |name: &(String, String)| held.holds(&name.1) || self.engine.is_wanted(kind, name)
        };
        let filters = self
            .appliers
            .filters
            .converge_but(&key, &desired.filters, keep("EnvoyFilter"))
            .await;
        let services = self
            .appliers
            .virtual_services
            .converge_but(&key, &desired.virtual_services, keep("VirtualService"))
            .await;
        let outcome = filters.and(services);
        let error = outcome.as_ref().err().map(|e| (e.reason(), e.to_string()));
        self.engine.note_objects(owner, error.as_ref());
        outcome.map(drop)
    }

    async fn write_status(&self, key: &ObjectKey) -> Result<(), ApplyError> {
        let Some(status) = self.engine.status_to_write(key) else {
            return Ok(());
        };
        match self.patch_status(key, &status).await {
            // The object was deleted meanwhile.
            Err(ApplyError::Api { source, .. }) if matches!(source.as_ref(), kube::Error::Api(s) if s.code == 404) => {
                Ok(())
            }
            other => other,
        }
    }

    async fn patch_status(&self, key: &ObjectKey, status: &Value) -> Result<(), ApplyError> {
        let resource = key.kind.resource();
        let api: Api<DynamicObject> = if key.kind.namespaced() {
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": key.name},
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let what = || format!("write status of {key}");
        let patch = Patch::Apply(&body);
        call(what, api.patch_status(&key.name, &params, &patch))
            .await
            .map(drop)
    }

    /// Has it written again after a pause.
    fn retry(&self, work: Work, error: &ApplyError) {
        let Some(pause) = self.engine.retry_after(&work) else {
            return;
        };
        tracing::warn!(?work, %error, pause_ms = pause.as_millis(), "write failed; trying again");
        let (engine, shutdown) = (self.engine.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => engine.retry_now(work),
            }
        });
    }
}
