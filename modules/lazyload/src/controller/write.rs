//! Writers: statuses, Sidecars, automatic fences and the fallback's wiring, as they are when a writer takes them.

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use trimtab_crds::fence::{FenceStatus, ServiceFence};
use trimtab_kit::apply::{ApplyError, call};

use super::{FIELD_MANAGER, Runtime, STATUS_MANAGER, WIRING};
use crate::auto::Action;
use crate::engine::{Desired, Work};
use crate::fallback::{NAME, service_ports};
use crate::object::FenceKey;

fn code(error: &ApplyError) -> Option<u16> {
    match error {
        ApplyError::Api { source, .. } => match source.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        _ => None,
    }
}

/// Somebody else was faster. The watch tells what they wrote, and then it is another write, or none.
fn is_conflict(error: &ApplyError) -> bool {
    code(error) == Some(409)
}

/// An object that is gone is as good as written.
fn unless_gone(result: Result<(), ApplyError>) -> Result<(), ApplyError> {
    match result {
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        other => other,
    }
}

impl Runtime {
    /// Works a queue off: that of Sidecars, or the other.
    pub(super) async fn writer(self, sidecars: bool) {
        if !self.start().await {
            return;
        }
        let queue = if sidecars {
            &self.engine.sidecars
        } else {
            &self.engine.queue
        };
        loop {
            let (work, ()) = tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                item = queue.pop() => item,
            };
            let result = match &work {
                Work::Fence(key) => self.write_fence(key).await,
                Work::Sidecar(key) => self.write_sidecar(key).await,
                Work::Auto(key) => self.write_auto(key).await,
                Work::Wiring => self.write_wiring().await,
            };
            queue.done(&work);
            match result {
                Ok(()) => self.engine.retries.succeeded(&work),
                Err(error) => self.retry(work, &error),
            }
        }
    }

    async fn write_fence(&self, key: &FenceKey) -> Result<(), ApplyError> {
        if let Some(status) = self.engine.news(key) {
            self.write_status(key, &status).await?;
            self.engine.note_status(key, status);
        }
        self.engine.push(Work::Sidecar(key.clone()));
        Ok(())
    }

    async fn write_sidecar(&self, key: &FenceKey) -> Result<(), ApplyError> {
        let sidecars = &self.appliers.sidecars;
        if let Desired::Write(sidecar) = self.engine.desired(key)
            && !sidecars.is_as_wanted(&sidecar)
        {
            self.spend().await;
        }
        // It may be another one after the wait.
        let desired = match self.engine.desired(key) {
            Desired::Write(sidecar) => vec![*sidecar],
            Desired::None => Vec::new(),
            Desired::Keep => return Ok(()),
        };
        let outcome = sidecars.converge(&key.namespace, &key.name, &desired).await;
        let error = outcome.as_ref().err().filter(|e| !is_conflict(e));
        let error = error.map(|e| (e.reason(), e.to_string()));
        self.engine.note_sidecar(key, error);
        outcome.map(drop)
    }

    async fn write_status(&self, key: &FenceKey, status: &FenceStatus) -> Result<(), ApplyError> {
        let api: Api<ServiceFence> = Api::namespaced(self.client(), &key.namespace);
        let body = json!({
            "apiVersion": "microservice.slime.io/v1alpha1",
            "kind": "ServiceFence",
            "metadata": {"name": key.name},
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let what = || format!("write status of ServiceFence {key}");
        let patch = Patch::Apply(&body);
        unless_gone(
            call(what, api.patch_status(&key.name, &params, &patch))
                .await
                .map(drop),
        )
    }

    /// Makes or deletes an automatic fence.
    async fn write_auto(&self, key: &FenceKey) -> Result<(), ApplyError> {
        let api: Api<ServiceFence> = Api::namespaced(self.client(), &key.namespace);
        match self.engine.auto.decide(key) {
            None => Ok(()),
            Some(Action::Apply(fence)) => {
                let what = || format!("apply ServiceFence {key}");
                let params = PatchParams::apply(FIELD_MANAGER).force();
                let patch = Patch::Apply(fence.as_ref());
                call(what, api.patch(&key.name, &params, &patch))
                    .await
                    .map(drop)
            }
            Some(Action::Delete { uid }) => {
                let what = || format!("delete ServiceFence {key}");
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: Some(uid),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                unless_gone(call(what, api.delete(&key.name, &params)).await.map(drop))
            }
        }
    }

    /// The Service's ports first, so that each listener has its routes when the EnvoyFilters lead to them.
    async fn write_wiring(&self) -> Result<(), ApplyError> {
        let wiring = self.engine.wiring();
        let mut outcome = Ok(());
        for (namespace, ports) in &wiring.ports {
            let api: Api<Service> = Api::namespaced(self.client(), namespace);
            let what = || format!("apply ports of Service {namespace}/{NAME}");
            let body = json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME},
                "spec": {"ports": service_ports(ports, wiring.target)},
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(&body);
            let result = call(what, api.patch(NAME, &params, &patch)).await.map(drop);
            outcome = outcome.and(result);
        }
        let owner = (WIRING.0.to_owned(), WIRING.1.to_owned());
        let filters = &self.appliers.filters;
        let result = filters
            .converge_but(&owner, &wiring.filters, |(namespace, _)| {
                wiring.keep.contains(namespace)
            })
            .await;
        outcome = outcome.and(result.map(drop));
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.engine.note_wiring(&wiring, error);
        outcome
    }

    /// Has it written again after a pause.
    fn retry(&self, work: Work, error: &ApplyError) {
        let Some(pause) = self.engine.retries.after(&work) else {
            return;
        };
        tracing::warn!(?work, %error, pause_ms = pause.as_millis(), "write failed; trying again");
        let (engine, shutdown) = (self.engine.clone(), self.context.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {
                    engine.retries.begin(&work);
                    engine.push(work);
                }
            }
        });
    }
}
