//! Revisioned storage: objects, one bounded event log per resource, and the owner index.
//!
//! Nothing here knows HTTP, schemas or time. Objects are shared by reference between the store and all readers, their texts
//! between the store and its logs; an object is serialized at most once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::meta;

/// Group and plural name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceId {
    pub(crate) group: Arc<str>,
    pub(crate) plural: Arc<str>,
}

impl ResourceId {
    pub(crate) fn new(group: &str, plural: &str) -> Self {
        Self {
            group: group.into(),
            plural: plural.into(),
        }
    }
}

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) value: Value,
    json: OnceLock<Bytes>,
}

impl Stored {
    fn new(value: Value) -> Self {
        Self {
            value,
            json: OnceLock::new(),
        }
    }

    /// An object that is never written, as the answer of a dry run.
    pub(crate) fn draft(value: Value) -> Self {
        Self::new(value)
    }

    /// The serialized object; computed once.
    pub(crate) fn json(&self) -> Bytes {
        self.json
            .get_or_init(|| Bytes::from(self.value.to_string()))
            .clone()
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// A version of an object in a log: its text only, which is a tenth of what the object takes.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) namespace: Arc<str>,
    pub(crate) json: Bytes,
}

impl Past {
    fn of(stored: &Stored) -> Self {
        Self {
            namespace: meta::namespace(&stored.value).into(),
            json: stored.json(),
        }
    }

    /// The object again.
    pub(crate) fn stored(&self) -> Stored {
        // What was written from a value can be read.
        Stored::draft(serde_json::from_slice(&self.json).unwrap_or_default())
    }
}

/// One entry of an event log.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent {
    pub(crate) revision: u64,
    pub(crate) kind: EventKind,
    pub(crate) object: Past,
    /// The version before; a watcher with a selector needs it to see an object leave its selection.
    pub(crate) previous: Option<Past>,
}

/// How much of the past of one resource is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) events: usize,
    /// Of the objects as text. The last event stays, whatever its size.
    pub(crate) bytes: usize,
}

/// The object changed since the caller looked; look again.
#[derive(Debug)]
pub(crate) struct Raced;

/// The start revision of a watch is no longer in the log.
#[derive(Debug)]
pub(crate) struct TooOld;

#[derive(Debug)]
struct Table {
    objects: BTreeMap<Key, Arc<Stored>>,
    log: VecDeque<LogEvent>,
    /// Bytes of the objects in the log.
    log_bytes: usize,
    /// Events up to this revision are gone.
    compacted: u64,
    changed: watch::Sender<u64>,
}

impl Table {
    fn new(revision: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            compacted: 0,
            changed: watch::Sender::new(revision),
        }
    }

    fn record(&mut self, event: LogEvent, history: History) {
        let revision = event.revision;
        self.log_bytes += event.object.json.len();
        self.log.push_back(event);
        while self.log.len() > history.events
            || (self.log.len() > 1 && self.log_bytes > history.bytes)
        {
            if let Some(gone) = self.log.pop_front() {
                self.log_bytes -= gone.object.json.len();
                self.compacted = gone.revision;
            }
        }
        self.changed.send_replace(revision);
    }
}

/// An object's place in the store.
pub(crate) type Place = (ResourceId, Key);

/// The whole state of the cluster.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    history: History,
    tables: BTreeMap<ResourceId, Table>,
    uids: HashMap<String, Place>,
    dependents: HashMap<String, BTreeSet<Place>>,
}

impl Store {
    pub(crate) fn new(history: History) -> Self {
        Self {
            revision: 1,
            history,
            tables: BTreeMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn set_history(&mut self, history: History) {
        self.history = History {
            events: history.events.max(1),
            ..history
        };
    }

    fn table(&mut self, id: &ResourceId) -> &mut Table {
        let revision = self.revision;
        self.tables
            .entry(id.clone())
            .or_insert_with(|| Table::new(revision))
    }

    /// Tells when a resource changes.
    pub(crate) fn subscribe(&mut self, id: &ResourceId) -> watch::Receiver<u64> {
        self.table(id).changed.subscribe()
    }

    pub(crate) fn get(&self, id: &ResourceId, key: &Key) -> Option<Arc<Stored>> {
        self.tables.get(id)?.objects.get(key).cloned()
    }

    /// Objects of one namespace, or of all, in key order, after `after`.
    pub(crate) fn scan<'a>(
        &'a self,
        id: &ResourceId,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Stored>)> + use<'a> {
        let start = match (after, namespace) {
            (Some(key), _) => Bound::Excluded(key.clone()),
            (None, Some(ns)) => Bound::Included(Key::new(ns, "")),
            (None, None) => Bound::Unbounded,
        };
        self.tables
            .get(id)
            .into_iter()
            .flat_map(move |table| table.objects.range((start.clone(), Bound::Unbounded)))
            .take_while(move |(key, _)| namespace.is_none_or(|ns| key.namespace == ns))
    }

