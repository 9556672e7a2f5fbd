//! State from watches, and which fences an event touches.
//!
//! An event marks the fences whose scope or Sidecar may depend on it and no others: those that consulted the host, the
//! namespace or the label ([`Index::scope`]), and those whose pods, selectors or users' Sidecars it changes. A change of
//! sizes alone (endpoints come and go) marks none: it only sets [`Changes::mesh`].
//!
//! The index does not know of learned calls. Who keeps them computes a fence again when they change, and unites again what
//! is written for the fences in its `overlaps` when its scope has changed.

mod addresses;
mod directory;
mod facts;
mod feeds;
mod fences;
mod host_map;
mod marks;
mod pods;
mod registry;
mod resolve;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard};
use tokio::sync::Notify;

use crate::config::LazyloadConfig;
use crate::object::{Caller, FenceKey};
use crate::scope::{Labels, Scope, ScopeInput, compute};
pub use facts::ServiceInfo;
pub use registry::Registry;
pub use resolve::{Problem, ResolvedFence};
use state::State;

/// Namespace and name.
pub type Name = (String, String);

/// What events have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fences to resolve and compute again, also those that are gone.
    pub fences: BTreeSet<FenceKey>,
    /// Fences whose stored status is another one, not by itself a reason to compute.
    pub statuses: BTreeSet<FenceKey>,
    /// Whether the number or the size of services may have changed.
    pub mesh: bool,
    /// Services that are new, gone, or have other labels, annotations or selectors.
    pub services: BTreeSet<Name>,
    /// Namespaces that are new, gone, or have other labels or annotations.
    pub namespaces: BTreeSet<String>,
    /// Whether workloads have come or gone, or pods with other labels.
    pub workloads: bool,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The index. Cheap to share.
#[derive(Debug)]
pub struct Index {
    state: RwLock<State>,
    wake: Notify,
}

impl Index {
    /// An empty index.
    pub fn new(config: &LazyloadConfig) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State::new(config)),
            wake: Notify::new(),
        })
    }

    /// Takes over another configuration; all fences are marked. The domain of the cluster only changes with a new index.
    pub fn configure(&self, config: &LazyloadConfig) {
        self.with(|state| state.configure(config));
    }

    /// Waits until something has changed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes what events have changed.
    pub fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.state.write().changes)
    }

    /// The mesh, to look at. Events wait while the guard lives: keep it for one scope, and call no other method of the
    /// index meanwhile.
    pub fn services(&self) -> MappedRwLockReadGuard<'_, Registry> {
        RwLockReadGuard::map(self.state.read(), |state| &state.registry)
    }

    /// All fences.
    pub fn fences(&self) -> Vec<FenceKey> {
        self.state.read().fences.keys().cloned().collect()
    }

    /// Fences whose pods a caller's are, or whose stored status names it; sorted.
    pub fn fences_of(&self, caller: &Caller) -> Vec<FenceKey> {
        self.state.read().fences_of(caller)
    }

    /// A fence with what it depends on besides its scope; `None`: it is gone.
    pub fn resolve(&self, key: &FenceKey) -> Option<ResolvedFence> {
        self.state.read().resolve(key)
    }

    /// Computes a fence's scope and notes what it consulted, so that later events find the fence. No event falls in between;
    /// look-ups go on meanwhile.
    pub fn scope(&self, input: &ScopeInput<'_>) -> Scope {
        let state = self.state.upgradable_read();
        let scope = compute(input, &state.registry);
        if state.fences.contains_key(input.fence) {
            let mut state = RwLockUpgradableReadGuard::upgrade(state);
            state.marks.depend(input.fence, &scope.consulted);
        }
        scope
    }

    /// Labels of a Namespace.
    pub fn namespace_labels(&self, namespace: &str) -> Option<Labels> {
        let state = self.state.read();
        Some(state.namespaces.get(namespace)?.labels.clone())
    }

    /// Annotation `lazy-xds` of a Namespace.
    pub fn namespace_lazy_xds(&self, namespace: &str) -> Option<String> {
        let state = self.state.read();
        state.namespaces.get(namespace)?.lazy_xds.clone()
    }

    /// Namespaces that are known, with their labels.
    pub fn namespaces(&self) -> BTreeMap<String, Labels> {
        let state = self.state.read();
        let all = state.namespaces.iter();
        all.map(|(name, row)| (name.clone(), row.labels.clone()))
            .collect()
    }

    /// Namespace and value of every pod label of this key. Scans the labels of all workloads.
    pub fn pod_label_values(&self, key: &str) -> BTreeSet<(String, String)> {
        self.state.read().pods.values(key)
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.state.write();
        f(&mut state);
        let changed = !state.changes.is_empty();
        drop(state);
        if changed {
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
