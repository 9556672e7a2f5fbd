//! Inverted index: which streams must be woken when a name changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::stream::StreamState;

/// Name to streams, and the streams that want everything.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_name: HashMap<Arc<str>, BTreeMap<u64, Arc<StreamState>>>,
    wildcard: BTreeMap<u64, Arc<StreamState>>,
}

impl Index {
    pub(crate) fn watch(&mut self, name: Arc<str>, stream: &Arc<StreamState>) {
        self.by_name
            .entry(name)
            .or_default()
            .insert(stream.id(), Arc::clone(stream));
    }

    pub(crate) fn unwatch(&mut self, name: &str, stream: u64) {
        if let Some(streams) = self.by_name.get_mut(name) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    pub(crate) fn watch_all(&mut self, on: bool, stream: &Arc<StreamState>) {
        if on {
            self.wildcard.insert(stream.id(), Arc::clone(stream));
        } else {
            self.forget_wildcard(stream.id());
        }
    }

    pub(crate) fn forget_wildcard(&mut self, stream: u64) {
        self.wildcard.remove(&stream);
    }

    /// The streams that a change of these names concerns, each once.
    pub(crate) fn concerned(&self, names: &[Arc<str>]) -> Vec<Arc<StreamState>> {
        let mut found = self.wildcard.clone();
        for streams in names.iter().filter_map(|name| self.by_name.get(name)) {
            found.extend(streams.iter().map(|(id, stream)| (*id, Arc::clone(stream))));
        }
        found.into_values().collect()
    }
}
