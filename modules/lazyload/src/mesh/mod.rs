//! State from watches, and which fences an event touches.
//!
//! An event marks the fences whose scope or Sidecar may depend on it and no others: those that consulted the host, the
//! namespace or the label ([`Index::scope`]), and those whose pods, selectors or users' Sidecars it changes. A change of
//! sizes alone (endpoints come and go) marks none.
//!
//! The index does not know of learned calls. Who keeps them computes a fence again when they change, and unites again what
//! is written for the fences in its `overlaps` when its scope has changed.

mod addresses;
mod aliases;
mod directory;
mod fences;
mod follow;
pub(crate) mod hosts;
mod inherit;
mod marks;
mod pods;
mod registry;
mod resolve;
mod sidecars;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard};
use tokio::sync::Notify;

use crate::config::LazyloadConfig;
use crate::object::{Caller, FenceKey};
use crate::scope::{Scope, ScopeInput, compute};
pub use fences::Fence;
pub use inherit::Inherited;
pub use pods::Standing;
pub use registry::Registry;
pub use resolve::{Problem, ResolvedFence};
pub use sidecars::{Sidecar, SidecarOwner, hosts_of};
use state::State;
use trimtab_mesh::Mesh;
pub use trimtab_mesh::Name;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, GrpcRoute, HttpRoute, Namespace, Pod, Service, ServiceEntry,
    VirtualService,
};

/// What events have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fences to resolve and compute again, also those that are gone.
    pub fences: BTreeSet<FenceKey>,
    /// Fences whose stored status is another one, not by itself a reason to compute.
    pub statuses: BTreeSet<FenceKey>,
    /// A fallback has got its first endpoint, or lost its last, which no fence depends on by itself.
    pub fallback: bool,
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
    /// An empty index over a mesh.
    pub fn new(config: &LazyloadConfig, mesh: &Mesh) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State::new(config, mesh)),
            wake: Notify::new(),
        })
    }

    /// Follows a mesh without the kit: for tests and benchmarks.
    pub fn attach(self: &Arc<Self>, mesh: &Mesh) {
        mesh.table::<Fence>().follow(self);
        mesh.table::<Service>().follow(self);
        mesh.table::<Namespace>().follow(self);
        mesh.table::<Pod>().follow(self);
        mesh.table::<Namespace>().follow(self);
        mesh.table::<EndpointSlice>().follow(self);
        mesh.table::<ServiceEntry>().follow(self);
        mesh.table::<VirtualService>().follow(self);
        mesh.table::<HttpRoute>().follow(self);
        mesh.table::<GrpcRoute>().follow(self);
        mesh.table::<DestinationRule>().follow(self);
        mesh.table::<Sidecar>().follow(self);
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
    pub fn drain_changes(&self) -> Changes {
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

    /// Namespaces of all fences.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let state = self.state.read();
        state.fences.keys().map(|k| k.namespace.clone()).collect()
    }

    /// The user's Sidecar that counts for pods of a namespace which no Sidecar selects: of the namespace, else of Istio's
    /// root namespace.
    pub fn default_sidecar(&self, namespace: &str) -> Option<Arc<Sidecar>> {
        self.state.read().counting_sidecar(namespace).cloned()
    }

    /// Whether the Sidecar for a whole namespace rejects what the mesh does not know; `None`: it does not say.
    pub fn registry_only(&self, namespace: &str) -> Option<bool> {
        self.state.read().inherits(namespace)?.registry_only()
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
