//! Inverted index: which streams to wake when a name changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::scope::{Audience, View};
use crate::table::Change;
use crate::wake::Wake;

type Streams = BTreeMap<u64, Arc<Wake>>;

/// Name to streams, and the streams that want everything, in all and by audience.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_name: HashMap<Arc<str>, Streams>,
    wildcard: Streams,
    by_audience: HashMap<Audience, Streams>,
}

impl Index {
    pub(crate) fn watch(&mut self, name: Arc<str>, stream: &Arc<Wake>) {
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

    pub(crate) fn watch_all(&mut self, on: bool, stream: &Arc<Wake>, view: &View) {
        if !on {
            self.unwatch_all(stream.id(), view);
            return;
        }
        self.wildcard.insert(stream.id(), Arc::clone(stream));
        for audience in &view.0 {
            let streams = self.by_audience.entry(audience.clone()).or_default();
            streams.insert(stream.id(), Arc::clone(stream));
        }
    }

    pub(crate) fn unwatch_all(&mut self, stream: u64, view: &View) {
        if self.wildcard.remove(&stream).is_none() {
            return;
        }
        for audience in &view.0 {
            if let Some(streams) = self.by_audience.get_mut(audience) {
                streams.remove(&stream);
                if streams.is_empty() {
                    self.by_audience.remove(audience);
                }
            }
        }
    }

    /// The streams that these changes affect, each once: O(found log found), whatever the number of other streams.
    pub(crate) fn affected(&self, changes: &[Change]) -> Vec<Arc<Wake>> {
        let mut found = if changes.iter().any(|change| change.reach.all) {
            self.wildcard.clone()
        } else {
            Streams::new()
        };
        let mut add = |streams: &Streams| {
            found.extend(streams.iter().map(|(id, stream)| (*id, Arc::clone(stream))));
        };
        for change in changes {
            if let Some(streams) = self.by_name.get(change.name()) {
                add(streams);
            }
            for audience in &change.reach.audiences {
                if let Some(streams) = self.by_audience.get(audience) {
                    add(streams);
                }
            }
        }
        found.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::*;
    use crate::resource::{Resource, Scoped};
    use crate::scope::Scope;
    use crate::table::Table;

    fn group(name: &str) -> Audience {
        Audience::Group(name.into())
    }

    fn woken(index: &Index, scope: &Scope, name: &str) -> Vec<u64> {
        let resource = Resource {
            name: name.to_owned(),
            version: String::new(),
            body: Bytes::new(),
            origin: String::new(),
        };
        let scope = scope.clone();
        let changes = Table::default().apply(vec![Scoped { resource, scope }], &[], Instant::now());
        let streams = index.affected(&changes);
        streams.iter().map(|stream| stream.id()).collect()
    }

    #[test]
    fn a_change_wakes_those_who_see_it_and_nothing_of_a_closed_stream_stays() {
        let mut index = Index::default();
        let views = [View([group("a")].into()), View([group("b")].into())];
        let stream = |id| Arc::new(Wake::new(id, Instant::now(), Duration::ZERO));
        for (id, view) in (1..).zip(&views) {
            index.watch_all(true, &stream(id), view);
        }
        index.watch("named".into(), &stream(3));
        assert_eq!(woken(&index, &Scope::All, "x"), [1, 2]);
        assert_eq!(woken(&index, &Scope::only([group("b")]), "x"), [2]);
        assert_eq!(woken(&index, &Scope::only([group("c")]), "named"), [3]);
        index.unwatch_all(1, &views[0]);
        index.watch_all(false, &stream(2), &views[1]);
        index.unwatch("named", 3);
        assert!(index.by_name.is_empty() && index.wildcard.is_empty());
        assert!(index.by_audience.is_empty());
    }
}
