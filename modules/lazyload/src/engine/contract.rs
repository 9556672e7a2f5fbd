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

use super::{Desired, Engine, Work};
use crate::auto::Action;
use crate::fallback::{NAME, service_ports};
use crate::object::FenceKey;

/// Owner of the fallback's EnvoyFilters, which belong together.
pub(crate) const WIRING: (&str, &str) = ("", "fallback");

impl Key for Work {
    const LANES: usize = 2;

    /// A budget may hold Sidecars up, and nothing else with them.
    fn lane(&self) -> usize {
        usize::from(matches!(self, Self::Sidecar(_)))
    }
}

impl Contract for Engine {
    type Key = Work;

    fn queue(&self) -> &WorkQueue<Work> {
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

    /// Takes over what events, sightings and time have changed, and queues what follows.
    fn absorb(&self) {
        self.edges.tick(self.clock.monotonic());
        let changes = self.index.take_changes();
        let mut dirty = changes.fences;
        {
            let mut inner = self.inner.lock();
            dirty.append(&mut inner.again);
            let now = self.clock.now();
            while inner.timers.first().is_some_and(|(at, _)| *at <= now) {
                dirty.extend(inner.timers.pop_first().map(|(_, key)| key));
            }
        }
        let mut restored = BTreeSet::new();
        for key in dirty.iter().chain(&changes.statuses) {
            restored.extend(self.restore(key));
        }
        self.declare(restored);
        for caller in self.edges.take_changes() {
            dirty.extend(self.index.fences_of(&caller));
        }
        for key in changes.statuses.difference(&dirty) {
            self.reread(key);
        }
        self.compute(&dirty);
        for key in self.auto.take_changes() {
            self.queue.push(Work::Auto(key));
        }
        let first = !self.begun.swap(true, Ordering::Relaxed);
        if self.wiring_changed() || first {
            self.queue.push(Work::Wiring);
        }
    }

    fn writes(self: &Arc<Self>, key: &Work) -> Writes {
        match key {
            Work::Fence(_) => Writes::none(),
            Work::Sidecar(key) => self.sidecar_writes(key),
            Work::Auto(key) => self.auto_writes(key),
            Work::Wiring => self.wiring_writes(),
        }
    }

    fn per_minute(&self, key: &Work) -> u32 {
        match key {
            Work::Sidecar(_) => self.config().writes.per_minute,
            Work::Fence(_) | Work::Auto(_) | Work::Wiring => 0,
        }
    }

    fn written(&self, key: &Work, error: Option<WriteError>) {
        match key {
            Work::Fence(_) | Work::Auto(_) => {}
            // Somebody else was faster. The watch tells what they wrote, and then it is another write, or none.
            Work::Sidecar(key) => {
                self.note_sidecar(key, error.filter(|(reason, _)| *reason != "Conflict"));
            }
            Work::Wiring => {
                let wiring = self.inner.lock().writing.take();
                if let Some(wiring) = wiring {
                    self.note_wiring(&wiring, error.map(|(_, message)| message));
                }
            }
        }
    }

    fn status(&self, key: &Work) -> Option<StatusPatch> {
        let Work::Fence(key) = key else { return None };
        let status = self.news(key)?;
        let patch = StatusPatch::of::<ServiceFence>(&key.namespace, &key.name, &status);
        Some(patch)
    }

    fn status_written(&self, key: &Work, written: StatusPatch) {
        if let Work::Fence(key) = key
            && let Ok(status) = FenceStatus::deserialize(&written.status)
        {
            self.note_status(key, status);
        }
    }

    /// The status goes before the Sidecar: what was learned must survive before a Sidecar relies on it.
    fn done(&self, key: &Work) {
        if let Work::Fence(key) = key {
            self.queue.push(Work::Sidecar(key.clone()));
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
        let wiring = self.wiring();
        let mut writes = Writes::none();
        for (namespace, ports) in &wiring.ports {
            let service = json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME},
                "spec": {"ports": service_ports(ports, wiring.target)},
            });
            writes = writes.fields::<Service>(namespace, NAME, service);
        }
        let owner = (WIRING.0.to_owned(), WIRING.1.to_owned());
        let (filters, keep) = (wiring.filters.clone(), wiring.keep.clone());
        self.inner.lock().writing = Some(wiring);
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
        assert_eq!(engine.queue.try_pop(0), Some(Work::Wiring));
        let _ = engine.writes(&Work::Wiring);
        engine.written(&Work::Wiring, None);
        engine.queue.done(&Work::Wiring, true);
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
        let fence = Work::Fence(key.clone());
        engine.done(&fence);
        let sidecar = Work::Sidecar(key);
        assert_eq!(engine.queue.try_pop(0), None);
        assert_eq!(engine.queue.try_pop(1), Some(sidecar.clone()));
        assert_eq!(engine.per_minute(&fence), 0);
        assert_eq!(engine.per_minute(&sidecar), config.writes.per_minute);
    }
}
