//! Which fences depend on what: the inverse of what their scopes consulted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::object::FenceKey;
use crate::scope::services::Listener;
use crate::scope::{Labels, ScopeReads};
use trimtab_mesh::names::{covers, wild_key, wild_keys};

type Fences = BTreeSet<FenceKey>;

#[derive(Debug, Default)]
pub(super) struct Marks {
    of: HashMap<FenceKey, ScopeReads>,
    /// By host as it was consulted.
    hosts: HashMap<String, Fences>,
    /// Wildcards that were consulted, by their key: hosts under them count.
    patterns: HashMap<String, BTreeMap<String, Fences>>,
    /// By the keys of the wildcards that may cover a consulted host.
    below: HashMap<String, Fences>,
    namespaces: HashMap<String, Fences>,
    /// By one label of a consulted selector.
    labels: HashMap<(String, String), Fences>,
    routes: HashMap<(String, String), Fences>,
    spaces: HashMap<String, Fences>,
    /// By a listener that services may give.
    listeners: HashMap<Listener, Fences>,
}

fn add<K: Hash + Eq>(map: &mut HashMap<K, Fences>, key: K, fence: &FenceKey) {
    map.entry(key).or_default().insert(fence.clone());
}

fn take<K: Hash + Eq>(map: &mut HashMap<K, Fences>, key: &K, fence: &FenceKey) {
    if let Some(fences) = map.get_mut(key) {
        fences.remove(fence);
        if fences.is_empty() {
            map.remove(key);
        }
    }
}

fn first(selector: &Labels) -> Option<(String, String)> {
    let (key, value) = selector.iter().next()?;
    Some((key.clone(), value.clone()))
}

fn keys(hosts: &BTreeSet<String>) -> BTreeSet<&str> {
    hosts.iter().flat_map(|h| wild_keys(h)).collect()
}

impl Marks {
    /// Notes what a scope consulted, in place of what it did before. Costs the difference.
    pub(super) fn depend(&mut self, fence: &FenceKey, new: &ScopeReads) {
        let old = self.of.remove(fence).unwrap_or_default();
        self.depend_hosts(fence, &old.hosts, &new.hosts);
        for gone in old.namespaces.difference(&new.namespaces) {
            take(&mut self.namespaces, gone, fence);
        }
        for come in new.namespaces.difference(&old.namespaces) {
            add(&mut self.namespaces, come.clone(), fence);
        }
        for gone in old.routes.difference(&new.routes) {
            take(&mut self.routes, gone, fence);
        }
        for come in new.routes.difference(&old.routes) {
            add(&mut self.routes, come.clone(), fence);
        }
        for gone in old.spaces.difference(&new.spaces) {
            take(&mut self.spaces, gone, fence);
        }
        for come in new.spaces.difference(&old.spaces) {
            add(&mut self.spaces, come.clone(), fence);
        }
        for gone in old.listeners.difference(&new.listeners) {
            take(&mut self.listeners, gone, fence);
        }
        for come in new.listeners.difference(&old.listeners) {
            add(&mut self.listeners, *come, fence);
        }
        let pairs = |c: &ScopeReads| -> BTreeSet<(String, String)> {
            c.selectors.iter().filter_map(first).collect()
        };
        let (before, after) = (pairs(&old), pairs(new));
        for gone in before.difference(&after) {
            take(&mut self.labels, gone, fence);
        }
        for come in after.difference(&before) {
            add(&mut self.labels, come.clone(), fence);
        }
        if *new != ScopeReads::default() {
            self.of.insert(fence.clone(), new.clone());
        }
    }

    fn depend_hosts(&mut self, fence: &FenceKey, old: &BTreeSet<String>, new: &BTreeSet<String>) {
        for gone in old.difference(new) {
            take(&mut self.hosts, gone, fence);
            if gone.starts_with('*')
                && let Some(patterns) = self.patterns.get_mut(wild_key(gone))
                && let Some(fences) = patterns.get_mut(gone)
            {
                fences.remove(fence);
                if fences.is_empty() {
                    patterns.remove(gone);
                }
                if patterns.is_empty() {
                    self.patterns.remove(wild_key(gone));
                }
            }
        }
        for come in new.difference(old) {
            add(&mut self.hosts, come.clone(), fence);
            if come.starts_with('*') {
                let patterns = self.patterns.entry(wild_key(come).to_owned()).or_default();
                patterns
                    .entry(come.clone())
                    .or_default()
                    .insert(fence.clone());
            }
        }
        let (before, after) = (keys(old), keys(new));
        for gone in before.difference(&after) {
            take(&mut self.below, &(*gone).to_owned(), fence);
        }
        for come in after.difference(&before) {
            add(&mut self.below, (*come).to_owned(), fence);
        }
    }

    pub(super) fn forget(&mut self, fence: &FenceKey) {
        self.depend(fence, &ScopeReads::default());
    }

    /// Fences to which a host or a wildcard that changes may matter.
    pub(super) fn host(&self, host: &str, out: &mut Fences) {
        out.extend(self.hosts.get(host).into_iter().flatten().cloned());
        for patterns in wild_keys(host).filter_map(|key| self.patterns.get(key)) {
            let above = patterns.iter().filter(|(p, _)| covers(p, host));
            out.extend(above.flat_map(|(_, fences)| fences).cloned());
        }
        if host.starts_with('*') {
            let below = self.below.get(wild_key(host));
            out.extend(below.into_iter().flatten().cloned());
        }
    }

    pub(super) fn namespace(&self, namespace: &str, out: &mut Fences) {
        out.extend(
            self.namespaces
                .get(namespace)
                .into_iter()
                .flatten()
                .cloned(),
        );
    }

    /// A namespace comes or goes.
    pub(super) fn space(&self, namespace: &str, out: &mut Fences) {
        out.extend(self.spaces.get(namespace).into_iter().flatten().cloned());
    }

    pub(super) fn route(&self, name: &(String, String), out: &mut Fences) {
        out.extend(self.routes.get(name).into_iter().flatten().cloned());
    }

    /// Fences to which a service that gives this listener matters.
    pub(super) fn listener(&self, listener: Listener, out: &mut Fences) {
        let fences = self.listeners.get(&listener);
        out.extend(fences.into_iter().flatten().cloned());
    }

    pub(super) fn labels(&self, labels: &Labels, out: &mut Fences) {
        for (key, value) in labels {
            let fences = self.labels.get(&(key.clone(), value.clone()));
            out.extend(fences.into_iter().flatten().cloned());
        }
    }
}
