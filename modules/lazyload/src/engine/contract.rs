//! What the driver asks of the engine, and what it reports back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use serde_json::json;
use trimtab_crds::fence::{FenceStatus, ServiceFence};
use trimtab_crds::istio::{EnvoyFilter, Sidecar};
use trimtab_kit::engine::{Engine as Contract, WriteError};
use trimtab_kit::queue::{Key, WorkQueue};
use trimtab_kit::write::{StatusPatch, Writes};

use super::{Desired, Engine, WorkItem};
use crate::auto::Action;
use crate::fallback::{NAME, service_ports};
use crate::object::FenceKey;

/// Owner of the fallback's EnvoyFilters, which belong together.
pub(crate) const WIRING: (&str, &str) = ("", "fallback");

impl Key for WorkItem {
    const LANES: usize = 2;

    /// A budget may hold Sidecars up, and nothing else with them.
    fn lane(&self) -> usize {
        usize::from(matches!(self, Self::Sidecar(_)))
    }
}

impl std::fmt::Display for WorkItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fence(fence) => write!(f, "status of ServiceFence {fence}"),
            Self::Sidecar(fence) => write!(f, "Sidecar of ServiceFence {fence}"),
            Self::Auto(fence) => write!(f, "ServiceFence {fence}"),
            Self::FallbackRouting => f.write_str("objects of the fallback"),
        }
    }
}

impl Contract for Engine {
    type Key = WorkItem;

    fn queue(&self) -> &WorkQueue<WorkItem> {
        &self.queue
    }

    /// By events or by time.
    async fn changed(&self) {
        let pause = self.next_timer();
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.index.changed() => {}
            () = self.edges.changed() => {}
            () = self.wake.notified() => {}
            () = timer => {}
        }
    }

    fn gather(&self) -> Duration {
        *self.config().writes.gather
    }

    /// Takes over what events, observed calls and time have changed, and queues what follows.
    fn absorb(&self) {
        self.edges.tick(self.clock.monotonic());
        self.retry_exclusions();
        // Before the calls that were seen, which belong to its windows.
        let told = self.edges.drain_telemetry();
        let changes = self.index.drain_changes();
        let mut dirty = changes.fences;
        {
            let mut inner = self.inner.lock();
            dirty.append(&mut inner.again);
            let now = self.clock.now();
            while inner.timers.first().is_some_and(|(at, _)| *at <= now) {
                dirty.extend(inner.timers.pop_first().map(|(_, key)| key));
            }
        }
        dirty.append(&mut self.absorb_needs());
        let mut restored = BTreeSet::new();
        for key in dirty.iter().chain(&changes.statuses) {
            restored.extend(self.restore(key));
        }
        self.declare(restored);
        for caller in self.edges.drain_changes() {
            dirty.extend(self.index.fences_of(&caller));
        }
        for key in changes.statuses.difference(&dirty) {
            self.reread(key);
        }
        self.compute(&dirty);
        let dirty = self.take_telemetry(&told);
        self.compute(&dirty);
        self.look_at_policies();
        for key in self.auto.drain_changes() {
            self.queue.push(WorkItem::Auto(key));
        }
        let first = !self.begun.swap(true, Ordering::Relaxed);
        if self.wiring_changed() || first {
            self.queue.push(WorkItem::FallbackRouting);
        }
    }

    fn writes(self: &Arc<Self>, key: &WorkItem) -> Writes {
        match key {
            WorkItem::Fence(_) => Writes::none(),
            WorkItem::Sidecar(key) => self.sidecar_writes(key),
            WorkItem::Auto(key) => self.auto_writes(key),
            WorkItem::FallbackRouting => self.wiring_writes(),
        }
    }

    fn per_minute(&self, key: &WorkItem) -> u32 {
        match key {
            WorkItem::Sidecar(_) => self.config().writes.per_minute,
            WorkItem::Fence(_) | WorkItem::Auto(_) | WorkItem::FallbackRouting => 0,
        }
    }

    fn written(&self, key: &WorkItem, error: Option<WriteError>) {
        match key {
            WorkItem::Fence(_) | WorkItem::Auto(_) => {}
            // Somebody else was faster. The watch tells what they wrote, and then it is another write, or none.
            WorkItem::Sidecar(key) => {
                self.note_sidecar(key, error.filter(|(reason, _)| *reason != "Conflict"));
            }
            WorkItem::FallbackRouting => {
                let fallback_routing = self.inner.lock().writing.take();
                if let Some(fallback_routing) = fallback_routing {
                    self.note_wiring(&fallback_routing, error.map(|(_, message)| message));
                }
            }
        }
    }

    fn status(&self, key: &WorkItem) -> Option<StatusPatch> {
        let WorkItem::Fence(key) = key else {
            return None;
        };
        let status = self.status_update(key)?;
        let mut patch = StatusPatch::of::<ServiceFence>(&key.namespace, &key.name, &status);
        if let Some(fields) = patch.status.as_object_mut() {
            fields.extend(self.emptied(key, &status));
        }
        Some(patch.whole(&["dependencies", "domains", "metricStatus"]))
    }

    fn shrink_status(&self, key: &WorkItem) -> bool {
        matches!(key, WorkItem::Fence(key) if self.shrink(key))
    }

    fn status_written(&self, key: &WorkItem, written: StatusPatch) {
        if let WorkItem::Fence(key) = key
            && let Ok(status) = FenceStatus::deserialize(&written.status)
        {
            self.note_status(key, status);
        }
    }

    /// The status goes before the Sidecar: what was learned must survive before a Sidecar relies on it.
    fn done(&self, key: &WorkItem) {
        if let WorkItem::Fence(key) = key {
            self.queue.push(WorkItem::Sidecar(key.clone()));
        }
    }
}

