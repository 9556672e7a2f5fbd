//! The resources of one type: plain data, read by sessions, changed by the cache.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::changelog::ChangeLog;

/// Nodes for which the refusal of one resource is remembered beyond their stream. The bound keeps a crash loop with
/// ever new node ids from growing the table; past it a node simply gets the resource again after a reconnect.
const MAX_PINS_PER_NAME: usize = 1024;

/// One resource, encoded once and shared by all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name that clients subscribe to.
    pub name: String,
    /// Version of the content, see [`content_version`].
    pub version: String,
    /// The encoded message, that is, the `value` of a `google.protobuf.Any` with the type URL of the table.
    pub body: Bytes,
    /// What the resource was made from, for example `default/a`; used to report a refusal where the user will see it.
    pub origin: String,
}

/// Version of a content: equal on all replicas and after a restart, so that a client that reconnects gets nothing new.
///
/// Give it a canonical form (sorted keys), not protobuf bytes: protobuf maps are encoded in an order that differs from
/// one process to the next.
///
/// ```
/// use trimtab_xds::content_version;
/// assert_eq!(content_version(b"a"), content_version(b"a"));
/// assert_ne!(content_version(b"a"), content_version(b"b"));
/// ```
pub fn content_version(canonical: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(canonical))
}

/// A resource and when it was published.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) resource: Arc<Resource>,
    pub(crate) published: Instant,
}

impl Entry {
    pub(crate) fn version(&self) -> &str {
        &self.resource.version
    }
}

/// What a node refused, and what it had accepted before.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) bad: String,
    pub(crate) good: Option<Arc<Entry>>,
}

/// All resources of one type, the log of their changes and the refusals.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Arc<str>, Arc<Entry>>,
    log: ChangeLog,
    pins: HashMap<Arc<str>, BTreeMap<String, Pin>>,
}

impl Table {
    #[cfg(test)]
    pub(crate) fn with_log_capacity(capacity: usize) -> Self {
        Self {
            log: ChangeLog::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Removes, then sets; returns the names that really changed.
    pub(crate) fn apply(
        &mut self,
        set: Vec<Resource>,
        remove: &[String],
        now: Instant,
    ) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        let kept: HashSet<&str> = set.iter().map(|resource| resource.name.as_str()).collect();
        for name in remove.iter().filter(|name| !kept.contains(name.as_str())) {
            if let Some((name, _)) = self.entries.remove_entry(name.as_str()) {
                self.pins.remove(&name);
                changed.push(name);
            }
        }
        for resource in set {
            let same = |entry: &Arc<Entry>| entry.version() == resource.version;
            if self.entries.get(resource.name.as_str()).is_some_and(same) {
                continue;
            }
            let name: Arc<str> = resource.name.as_str().into();
            let entry = Arc::new(Entry {
                resource: Arc::new(resource),
                published: now,
            });
            self.entries.insert(Arc::clone(&name), entry);
            changed.push(name);
        }
        for name in &changed {
            self.log.push(Arc::clone(name));
        }
        changed
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    pub(crate) fn head(&self) -> u64 {
        self.log.head()
    }

    pub(crate) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        self.log.since(cursor)
    }

    pub(crate) fn pin_of(&self, name: &str, node: &str) -> Option<&Pin> {
        self.pins.get(name)?.get(node)
    }

    /// Remembers a refusal; false if this node has already refused this very content.
    pub(crate) fn pin(&mut self, name: &Arc<str>, node: &str, pin: Pin) -> bool {
        if node.is_empty() || !self.entries.contains_key(name) {
            return true;
        }
        let nodes = self.pins.entry(Arc::clone(name)).or_default();
        if let Some(known) = nodes.get_mut(node) {
            let first = known.bad != pin.bad;
            let good = pin.good.or_else(|| known.good.take());
            *known = Pin { bad: pin.bad, good };
            return first;
        }
        if nodes.len() < MAX_PINS_PER_NAME {
            nodes.insert(node.to_owned(), pin);
        }
        true
    }

    pub(crate) fn unpin(&mut self, name: &str, node: &str) {
        if let Some(nodes) = self.pins.get_mut(name) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.pins.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, version: &str) -> Resource {
        Resource {
            name: name.into(),
            version: version.into(),
            body: Bytes::new(),
            origin: String::new(),
        }
    }

    #[test]
    fn only_real_changes_count() {
        let mut table = Table::default();
        let now = Instant::now();
        assert_eq!(
            table
                .apply(vec![resource("a", "1"), resource("b", "1")], &[], now)
                .len(),
            2
        );
        assert_eq!(
            table.apply(vec![resource("a", "1"), resource("b", "2")], &[], now),
            vec!["b".into()]
        );
        assert!(table.apply(vec![], &["gone".to_owned()], now).is_empty());
        assert_eq!(
            table.apply(vec![], &["a".to_owned()], now),
            vec!["a".into()]
        );
        assert_eq!(table.head(), 4);
    }

    #[test]
    fn a_name_that_is_removed_and_set_in_one_change_is_set() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![resource("a", "1")], &[], now);
        assert!(
            table
                .apply(vec![resource("a", "1")], &["a".to_owned()], now)
                .is_empty()
        );
        assert!(table.get("a").is_some());
    }

    #[test]
    fn pins_report_a_content_once_keep_the_last_good_and_stay_bounded() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![resource("a", "1")], &[], now);
        let name: Arc<str> = "a".into();
        let good = table.get("a").cloned();
        assert!(table.pin(
            &name,
            "n",
            Pin {
                bad: "2".into(),
                good
            }
        ));
        assert!(
            !table.pin(
                &name,
                "n",
                Pin {
                    bad: "2".into(),
                    good: None
                }
            ),
            "same content, same node"
        );
        assert!(table.pin(
            &name,
            "n",
            Pin {
                bad: "3".into(),
                good: None
            }
        ));
        assert!(table.pin_of("a", "n").is_some_and(|pin| pin.good.is_some()));
        for node in 0..2 * MAX_PINS_PER_NAME {
            table.pin(
                &name,
                &format!("node-{node}"),
                Pin {
                    bad: "3".into(),
                    good: None,
                },
            );
        }
        assert_eq!(
            table.pins.get("a").map(BTreeMap::len),
            Some(MAX_PINS_PER_NAME)
        );
        table.apply(vec![], &["a".to_owned()], now);
        assert!(
            table.pins.is_empty(),
            "a removed resource takes its pins with it"
        );
    }
}
