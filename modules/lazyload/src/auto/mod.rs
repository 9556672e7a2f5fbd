//! ServiceFences that Trimtab makes: for Services, by labels and annotations of the Service and its Namespace, and for
//! pods, by a label.
//!
//! | asked, in this order | says |
//! |---|---|
//! | label `slime.io/serviceFenced` of the Service | `true` or `false` |
//! | annotation `lazy-xds` of the Service | `true` |
//! | label `slime.io/serviceFenced` of the Namespace | `true` or `false` |
//! | annotation `lazy-xds` of the Namespace | `true` |
//! | `defaultFence` | the rest |
//!
//! The labels and `defaultFence` count with `autoFence` only; the annotations, which lazyxds has without a switch, always.
//! A fence that a user has made is never changed or deleted.

mod decide;
mod follow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::fence::ServiceFence;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{Namespace, Pod, Service};
use trimtab_mesh::table::Table;

use crate::config::LazyloadConfig;
use crate::mesh::Fence;
use crate::object::FenceKey;

pub use decide::WORKLOAD_IDENTITY;

/// What is to be done about one name.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The fence is wanted and not there, or there without what the configuration says.
    Apply(Box<ServiceFence>),
    /// The fence is ours and not wanted. Delete it, if it still has this UID.
    Delete {
        /// `metadata.uid`.
        uid: String,
    },
}

#[derive(Debug)]
struct State {
    services: Arc<Table<Service>>,
    namespaces: Arc<Table<Namespace>>,
    fences: Arc<Table<Fence>>,
    rows: Arc<Table<Pod>>,
    /// Pods by the fence that their label asks for, with the label's value.
    pods: HashMap<FenceKey, (String, HashSet<Arc<str>>)>,
    dirty: BTreeSet<FenceKey>,
}

/// What decides about automatic fences.
#[derive(Debug)]
pub struct AutoFences {
    config: Mutex<Arc<LazyloadConfig>>,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

impl AutoFences {
    /// Nothing is known yet. `wake` is notified when there is something to decide.
    pub fn new(config: Arc<LazyloadConfig>, mesh: &Mesh, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            config: Mutex::new(config),
            state: Mutex::new(State {
                services: mesh.table(),
                namespaces: mesh.table(),
                fences: mesh.table(),
                rows: mesh.table(),
                pods: HashMap::new(),
                dirty: BTreeSet::new(),
            }),
            wake,
        })
    }

    /// Takes a changed configuration over: everything is decided again.
    ///
    /// Pods are known by the label of the configuration that they came with; a changed `fenceLabelKeyAlias` needs a restart.
    pub fn reconfigure(&self, config: Arc<LazyloadConfig>) {
        *self.config.lock() = config;
        let mut state = self.state.lock();
        let mut all: Vec<FenceKey> = state.pods.keys().cloned().collect();
        all.extend(
            state
                .services
                .rows()
                .iter()
                .map(|(name, _)| FenceKey::of(name)),
        );
        all.extend(
            state
                .fences
                .rows()
                .iter()
                .map(|(name, _)| FenceKey::of(name)),
        );
        state.dirty.extend(all);
        drop(state);
        self.wake.notify_one();
    }

    /// Names about which something may have to be done, sorted.
    pub fn drain_changes(&self) -> BTreeSet<FenceKey> {
        std::mem::take(&mut self.state.lock().dirty)
    }

    /// What is to be done about a name; `None`: nothing.
    pub fn decide(&self, key: &FenceKey) -> Option<Action> {
        let config = self.config.lock().clone();
        decide::decide(&config, &self.state.lock(), key)
    }

    fn mark(&self, keys: impl IntoIterator<Item = FenceKey>) {
        let mut state = self.state.lock();
        let before = state.dirty.len();
        state.dirty.extend(keys);
        let more = state.dirty.len() > before;
        drop(state);
        if more {
            self.wake.notify_one();
        }
    }
}
