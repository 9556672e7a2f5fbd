//! Statuses and Sidecars: what is to be written, how it went, and what is live.

use std::sync::Arc;

use serde_json::{Value, json};
use trimtab_crds::fence::{Dependency, FenceStatus};
use trimtab_kit::engine::WriteError;
use trimtab_mesh::table::{Change, Follower};

use super::istiod::unsupported;
use super::{Desired, Engine, Inner, LiveSidecar, WorkItem, steps};
use crate::exclude::is_refusal;
use crate::mesh::{self, Inherited, Name, SidecarOwner};
use crate::object::FenceKey;
use crate::status::{Facts, FallbackState, ProgrammedState, status};

impl Engine {
    /// The status of a fence, when it says something new. It goes before the Sidecar: what was learned must survive before a
    /// Sidecar relies on it.
    pub fn status_update(&self, key: &FenceKey) -> Option<FenceStatus> {
        let (config, fallback) = (self.config(), self.fallback_state(&key.namespace));
        let carried = !matches!(fallback, FallbackState::NotReady(_));
        let not_carried = self.not_carried(key);
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
        let wide = entry.modes.excluded.is_some();
        let failed = entry.write_error.clone().map(|(reason, message)| {
            if wide && is_refusal(&message) {
                let why = format!("the API server's check of Sidecars refuses them: {message}");
                return ProgrammedState::Unsupported(unsupported(&why));
            }
            ProgrammedState::WriteFailed(reason, message)
        });
        let programmed_state = failed
            .or_else(|| entry.programmed_state.clone())
            .unwrap_or(ProgrammedState::Refused);
        // Another fence of the same pods may import what this one does not.
        let united = &entry.union.entries;
        let first_calls = entry.first_calls.iter();
        let first_calls = first_calls.filter(|(host, _)| !united.contains_key(*host));
        let first_calls: Vec<String> = first_calls.map(|(_, text)| text.clone()).collect();
        let facts = Facts {
            generation: entry.generation,
            mode: entry.mode,
            refusals: &entry.refusals,
            warnings: &entry.warnings,
            programmed_state: &programmed_state,
            fallback: &fallback,
            first_calls: &first_calls,
            not_carried: &not_carried,
            domains: &entry.scope.domains,
            metric_status: &self.edges.metric_status(&entry.callers),
            dependencies: &dependencies,
            size: &entry.union.size,
            entries: entry.union.named(),
            room: entry.room,
            auto: steps::auto(entry, carried, &config, self.clock.now()),
            inherited: &entry
                .inherits
                .as_deref()
                .map_or_else(String::new, taken_over),
        };
        let wanted = status(&facts, &entry.stored, self.clock.now());
        let status_update = (wanted != entry.stored).then(|| wanted.clone());
        entry.wanted = wanted;
        status_update
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

    /// Lists that the stored status has and the next one has not. They are written as empty, so that what others own in them
    /// goes in the same write: an object may have no room for both.
    pub(super) fn emptied(
        &self,
        key: &FenceKey,
        next: &FenceStatus,
    ) -> impl Iterator<Item = (String, Value)> + use<> {
        let inner = self.inner.lock();
        let stored = inner.fences.get(key).map(|entry| &entry.stored);
        let goes = |there: fn(&FenceStatus) -> bool| stored.is_some_and(there) && !there(next);
        let lists = [
            (
                "dependencies",
                goes(|s| !s.dependencies.is_empty()),
                json!([]),
            ),
            ("domains", goes(|s| !s.domains.is_empty()), json!({})),
            (
                "metricStatus",
                goes(|s| !s.metric_status.is_empty()),
                json!({}),
            ),
        ];
        let lists = lists.into_iter().filter(|(_, goes, _)| *goes);
        lists.map(|(name, _, empty)| (name.to_owned(), empty))
    }

    /// The API server refuses the status as too large. Whether there is a smaller one.
    pub(super) fn shrink(&self, key: &FenceKey) -> bool {
        let mut inner = self.inner.lock();
        let entry = inner.fences.get_mut(key);
        entry.is_some_and(|entry| entry.room.shrink())
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
        // A Sidecar without exclusions, and none at all, says nothing of them.
        let excluded = entry.modes.excluded.as_ref();
        let tried =
            excluded.is_some_and(|e| !e.is_empty()) && matches!(entry.desired, Desired::Write(_));
        let refused = error
            .as_ref()
            .is_some_and(|(_, message)| is_refusal(message));
        let told = !entry.left && tried && (error.is_none() || refused);
        if !entry.left && entry.write_error != error {
            entry.write_error = error;
            drop(inner);
            self.queue.push(WorkItem::Fence(key.clone()));
        } else {
            drop(inner);
        }
        if told {
            self.note_refusal(refused);
        }
    }
}

/// What a Sidecar takes over, as the end of a message.
fn taken_over(inherited: &Inherited) -> String {
    let fields = inherited.fields().join(", ");
    format!("; {fields} as in Sidecar {}", inherited.from)
}

/// The fence that a live Sidecar concerns: its owner, or the one that would write a Sidecar of this name.
fn concerned(row: &mesh::Sidecar, (namespace, name): &Name) -> Option<FenceKey> {
    let fence = match &row.owner {
        SidecarOwner::Fence(fence) => fence,
        SidecarOwner::User => name,
        SidecarOwner::Loose => return None,
    };
    Some(FenceKey {
        namespace: namespace.clone(),
        name: fence.clone(),
    })
}

impl Inner {
    fn drop_sidecar(&mut self, row: &mesh::Sidecar, key: &FenceKey) {
        let known = match row.owner {
            SidecarOwner::Fence(_) => self.live.remove(key).is_some(),
            _ => self.foreign.remove(key),
        };
        if known {
            self.again.insert(key.clone());
        }
    }

    fn put_sidecar(&mut self, row: &mesh::Sidecar, key: FenceKey, name: &Name) {
        let new = if matches!(row.owner, SidecarOwner::Fence(_)) {
            let version = row.version.clone().filter(|_| key.name == name.1);
            let hosts = row.hosts.clone();
            let live = LiveSidecar { hosts, version };
            let old = self.live.insert(key.clone(), live);
            old.is_none_or(|old| old.hosts != row.hosts)
        } else {
            self.foreign.insert(key.clone())
        };
        if new {
            self.again.insert(key);
        }
    }
}

impl Follower<mesh::Sidecar> for Engine {
    fn changed(&self, change: Change<'_, mesh::Sidecar>) {
        let mut inner = self.inner.lock();
        let of = |row: &Arc<mesh::Sidecar>| Some((row.clone(), concerned(row, change.name)?));
        let (old, new) = (change.old.and_then(of), change.new.and_then(of));
        if let Some((row, key)) = old {
            let stays =
                |(now, k): &(Arc<mesh::Sidecar>, FenceKey)| *k == key && now.owner == row.owner;
            if !new.as_ref().is_some_and(stays) {
                inner.drop_sidecar(&row, &key);
            }
        }
        if let Some((row, key)) = new {
            inner.put_sidecar(&row, key, change.name);
        }
        drop(inner);
        self.wake.notify_one();
    }
}
