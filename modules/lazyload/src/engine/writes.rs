//! Statuses and Sidecars: what is to be written, how it went, and what is live.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::fence::{Dependency, FenceStatus};
use trimtab_crds::istio::Sidecar;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_kit::engine::WriteError;
use trimtab_kit::watch::Feed;

use super::{Desired, Engine, Inner, LiveSidecar, Work};
use crate::object::FenceKey;
use crate::status::{Facts, Standing, status};

impl Engine {
    /// The status of a fence, when it says something new. It goes before the Sidecar: what was learned must survive before a
    /// Sidecar relies on it.
    pub fn news(&self, key: &FenceKey) -> Option<FenceStatus> {
        let fallback = self.fallback_state(&key.namespace);
        let mut inner = self.inner.lock();
        let entry = inner.fences.get_mut(key)?;
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
        news
    }

    /// The Sidecar as it must be now. It carries the version of the one that it was worked out from, if there is one, so
    /// that nobody else's write between is undone.
    pub fn desired(&self, key: &FenceKey) -> Desired {
        let inner = self.inner.lock();
        let Some(entry) = inner.fences.get(key) else {
            return Desired::None;
        };
        let Desired::Write(sidecar) = &entry.desired else {
            return entry.desired.clone();
        };
        let live = inner.live.get(key);
        if live.map(|l| &l.hosts) != entry.decided_on.as_ref() {
            // It is about to be worked out again.
            return Desired::Keep;
        }
        let mut sidecar = sidecar.clone();
        sidecar.metadata.resource_version = live.and_then(|l| l.version.clone());
        Desired::Write(sidecar)
    }

    /// The status was written.
    pub fn note_status(&self, key: &FenceKey, written: FenceStatus) {
        if let Some(entry) = self.inner.lock().fences.get_mut(key) {
            entry.stored = written;
        }
    }

    /// How the write of a Sidecar went: a failure, and its end, show in the status.
    pub fn note_sidecar(&self, key: &FenceKey, error: Option<WriteError>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        if !entry.left && entry.write_error != error {
            entry.write_error = error;
            drop(inner);
            self.queue.push(Work::Fence(key.clone()));
        }
    }
}

/// What a live Sidecar is to us.
enum Live {
    /// Ours, or Slime's: its fence, with its hosts.
    Owned(FenceKey, LiveSidecar),
    /// A user's.
    Foreign(FenceKey),
    /// Ours, without an owner.
    Loose,
}

fn key_of(sidecar: &Sidecar, name: &str) -> FenceKey {
    FenceKey {
        namespace: sidecar.namespace().unwrap_or_default(),
        name: name.to_owned(),
    }
}

/// Hosts of a Sidecar.
pub(super) fn hosts_of(sidecar: &Sidecar) -> BTreeSet<String> {
    let egress = sidecar.spec.egress.iter();
    egress.flat_map(|e| e.hosts.iter().cloned()).collect()
}

fn live(sidecar: &Sidecar) -> Live {
    let references = sidecar.owner_references();
    let owner = references
        .iter()
        .find(|r| r.controller == Some(true) && r.kind == "ServiceFence");
    let ours = sidecar.labels().get(MANAGED_BY_LABEL);
    match owner {
        None if ours.is_some_and(|by| by == MANAGED_BY) => Live::Loose,
        None => Live::Foreign(key_of(sidecar, &sidecar.name_any())),
        Some(owner) => {
            let version = sidecar.resource_version();
            let live = LiveSidecar {
                hosts: hosts_of(sidecar),
                version: version.filter(|_| owner.name == sidecar.name_any()),
            };
            Live::Owned(key_of(sidecar, &owner.name), live)
        }
    }
}

impl Inner {
    fn put_sidecar(&mut self, sidecar: &Sidecar) {
        match live(sidecar) {
            Live::Owned(key, live) => {
                let hosts = live.hosts.clone();
                let old = self.live.insert(key.clone(), live);
                if old.is_none_or(|old| old.hosts != hosts) {
                    self.again.insert(key);
                }
            }
            Live::Foreign(key) => {
                if self.foreign.insert(key.clone()) {
                    self.again.insert(key);
                }
            }
            Live::Loose => {}
        }
    }

    fn drop_sidecar(&mut self, sidecar: &Sidecar) {
        if let Live::Owned(key, _) = live(sidecar) {
            self.live.remove(&key);
            self.again.insert(key);
        }
        let key = key_of(sidecar, &sidecar.name_any());
        if self.foreign.remove(&key) {
            self.again.insert(key);
        }
    }
}

impl Feed<Sidecar> for Engine {
    fn apply(&self, sidecar: Arc<Sidecar>) {
        self.inner.lock().put_sidecar(&sidecar);
        self.wake.notify_one();
    }

    fn delete(&self, sidecar: Arc<Sidecar>) {
        self.inner.lock().drop_sidecar(&sidecar);
        self.wake.notify_one();
    }

    fn reset(&self, sidecars: Vec<Arc<Sidecar>>, unreadable: &[(String, String)]) {
        let mut inner = self.inner.lock();
        let unread = |key: &FenceKey| {
            let mut names = unreadable.iter();
            names.any(|(namespace, name)| *namespace == key.namespace && *name == key.name)
        };
        let owner = |sidecar: &Arc<Sidecar>| match live(sidecar) {
            Live::Owned(key, _) => Some(key),
            Live::Foreign(_) | Live::Loose => None,
        };
        let listed: BTreeSet<FenceKey> = sidecars.iter().filter_map(owner).collect();
        let lost = |key: &&FenceKey| !listed.contains(*key) && !unread(key);
        let lost: Vec<FenceKey> = inner.live.keys().filter(lost).cloned().collect();
        inner.live.retain(|key, _| !lost.contains(key));
        inner.again.extend(lost);
        let gone: Vec<FenceKey> = inner
            .foreign
            .iter()
            .filter(|k| !unread(k))
            .cloned()
            .collect();
        inner.foreign.retain(unread);
        inner.again.extend(gone);
        for sidecar in &sidecars {
            inner.put_sidecar(sidecar);
        }
        drop(inner);
        self.wake.notify_one();
    }
}
