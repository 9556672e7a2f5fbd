//! Objects of one kind, found by name and by the keys that other objects name them by.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::Resource;

use super::Name;

/// Namespace and name of an object.
pub(super) fn name_of<K: Resource>(object: &K) -> Name {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// What the index needs to know of a kind.
pub(super) trait Kept: Resource + Clone {
    /// Keys that others name the object by: hosts, or what the kind documents.
    fn keys(&self, domain: &str) -> Vec<String>;

    /// Whether nothing that outputs depend on has changed. An API server counts `generation` up with every change of a
    /// spec, so that a status write of our own is no event.
    fn same(&self, other: &Self) -> bool {
        let (a, b) = (self.meta(), other.meta());
        a.generation.is_some()
            && a.generation == b.generation
            && a.uid == b.uid
            && a.labels == b.labels
            && a.annotations == b.annotations
    }

    /// Takes out what nobody reads.
    fn prune(&mut self) {}
}

/// The table.
#[derive(Debug)]
pub(super) struct Table<K> {
    objects: BTreeMap<Name, Arc<K>>,
    by_key: HashMap<String, BTreeSet<Name>>,
    /// Exist, but cannot be decoded.
    unreadable: HashSet<Name>,
    /// Whether there was a complete list.
    pub(super) listed: bool,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            by_key: HashMap::new(),
            unreadable: HashSet::new(),
            listed: false,
        }
    }
}

impl<K: Kept> Table<K> {
    /// Takes an object in. Returns the keys that it has or had; empty when nothing has changed.
    pub(super) fn put(&mut self, object: &K, domain: &str) -> BTreeSet<String> {
        let name = name_of(object);
        let mut object = object.clone();
        object.prune();
        self.unreadable.remove(&name);
        let keys: BTreeSet<String> = object.keys(domain).into_iter().collect();
        let old = self.objects.insert(name.clone(), Arc::new(object));
        let new = self.objects.get(&name);
        if let (Some(old), Some(new)) = (&old, new)
            && old.same(new)
        {
            return BTreeSet::new();
        }
        let mut touched = keys.clone();
        for key in old.iter().flat_map(|o| o.keys(domain)) {
            if !keys.contains(&key) {
                self.unlink(&key, &name);
            }
            touched.insert(key);
        }
        for key in keys {
            self.by_key.entry(key).or_default().insert(name.clone());
        }
        touched
    }

    /// Takes an object out. Returns the keys that it had.
    pub(super) fn remove(&mut self, name: &Name, domain: &str) -> BTreeSet<String> {
        self.unreadable.remove(name);
        let Some(old) = self.objects.remove(name) else {
            return BTreeSet::new();
        };
        let keys: BTreeSet<String> = old.keys(domain).into_iter().collect();
        for key in &keys {
            self.unlink(key, name);
        }
        keys
    }

    /// Takes a complete list over. Returns the keys of what has changed, and the names of what is gone.
    pub(super) fn reset(
        &mut self,
        objects: &[Arc<K>],
        unreadable: &[Name],
        domain: &str,
    ) -> (BTreeSet<String>, Vec<Name>) {
        let kept: HashSet<Name> = objects.iter().map(|o| name_of(o.as_ref())).collect();
        let gone: Vec<Name> = self
            .objects
            .keys()
            .filter(|n| !kept.contains(*n) && !unreadable.contains(n))
            .cloned()
            .collect();
        let mut touched = BTreeSet::new();
        for name in &gone {
            touched.extend(self.remove(name, domain));
        }
        for object in objects {
            touched.extend(self.put(object, domain));
        }
        self.unreadable = unreadable.iter().cloned().collect();
        self.listed = true;
        (touched, gone)
    }

    pub(super) fn mark_unreadable(&mut self, name: Name) {
        self.unreadable.insert(name);
    }

    fn unlink(&mut self, key: &str, name: &Name) {
        if let Some(names) = self.by_key.get_mut(key) {
            names.remove(name);
            if names.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

impl<K> Table<K> {
    pub(super) fn get(&self, name: &Name) -> Option<&Arc<K>> {
        self.objects.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.objects.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Objects under a key, by name.
    pub(super) fn of(&self, key: &str) -> impl Iterator<Item = (&Name, &Arc<K>)> {
        let names = self.by_key.get(key).into_iter().flatten();
        names.filter_map(|n| self.objects.get_key_value(n))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = &Name> {
        self.unreadable.iter()
    }
}
