//! The shared state: tables by type, who wants what, and what became of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::index::Index;
use crate::nodes::{NodeInfo, gather};
use crate::stats::{Stats, TypeCounters, TypeStats};
use crate::stream::{StreamSettings, StreamState};
use crate::table::{Change, Resource, Scoped, Table};
use crate::types::{ECDS, rank};

/// Deliveries kept for a receiver that is behind; then it is told that it lagged.
const DELIVERIES: usize = 8192;

/// What became of a resource at one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The client holds the content.
    Acked {
        /// Node id of the client.
        node: String,
        /// Type of the resource.
        type_url: String,
        /// Name of the resource.
        name: String,
        /// Version that was accepted.
        version: String,
        /// From publication, or from subscription if that came later, to acceptance.
        latency: Duration,
    },
    /// The client refused the content and keeps what it had. Reported once per node, name and version.
    Nacked {
        /// Node id of the client.
        node: String,
        /// Type of the resource.
        type_url: String,
        /// Name of the resource, if the refusal can be told to be about one.
        name: Option<String>,
        /// Version that was refused.
        version: String,
        /// What the client said.
        message: String,
        /// Where the resource came from, as in [`Resource::origin`]; empty if `name` is `None`.
        origin: String,
    },
}

/// One type on one stream, for the admin page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Identifies the stream while the process lives.
    pub id: u64,
    /// Node id of the client.
    pub node: String,
    /// Type of the subscription.
    pub type_url: String,
    /// Delta or state of the world.
    pub delta: bool,
    /// Subscribed to everything.
    pub wildcard: bool,
    /// Names subscribed one by one, sorted.
    pub subscribed: Vec<String>,
    /// Age of the stream.
    pub age: Duration,
    /// Version of the last response.
    pub last_sent: Option<String>,
    /// Version of the last response that was accepted.
    pub last_acked: Option<String>,
    /// Text of the last refusal.
    pub last_nack: Option<String>,
    /// How long the client has not answered the last response.
    pub outstanding: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct TypeStore {
    pub(crate) url: Arc<str>,
    pub(crate) table: RwLock<Table>,
    pub(crate) index: Mutex<Index>,
    pub(crate) counters: TypeCounters,
}

impl TypeStore {
    fn apply(&self, set: Vec<Scoped>, remove: &[String], stats: &Stats) -> Vec<Change> {
        let changes = self.table.write().apply(set, remove, Instant::now());
        Stats::add(&stats.changes, changes.len());
        Stats::add(&self.counters.changes, changes.len());
        changes
    }

    /// The table is written before the index is read, and a stream enters the index before it reads the table: one of
    /// the two always sees the other.
    fn announce(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let concerned = self.index.lock().concerned(changes);
        for stream in concerned {
            stream.changed();
        }
    }
}

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
    types: RwLock<BTreeMap<String, Arc<TypeStore>>>,
    streams: Mutex<BTreeMap<u64, Arc<StreamState>>>,
    /// Open streams by identity.
    identities: Mutex<HashMap<String, usize>>,
    next_stream: AtomicU64,
    ready: AtomicBool,
    stats: Stats,
    deliveries: broadcast::Sender<Delivery>,
}

