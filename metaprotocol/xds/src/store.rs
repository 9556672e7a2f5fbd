//! The state that all streams share: the table, the index and the counters of each type, and the receivers of deliveries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::index::Index;
use crate::info::Culprit;
use crate::resource::Scoped;
use crate::stats::{Stats, TypeCounters, TypeStats};
use crate::table::{Change, Table};
use crate::unresolved::Unresolved;

/// Deliveries kept for a receiver that is behind; after that its `recv` returns `Lagged`.
const DELIVERIES: usize = 8192;

/// What a client answered to a resource, or that it has left.
///
/// What holds at a client is kept by stream, type and name: the last of `Acked`, `Nacked` and `Left` counts, for its own
/// version only, and `Closed` ends all that a stream said. So an ACK of one resource or type says nothing of another, an
/// ACK of an older version is no acceptance of the current one, and two streams of one node do not mix.
/// [`ResourceCache::nodes`](crate::ResourceCache::nodes) has the same at any moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The client accepted the content. Not reported while a NACK of a response with several resources may be about this
    /// one, see [`Culprit::Unknown`]; made up for when it turns out that it was another.
    Acked {
        /// The stream, as in [`StreamInfo::id`](crate::StreamInfo::id).
        stream: u64,
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
    /// The client refused the content and keeps what it had. Reported for each stream and each NACK: of a response with
    /// several resources for each of them with [`Culprit::Unknown`], and again when one of them is refused alone.
    Nacked {
        /// The stream.
        stream: u64,
        /// Node id of the client.
        node: String,
        /// Type of the resource.
        type_url: String,
        /// Name of the resource; `None` if the response had several and the error does not tell which one is bad.
        name: Option<String>,
        /// Version that was refused.
        version: String,
        /// The client's `error_detail`.
        message: String,
        /// Where the resource came from, as in [`Resource::origin`](crate::Resource::origin); empty if `name` is `None`.
        origin: String,
        /// Whether the resource is to blame for sure.
        culprit: Culprit,
    },
    /// The client no longer subscribes to a name.
    Left {
        /// The stream.
        stream: u64,
        /// Node id of the client.
        node: String,
        /// Type of the resource.
        type_url: String,
        /// Name of the resource.
        name: String,
    },
    /// The stream ended: what it accepted and refused no longer counts.
    Closed {
        /// The stream.
        stream: u64,
        /// Node id of the client.
        node: String,
    },
}

/// All resources of one type, and the streams that watch them.
#[derive(Debug)]
pub(crate) struct TypeStore {
    pub(crate) url: Arc<str>,
    pub(crate) table: RwLock<Table>,
    pub(crate) index: Mutex<Index>,
    pub(crate) counters: TypeCounters,
}

impl TypeStore {
    fn new(type_url: &str) -> Self {
        Self {
            url: type_url.into(),
            table: RwLock::default(),
            index: Mutex::default(),
            counters: TypeCounters::default(),
        }
    }

    pub(crate) fn apply(&self, set: Vec<Scoped>, remove: &[String]) -> Vec<Change> {
        let changes = self.table.write().apply(set, remove, Instant::now());
        Stats::add(&self.counters.changes, changes.len());
        changes
    }

    /// The table is written before the index is read, and a stream enters the index before it reads the table: one of
    /// the two always sees the other.
    pub(crate) fn notify(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let affected = self.index.lock().affected(changes);
        for stream in affected {
            stream.changed();
        }
    }
}

/// All types, with what streams count and report.
#[derive(Debug)]
pub(crate) struct Store {
    types: RwLock<BTreeMap<String, Arc<TypeStore>>>,
    /// Open streams by identity.
    identities: Mutex<HashMap<String, usize>>,
    /// Names that open streams subscribe to.
    names: AtomicUsize,
    pub(crate) stats: Arc<Stats>,
    deliveries: broadcast::Sender<Delivery>,
    /// What cannot be judged, for types that come later; and since when contents are changes.
    unresolved: Mutex<(BTreeMap<&'static str, Unresolved>, Option<Instant>)>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            types: RwLock::default(),
            identities: Mutex::default(),
            names: AtomicUsize::default(),
            stats: Arc::default(),
            deliveries: broadcast::Sender::new(DELIVERIES),
            unresolved: Mutex::default(),
        }
    }
}

impl Store {
    pub(crate) fn get(&self, type_url: &str) -> Option<Arc<TypeStore>> {
        self.types.read().get(type_url).cloned()
    }

    pub(crate) fn get_or_create(&self, type_url: &str) -> Arc<TypeStore> {
        if let Some(store) = self.get(type_url) {
            return store;
        }
        let unresolved = self.unresolved.lock();
        let mut types = self.types.write();
        let store = types.entry(type_url.to_owned()).or_insert_with(|| {
            let store = TypeStore::new(type_url);
            let mut table = store.table.write();
            for (by, what) in &unresolved.0 {
                table.holds.set(by, what.clone());
            }
            if let Some(begun) = unresolved.1 {
                table.holds.begin(begun);
            }
            drop(table);
            Arc::new(store)
        });
        Arc::clone(store)
    }

    /// Replaces what `by` cannot judge; false if it is the same.
    pub(crate) fn set_unresolved(&self, by: &'static str, what: &Unresolved) -> bool {
        let mut unresolved = self.unresolved.lock();
        if *what == Unresolved::Nothing {
            unresolved.0.remove(by);
        } else {
            unresolved.0.insert(by, what.clone());
        }
        let mut changed = false;
        for store in self.types.read().values() {
            changed |= store.table.write().holds.set(by, what.clone());
        }
        changed
    }

    /// The first contents are complete.
    pub(crate) fn begin(&self) {
        let mut unresolved = self.unresolved.lock();
        let begun = *unresolved.1.get_or_insert_with(Instant::now);
        for store in self.types.read().values() {
            store.table.write().holds.begin(begun);
        }
    }

    /// The counters of each type, sorted by type.
    pub(crate) fn type_stats(&self) -> Vec<TypeStats> {
        let types: Vec<Arc<TypeStore>> = self.types.read().values().cloned().collect();
        types
            .iter()
            .map(|store| {
                let names = store.table.read().len();
                store.counters.read(&store.url, names)
            })
            .collect()
    }

    /// Counts a stream of an identity; false if it has as many as it may. O(1).
    pub(crate) fn admit(&self, identity: &str, limit: usize) -> bool {
        let mut identities = self.identities.lock();
        let count = identities.entry(identity.to_owned()).or_default();
        let admitted = *count < limit;
        if admitted {
            *count += 1;
        } else if *count == 0 {
            identities.remove(identity);
        }
        admitted
    }

    pub(crate) fn release(&self, identity: &str) {
        let mut identities = self.identities.lock();
        if let Some(count) = identities.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                identities.remove(identity);
            }
        }
    }

    /// A stream has subscribed to so many names instead of those before; gives the number of all streams.
    pub(crate) fn count_names(&self, before: usize, now: usize) -> usize {
        self.names.fetch_add(now, Ordering::Relaxed);
        self.names.fetch_sub(before, Ordering::Relaxed) - before
    }

    pub(crate) fn deliveries(&self) -> broadcast::Receiver<Delivery> {
        self.deliveries.subscribe()
    }

    pub(crate) fn report(&self, deliveries: impl Iterator<Item = Delivery>) {
        if self.deliveries.receiver_count() == 0 {
            return;
        }
        for delivery in deliveries {
            // The last receiver may go away in between.
            let _ = self.deliveries.send(delivery);
        }
    }
}
