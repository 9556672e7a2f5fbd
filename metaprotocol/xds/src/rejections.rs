//! NACKs that outlive their stream: which node refused which version of a resource, and what it had accepted before.
//!
//! A refusal counts for its stream only. This is to report each once in the log, and to have something to give to a
//! restarted proxy that refuses the current content again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::entry::Entry;

/// Nodes for which a NACK of one resource is kept beyond their stream. The bound keeps a crash loop with ever new node
/// ids from growing the table; past it a node simply gets the resource again after a reconnect.
pub(crate) const MAX_REJECTIONS_PER_NAME: usize = 1024;

/// The same over all resources.
const MAX_REJECTIONS: usize = 16 * 1024;

/// The version that a node refused, and the last one that it accepted.
#[derive(Debug, Clone)]
pub(crate) struct Rejection {
    pub(crate) version: String,
    pub(crate) last_good: Option<Arc<Entry>>,
}

/// NACKs by name and node; each operation is O(log nodes that refuse the name).
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    by_name: HashMap<Arc<str>, BTreeMap<String, Rejection>>,
    count: usize,
}

impl Rejections {
    /// The names of which a node refuses something.
    pub(crate) fn names_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a str> {
        let refused = self
            .by_name
            .iter()
            .filter(|(_, nodes)| nodes.contains_key(node));
        refused.map(|(name, _)| &**name)
    }

    pub(crate) fn of(&self, name: &str, node: &str) -> Option<&Rejection> {
        self.by_name.get(name)?.get(node)
    }

    /// Stores a NACK; false if this node has already refused this version.
    pub(crate) fn put(&mut self, name: &Arc<str>, node: &str, new: Rejection) -> bool {
        if self.count >= MAX_REJECTIONS && self.of(name, node).is_none() {
            return true;
        }
        let nodes = self.by_name.entry(Arc::clone(name)).or_default();
        if let Some(old) = nodes.get_mut(node) {
            let first = old.version != new.version;
            let last_good = new.last_good.or_else(|| old.last_good.take());
            *old = Rejection {
                version: new.version,
                last_good,
            };
            return first;
        }
        if nodes.len() < MAX_REJECTIONS_PER_NAME {
            nodes.insert(node.to_owned(), new);
            self.count += 1;
        }
        true
    }

    pub(crate) fn remove(&mut self, name: &str, node: &str) {
        if let Some(nodes) = self.by_name.get_mut(name) {
            self.count -= usize::from(nodes.remove(node).is_some());
            if nodes.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// Drops the NACKs of all nodes.
    pub(crate) fn remove_name(&mut self, name: &str) {
        self.count -= self.by_name.remove(name).map_or(0, |nodes| nodes.len());
    }

    #[cfg(test)]
    pub(crate) fn nodes_of(&self, name: &str) -> usize {
        self.by_name.get(name).map_or(0, BTreeMap::len)
    }
}