/// All resources of all types, shared by the host that writes them and the streams that read them.
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
                types: RwLock::default(),
                streams: Mutex::default(),
                identities: Mutex::default(),
                next_stream: AtomicU64::new(1),
                ready: AtomicBool::new(false),
                stats: Stats::default(),
                deliveries: broadcast::Sender::new(DELIVERIES),
            }),
        };
        cache.serve_type(ECDS);
        cache
    }

    /// Declares a type, so that requests for it are known before its first resource exists.
    pub fn serve_type(&self, type_url: &str) {
        self.store_or_create(type_url);
    }

    /// Sets and removes resources of one type, visible to all, in one atomic change; returns how many really changed.
    ///
    /// The same version again is no change and wakes nobody. A name in both lists is set. Only the streams that
    /// subscribe to a changed name are woken: O(changed + concerned streams).
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
        let store = self.store_or_create(type_url);
        let changes = store.apply(set, remove, &self.inner.stats);
        store.announce(&changes);
        changes.len()
    }

    /// Changes several types, so that a client never sees a reference to what does not exist yet: first clusters,
    /// endpoints, listeners and routes are set, then the other way round removed, and streams are told at the end.
    /// Returns how many really changed.
    pub fn update_all(&self, mut updates: Vec<Update>) -> usize {
        updates.sort_by_key(|update| rank(&update.type_url));
        let mut rest = Vec::new();
        let mut changed = Vec::new();
        for update in updates {
            let store = self.store_or_create(&update.type_url);
            let set: std::collections::BTreeSet<&str> = update
                .set
                .iter()
                .map(|scoped| scoped.resource.name.as_str())
                .collect();
            let mut remove = update.remove;
            remove.retain(|name| !set.contains(name.as_str()));
            changed.push((
                Arc::clone(&store),
                store.apply(update.set, &[], &self.inner.stats),
            ));
            rest.push((store, remove));
        }
        for (store, remove) in rest.into_iter().rev() {
            let gone = store.apply(Vec::new(), &remove, &self.inner.stats);
            changed.push((store, gone));
        }
        for (store, changes) in &changed {
            store.announce(changes);
        }
        changed.iter().map(|(_, changes)| changes.len()).sum()
    }

    /// Opens the door: until then streams are refused, so that no client takes an empty cache for the truth.
    pub fn mark_ready(&self) {
        self.inner.ready.store(true, Ordering::Release);
    }

    /// Whether [`Self::mark_ready`] was called.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// The current content of a name: of its first variant, whoever may see it.
    pub fn get(&self, type_url: &str, name: &str) -> Option<Arc<Resource>> {
        let store = self.store(type_url)?;
        let table = store.table.read();
        let first = table.variants(name).first()?;
        Some(Arc::new(first.resource()))
    }

    /// The current names of a type, sorted.
    pub fn names(&self, type_url: &str) -> Vec<String> {
        let Some(store) = self.store(type_url) else {
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

    /// Every type on every stream, by age of the stream.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let now = Instant::now();
        self.all_streams()
            .iter()
            .flat_map(|stream| stream.describe(now))
            .collect()
    }

    /// What each connected node was sent, accepted and refused, by node id: O(everything that is subscribed).
    pub fn nodes(&self) -> Vec<NodeInfo> {
        gather(&self.all_streams(), None)
    }

    /// The same of one node; `None` while it is not connected.
    pub fn node(&self, id: &str) -> Option<NodeInfo> {
        gather(&self.all_streams(), Some(id)).pop()
    }

    /// The counters of each type, sorted by type.
    pub fn type_stats(&self) -> Vec<TypeStats> {
        let types: Vec<Arc<TypeStore>> = self.inner.types.read().values().cloned().collect();
        types
            .iter()
            .map(|store| {
                let names = store.table.read().len();
                store.counters.read(&store.url, names)
            })
            .collect()
    }

    /// What becomes of resources at clients, from now on.
    pub fn deliveries(&self) -> broadcast::Receiver<Delivery> {
        self.inner.deliveries.subscribe()
    }

    /// Counters to export.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    pub(crate) fn store(&self, type_url: &str) -> Option<Arc<TypeStore>> {
        self.inner.types.read().get(type_url).cloned()
    }

    fn store_or_create(&self, type_url: &str) -> Arc<TypeStore> {
        if let Some(store) = self.store(type_url) {
            return store;
        }
        let mut types = self.inner.types.write();
        let store = types.entry(type_url.to_owned()).or_insert_with(|| {
            Arc::new(TypeStore {
                url: type_url.into(),
                table: RwLock::default(),
                index: Mutex::default(),
                counters: TypeCounters::default(),
            })
        });
        Arc::clone(store)
    }

    fn all_streams(&self) -> Vec<Arc<StreamState>> {
        self.inner.streams.lock().values().cloned().collect()
    }

    pub(crate) fn open(&self, delta: bool, settings: StreamSettings) -> Arc<StreamState> {
        let id = self.inner.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(StreamState::new(id, delta, Instant::now(), settings));
        self.inner.streams.lock().insert(id, Arc::clone(&stream));
        Stats::add(&self.inner.stats.streams_opened, 1);
        Stats::add(&self.inner.stats.streams_active, 1);
        stream
    }

    /// Counts a stream of an identity; false if it has as many as it may. O(1).
    pub(crate) fn admit(&self, identity: &str, most: usize) -> bool {
        let mut identities = self.inner.identities.lock();
        let count = identities.entry(identity.to_owned()).or_default();
        let room = *count < most;
        if room {
            *count += 1;
        } else if *count == 0 {
            identities.remove(identity);
        }
        room
    }

    pub(crate) fn release(&self, identity: &str) {
        let mut identities = self.inner.identities.lock();
        if let Some(count) = identities.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                identities.remove(identity);
            }
        }
    }

    pub(crate) fn close(&self, stream: &StreamState) {
        self.inner.streams.lock().remove(&stream.id());
        self.inner
            .stats
            .streams_active
            .fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn report(&self, deliveries: impl Iterator<Item = Delivery>) {
        if self.inner.deliveries.receiver_count() == 0 {
            return;
        }
        for delivery in deliveries {
            // The last receiver may go away in between, and then nobody wants to know.
            let _ = self.inner.deliveries.send(delivery);
        }
    }
}
