//! Something to write all the time: a limiter whose quota changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_cluster::{Cluster, wait_for};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::v1alpha2::SmartLimiter;

use crate::BOUND;
use crate::audit;

/// Between two edits.
const PERIOD: Duration = Duration::from_millis(100);

/// Edits a limiter until it is dropped.
pub struct Traffic {
    cluster: &'static Cluster,
    client: Client,
    name: String,
    /// The last quota that was written by hand.
    quota: Arc<AtomicU64>,
    _stop: DropGuard,
}

fn limiter(name: &str, quota: u64) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": {"name": name},
        "spec": {"workloadSelector": {"app": "a"}, "sets": {"_base": {"descriptor": [
            {"condition": "true", "action": {"quota": quota.to_string(), "fill_interval": {"seconds": 1}}}]}}}})
}

impl Traffic {
    pub async fn start(cluster: &'static Cluster, name: &str) -> Self {
        let client = cluster.client().await.unwrap();
        let api: Api<SmartLimiter> = Api::namespaced(client.clone(), "default");
        let (quota, stop) = (Arc::new(AtomicU64::new(1000)), CancellationToken::new());
        let (counter, stopping, owned) = (quota.clone(), stop.clone(), name.to_owned());
        tokio::spawn(async move {
            let params = PatchParams::apply("somebody").force();
            while !stopping.is_cancelled() {
                let next = counter.load(Ordering::Relaxed) + 1;
                let patch = Patch::Apply(limiter(&owned, next));
                if api.patch(&owned, &params, &patch).await.is_ok() {
                    counter.store(next, Ordering::Relaxed);
                }
                tokio::time::sleep(PERIOD).await;
            }
            let _ = api.delete(&owned, &DeleteParams::default()).await;
        });
        Self {
            cluster,
            client,
            name: name.to_owned(),
            quota,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits until an edit that is made from now on is in the generated object.
    pub async fn followed(&self) {
        let from = self.quota.load(Ordering::Relaxed) + 1;
        let api: Api<EnvoyFilter> = Api::namespaced(self.client.clone(), "default");
        let name = format!("{}.default.ratelimit", self.name);
        wait_for("an EnvoyFilter of a new edit", BOUND, || async {
            let found = api.get(&name).await.map_err(|error| error.to_string())?;
            let text = serde_json::to_string(&found).map_err(|error| error.to_string())?;
            let numbers = text.split(|c: char| !c.is_ascii_digit());
            let last = self.quota.load(Ordering::Relaxed) + 1;
            let new = numbers
                .filter_map(|n| n.parse::<u64>().ok())
                .any(|n| (from..=last).contains(&n));
            if new { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap();
    }

    /// Waits until this user writes the generated object.
    pub async fn followed_by(&self, user: &str) {
        let before = audit::writes(self.cluster, user);
        wait_for("writes of the other replica", BOUND, || async {
            let now = audit::writes(self.cluster, user);
            if now > before {
                Ok(())
            } else {
                Err(format!("{now} after {before}"))
            }
        })
        .await
        .unwrap();
    }
}
