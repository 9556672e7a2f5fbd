//! What the writers ask of the engine, and what they report back.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::fence::{Dependency, FenceStatus};
use trimtab_crds::istio::Sidecar;
use trimtab_kit::watch::Feed;

use super::{Desired, Engine, Work};
use crate::object::FenceKey;
use crate::status::{Facts, Standing, status};

/// What is to be written of a fence. The status goes first: what was learned must survive before a Sidecar relies on it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The status, when it says something new.
    pub status: Option<FenceStatus>,
    /// The Sidecar.
    pub sidecar: Desired,
}

impl Engine {
    /// What is to be written of a fence now.
    pub fn plan(&self, key: &FenceKey) -> Plan {
        let fallback = self.fallback_state(&key.namespace);
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return Plan {
                status: None,
                sidecar: Desired::None,
            };
        };
        let mut dependencies: Vec<Dependency> = entry
            .callers
            .iter()
            .flat_map(|caller| self.edges.to_dependencies(caller))
            .collect();
        for dependency in &mut dependencies {
            super::view::mark_unresolved(dependency, &entry.scope);
        }
        dependencies.sort_by(|a, b| (&a.host, &a.caller).cmp(&(&b.host, &b.caller)));
        let failed = entry
            .write_error
            .clone()
            .map(|(reason, message)| Standing::WriteFailed(reason, message));
        let standing = failed
            .or_else(|| entry.standing.clone())
            .unwrap_or(Standing::Refused);
        let facts = Facts {
            generation: entry.generation,
            mode: entry.mode,
            refusals: &entry.refusals,
            warnings: &entry.warnings,
            standing: &standing,
            fallback: &fallback,
            domains: &entry.scope.domains,
            metric_status: &self.edges.metric_status(&entry.callers),
            dependencies: &dependencies,
            size: &entry.union.size,
            entries: entry.union.entries.len(),
        };
        let wanted = status(&facts, &entry.stored, self.clock.now());
        let news = (wanted != entry.stored).then(|| wanted.clone());
        entry.wanted = wanted;
        Plan {
            status: news,
            sidecar: entry.desired.clone(),
        }
    }

    /// The status was written.
    pub fn note_status(&self, key: &FenceKey, written: FenceStatus) {
        if let Some(entry) = self.inner.lock().fences.get_mut(key) {
            entry.stored = written;
        }
    }

    /// How the write of a Sidecar went: a failure, and its end, show in the status.
    pub fn note_sidecar(&self, key: &FenceKey, error: Option<(&'static str, String)>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        if entry.write_error != error {
            entry.write_error = error;
            drop(inner);
            self.queue.push(Work::Fence(key.clone()), ());
        }
    }
}

/// The fence that a live Sidecar of ours belongs to, with its hosts.
fn owned(sidecar: &Sidecar) -> Option<(FenceKey, BTreeSet<String>)> {
    let references = sidecar.owner_references();
    let owner = references
        .iter()
        .find(|r| r.controller == Some(true) && r.kind == "ServiceFence")?;
    let key = FenceKey {
        namespace: sidecar.namespace().unwrap_or_default(),
        name: owner.name.clone(),
    };
    let hosts = sidecar
        .spec
        .egress
        .iter()
        .flat_map(|e| e.hosts.iter().cloned());
    Some((key, hosts.collect()))
}

impl Feed<Sidecar> for Engine {
    fn apply(&self, sidecar: Arc<Sidecar>) {
        if let Some((key, hosts)) = owned(&sidecar) {
            self.inner.lock().live.insert(key, hosts);
        }
    }

    fn delete(&self, sidecar: Arc<Sidecar>) {
        if let Some((key, _)) = owned(&sidecar) {
            self.inner.lock().live.remove(&key);
        }
    }

    fn reset(&self, sidecars: Vec<Arc<Sidecar>>, unreadable: &[(String, String)]) {
        let mut inner = self.inner.lock();
        inner.live.retain(|key, _| {
            unreadable
                .iter()
                .any(|(namespace, name)| *namespace == key.namespace && *name == key.name)
        });
        inner.live.extend(sidecars.iter().filter_map(|s| owned(s)));
    }
}
