//! The resources as the host sees them: it writes, and asks what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::info::{Clock, NodeInfo, StreamInfo};
use crate::resource::{Resource, Scoped};
use crate::stats::{Stats, TypeStats};
use crate::store::{Delivery, Store};
use crate::stream::{StreamSettings, StreamState};
use crate::types::{ECDS, rank};
use crate::unresolved::Unresolved;

/// A change of one type, for [`ResourceCache::update_all`].
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// The type.
    pub type_url: String,
    /// What to set.
    pub set: Vec<Scoped>,
    /// Names to remove; a name that is also set is set.
    pub remove: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    streams: Mutex<BTreeMap<u64, Arc<StreamState>>>,
    next_stream: AtomicU64,
    ready: AtomicBool,
    /// Some resources may not be here yet.
    partial: AtomicBool,
}

/// One set of resources for each type, shared by all nodes: the host writes it and streams read it.
#[derive(Debug, Clone)]
pub struct ResourceCache {
    inner: Arc<Inner>,
}

impl Default for ResourceCache {
    fn default() -> Self {
        Self::new()
    }
}

impl ResourceCache {
    /// An empty cache that serves extension configs once [`Self::mark_ready`] was called.
    pub fn new() -> Self {
        let cache = Self {
            inner: Arc::new(Inner {
                store: Store::default(),
                streams: Mutex::default(),
                next_stream: AtomicU64::new(1),
                ready: AtomicBool::new(false),
                partial: AtomicBool::new(false),
            }),
        };
        cache.serve_type(ECDS);
        cache
    }

    /// Declares a type, so that requests for it are known before its first resource exists.
    pub fn serve_type(&self, type_url: &str) {
        self.store().get_or_create(type_url);
    }

    /// Sets and removes resources of one type, visible to all, in one atomic change; returns how many really changed.
    ///
    /// The same version again is no change and wakes no stream. A name in both lists is set. Only the streams that
    /// subscribe to a changed name are woken: O(changed + affected streams).
    pub fn update(&self, type_url: &str, set: Vec<Resource>, remove: &[String]) -> usize {
        let set = set.into_iter().map(Scoped::from).collect();
        self.update_scoped(type_url, set, remove)
    }

    /// As [`Self::update`], for resources that not everyone may see.
    ///
    /// All variants of a name must be given together: they replace what the name had. Streams that can see neither the
    /// old nor the new content of a name are not woken, unless they subscribe to that very name.
    pub fn update_scoped(&self, type_url: &str, set: Vec<Scoped>, remove: &[String]) -> usize {
        if set.is_empty() && remove.is_empty() {
            return 0;
        }
        let store = self.store().get_or_create(type_url);
        let changes = store.apply(set, remove);
        store.notify(&changes);
        changes.len()
    }

    /// Changes several types, so that a client never sees a reference to what does not exist yet: first clusters,
    /// endpoints, listeners and routes are set, then removed in reverse order, and streams are woken at the end.
    /// Returns how many really changed.
    pub fn update_all(&self, mut updates: Vec<Update>) -> usize {
        updates.sort_by_key(|update| rank(&update.type_url));
        let mut rest = Vec::new();
        let mut changed = Vec::new();
        for update in updates {
            let store = self.store().get_or_create(&update.type_url);
            let set: BTreeSet<&str> = update
                .set
                .iter()
                .map(|scoped| scoped.resource.name.as_str())
                .collect();
            let mut remove = update.remove;
            remove.retain(|name| !set.contains(name.as_str()));
            changed.push((Arc::clone(&store), store.apply(update.set, &[])));
            rest.push((store, remove));
        }
        for (store, remove) in rest.into_iter().rev() {
            let gone = store.apply(Vec::new(), &remove);
            changed.push((store, gone));
        }
        for (store, changes) in &changed {
            store.notify(changes);
        }
        changed.iter().map(|(_, changes)| changes.len()).sum()
    }

    /// Lets streams in: until then they are refused, so that no client takes an empty cache for the desired state.
    pub fn mark_ready(&self) {
        self.store().begin();
        self.inner.ready.store(true, Ordering::Release);
    }

