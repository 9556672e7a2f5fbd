//! What nodes refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::entry::Entry;

/// Nodes for which the refusal of one resource is remembered beyond their stream. The bound keeps a crash loop with
/// ever new node ids from growing the table; past it a node simply gets the resource again after a reconnect.
pub(crate) const MAX_PINS_PER_NAME: usize = 1024;

/// What a node refused, and what it had accepted before.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) bad: String,
    pub(crate) good: Option<Arc<Entry>>,
}

/// Refusals by name and node; each operation is O(log nodes that refuse the name).
#[derive(Debug, Default)]
pub(crate) struct Pins(HashMap<Arc<str>, BTreeMap<String, Pin>>);

impl Pins {
    /// The names of which a node refuses something.
    pub(crate) fn names_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a str> {
        let refused = self.0.iter().filter(|(_, nodes)| nodes.contains_key(node));
        refused.map(|(name, _)| &**name)
    }

    pub(crate) fn of(&self, name: &str, node: &str) -> Option<&Pin> {
        self.0.get(name)?.get(node)
    }

    /// Remembers a refusal; false if this node has already refused this very content.
    pub(crate) fn put(&mut self, name: &Arc<str>, node: &str, pin: Pin) -> bool {
        let nodes = self.0.entry(Arc::clone(name)).or_default();
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

    pub(crate) fn remove(&mut self, name: &str, node: &str) {
        if let Some(nodes) = self.0.get_mut(name) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.0.remove(name);
            }
        }
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    #[cfg(test)]
    pub(crate) fn nodes_of(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, BTreeMap::len)
    }
}