impl Engine {
    fn sidecar_writes(&self, key: &FenceKey) -> Writes {
        let desired = self.desired(key);
        if let Some(entry) = self.inner.lock().fences.get_mut(key) {
            entry.left = desired == Desired::Keep;
        }
        let desired = match desired {
            Desired::Write(sidecar) => vec![*sidecar],
            Desired::None => Vec::new(),
            Desired::Keep => return Writes::none(),
        };
        let owner = (key.namespace.clone(), key.name.clone());
        Writes::none().objects::<Sidecar>(owner, desired)
    }

    /// Makes or deletes an automatic fence.
    fn auto_writes(&self, key: &FenceKey) -> Writes {
        let (namespace, name) = (&key.namespace, &key.name);
        match self.auto.decide(key) {
            None => Writes::none(),
            Some(Action::Apply(fence)) => {
                Writes::none().fields::<ServiceFence>(namespace, name, json!(fence))
            }
            Some(Action::Delete { uid }) => {
                Writes::none().delete::<ServiceFence>(namespace, name, uid)
            }
        }
    }

    /// The Service's ports first, so that each listener has its routes when the EnvoyFilters lead to them.
    fn wiring_writes(&self) -> Writes {
        let fallback_routing = self.fallback_routing();
        let mut writes = Writes::none();
        for (namespace, ports) in &fallback_routing.ports {
            let service = json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME},
                "spec": {"ports": service_ports(ports, fallback_routing.target)},
            });
            writes = writes.fields::<Service>(namespace, NAME, service);
        }
        let owner = (WIRING.0.to_owned(), WIRING.1.to_owned());
        let (filters, keep) = (
            fallback_routing.filters.clone(),
            fallback_routing.keep.clone(),
        );
        self.inner.lock().writing = Some(fallback_routing);
        writes.objects_but::<EnvoyFilter>(owner, filters, move |(namespace, _)| {
            keep.contains(namespace)
        })
    }
}

#[cfg(test)]
mod tests {
    use trimtab_kit::clock::SystemClock;

    use super::*;
    use crate::config::LazyloadConfig;

    #[test]
    fn sidecars_have_a_lane_with_a_budget_of_their_own_and_follow_their_status() {
        let config = Arc::new(LazyloadConfig::default());
        let engine = Engine::new(
            config.clone(),
            &trimtab_mesh::Mesh::new(""),
            Arc::new(SystemClock::new()),
        );
        engine.absorb();
        assert_eq!(engine.queue.try_pop(0), Some(WorkItem::FallbackRouting));
        let _ = engine.writes(&WorkItem::FallbackRouting);
        engine.written(&WorkItem::FallbackRouting, None);
        engine.queue.done(&WorkItem::FallbackRouting, true);
        engine.absorb();
        assert_eq!(
            engine.queue.try_pop(0),
            None,
            "what was written is remembered"
        );
        let key = FenceKey {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let fence = WorkItem::Fence(key.clone());
        engine.done(&fence);
        let sidecar = WorkItem::Sidecar(key);
        assert_eq!(engine.queue.try_pop(0), None);
        assert_eq!(engine.queue.try_pop(1), Some(sidecar.clone()));
        assert_eq!(engine.per_minute(&fence), 0);
        assert_eq!(engine.per_minute(&sidecar), config.writes.per_minute);
    }
}