    /// Replaces what `by`, a part of the host, cannot judge: clients keep what they have of it from before, see
    /// [`Unresolved`]. Contents that are put in after [`Self::mark_ready`] are changes, which clients get.
    pub fn set_unresolved(&self, by: &'static str, what: &Unresolved) {
        if self.store().set_unresolved(by, what) {
            for stream in self.all_streams() {
                stream.wake.changed();
            }
        }
    }

    /// Whether [`Self::mark_ready`] was called.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// Some resources may be missing that will come. Delta streams are refused meanwhile: their clients drop what a
    /// server does not have. A state-of-the-world client keeps a resource that no answer names.
    pub fn set_partial(&self, partial: bool) {
        self.inner.partial.store(partial, Ordering::Release);
    }

    /// Whether resources may be missing, see [`Self::set_partial`].
    pub fn is_partial(&self) -> bool {
        self.inner.partial.load(Ordering::Acquire)
    }

    /// The current content of a name: of its first variant, whoever may see it.
    pub fn get(&self, type_url: &str, name: &str) -> Option<Arc<Resource>> {
        let store = self.store().get(type_url)?;
        let table = store.table.read();
        let first = table.variants(name).first()?;
        Some(Arc::new(first.resource()))
    }

    /// The current names of a type, sorted.
    pub fn names(&self, type_url: &str) -> Vec<String> {
        let Some(store) = self.store().get(type_url) else {
            return Vec::new();
        };
        let mut names: Vec<String> = store
            .table
            .read()
            .names()
            .map(ToString::to_string)
            .collect();
        names.sort_unstable();
        names
    }

    /// Every type on every stream, by age of the stream: O(everything that is subscribed).
    pub fn streams(&self) -> Vec<StreamInfo> {
        let clock = Clock::now();
        self.all_streams()
            .iter()
            .flat_map(|stream| stream.describe(&clock))
            .collect()
    }

    /// What each connected node was sent, accepted and refused, by node id: O(everything that is subscribed).
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.collect_nodes(None)
    }

    /// The same of one node; `None` while it is not connected.
    pub fn node(&self, id: &str) -> Option<NodeInfo> {
        self.collect_nodes(Some(id)).pop()
    }

    fn collect_nodes(&self, only: Option<&str>) -> Vec<NodeInfo> {
        let clock = Clock::now();
        let mut nodes: BTreeMap<String, NodeInfo> = BTreeMap::new();
        for stream in self.all_streams() {
            let Some(found) = stream.report(only, &clock) else {
                continue;
            };
            let node = nodes.entry(found.id.clone()).or_insert_with(|| NodeInfo {
                subscriptions: Vec::new(),
                ..found.clone()
            });
            node.subscriptions.extend(found.subscriptions);
        }
        for node in nodes.values_mut() {
            node.subscriptions
                .sort_by(|a, b| (&a.type_url, a.stream).cmp(&(&b.type_url, b.stream)));
        }
        nodes.into_values().collect()
    }

    /// The counters of each type, sorted by type.
    pub fn type_stats(&self) -> Vec<TypeStats> {
        self.store().type_stats()
    }

    /// What clients answer to resources, from now on.
    pub fn deliveries(&self) -> broadcast::Receiver<Delivery> {
        self.store().deliveries()
    }

    /// Counters to export.
    pub fn stats(&self) -> &Stats {
        &self.store().stats
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    fn all_streams(&self) -> Vec<Arc<StreamState>> {
        self.inner.streams.lock().values().cloned().collect()
    }

    pub(crate) fn open(&self, delta: bool, settings: StreamSettings) -> Arc<StreamState> {
        let id = self.inner.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(StreamState::new(id, delta, Instant::now(), settings));
        self.inner.streams.lock().insert(id, Arc::clone(&stream));
        Stats::add(&self.stats().streams_opened, 1);
        Stats::add(&self.stats().streams_active, 1);
        stream
    }

    pub(crate) fn close(&self, stream: &StreamState) {
        stream.close(self.store());
        self.inner.streams.lock().remove(&stream.id());
        let active = &self.stats().streams_active;
        active.fetch_sub(1, Ordering::Relaxed);
    }
}