    /// Up to `max` log entries after `revision`.
    pub(crate) fn events_after(
        &self,
        id: &ResourceId,
        revision: u64,
        max: usize,
    ) -> Result<Vec<LogEvent>, TooOld> {
        let Some(table) = self.tables.get(id) else {
            return Ok(Vec::new());
        };
        if revision < table.compacted {
            return Err(TooOld);
        }
        let from = table.log.partition_point(|e| e.revision <= revision);
        Ok(table.log.range(from..).take(max).cloned().collect())
    }

    /// Forgets the log of a resource, so that every older watch start is too old.
    pub(crate) fn compact(&mut self, id: &ResourceId) {
        self.revision += 1;
        let revision = self.revision;
        let table = self.table(id);
        table.log.clear();
        table.log_bytes = 0;
        table.compacted = revision;
        table.changed.send_replace(revision);
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &ResourceId> {
        self.tables.keys()
    }

    /// Writes `value` if the object is still what the caller saw.
    pub(crate) fn put(
        &mut self,
        id: &ResourceId,
        key: &Key,
        seen: Option<&Arc<Stored>>,
        mut value: Value,
    ) -> Result<Arc<Stored>, Raced> {
        let previous = self.still(id, key, seen)?;
        self.revision += 1;
        meta::set(
            &mut value,
            "resourceVersion",
            Value::String(self.revision.to_string()),
        );
        let stored = Arc::new(Stored::new(value));
        let place = (id.clone(), key.clone());
        if let Some(old) = &previous {
            self.unindex(&place, &old.value);
        }
        self.index(&place, &stored.value);
        let event = LogEvent {
            revision: self.revision,
            kind: if previous.is_some() {
                EventKind::Modified
            } else {
                EventKind::Added
            },
            object: Past::of(&stored),
            previous: previous.as_deref().map(Past::of),
        };
        let history = self.history;
        let table = self.table(id);
        table.objects.insert(key.clone(), Arc::clone(&stored));
        table.record(event, history);
        Ok(stored)
    }

    /// Removes the object if it is still what the caller saw. `value` is its last state.
    pub(crate) fn remove(
        &mut self,
        id: &ResourceId,
        key: &Key,
        seen: &Arc<Stored>,
        mut value: Value,
    ) -> Result<Arc<Stored>, Raced> {
        let previous = self.still(id, key, Some(seen))?;
        self.revision += 1;
        meta::set(
            &mut value,
            "resourceVersion",
            Value::String(self.revision.to_string()),
        );
        let last = Arc::new(Stored::new(value));
        self.unindex(&(id.clone(), key.clone()), &seen.value);
        let event = LogEvent {
            revision: self.revision,
            kind: EventKind::Deleted,
            object: Past::of(&last),
            previous: previous.as_deref().map(Past::of),
        };
        let history = self.history;
        let table = self.table(id);
        table.objects.remove(key);
        table.record(event, history);
        Ok(last)
    }

    fn still(
        &self,
        id: &ResourceId,
        key: &Key,
        seen: Option<&Arc<Stored>>,
    ) -> Result<Option<Arc<Stored>>, Raced> {
        let current = self.get(id, key);
        match (&current, seen) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ok(current),
            _ => Err(Raced),
        }
    }

    fn index(&mut self, place: &Place, value: &Value) {
        if let Some(uid) = meta::uid(value) {
            self.uids.insert(uid.to_owned(), place.clone());
        }
        for owner in meta::owner_uids(value) {
            self.dependents
                .entry(owner.to_owned())
                .or_default()
                .insert(place.clone());
        }
    }

    fn unindex(&mut self, place: &Place, value: &Value) {
        if let Some(uid) = meta::uid(value) {
            self.uids.remove(uid);
        }
        for owner in meta::owner_uids(value) {
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(place);
                if set.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }

    pub(crate) fn has_uid(&self, uid: &str) -> bool {
        self.uids.contains_key(uid)
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn dependents_of(&self, uid: &str) -> Vec<Place> {
        self.dependents
            .get(uid)
            .map(|set| set.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// What etcd takes at most, by default: 1.5 MiB.
pub(crate) const LARGEST: usize = 3 << 19;

/// Bytes of an object as it is stored.
pub(crate) fn size(object: &Value) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting cannot fail, and JSON can always be written.
    let _ = serde_json::to_writer(&mut count, object);
    count.0
}
