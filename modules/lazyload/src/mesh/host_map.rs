//! Objects found by host: exactly, by the wildcards that cover a host, and by the hosts under a wildcard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::scope::services::{HostEntry, Route, Rule};
use trimtab_mesh::names::{covers, wild_key, wild_keys};

/// Namespace and name of the object that a host is from.
pub(super) trait Identity {
    fn identity(&self) -> (&str, &str);
}

impl Identity for HostEntry {
    fn identity(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Identity for Route {
    fn identity(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Identity for Rule {
    fn identity(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

#[derive(Debug)]
pub(super) struct HostMap<T> {
    /// By host as it is written; sorted by identity.
    exact: HashMap<Arc<str>, Vec<Arc<T>>>,
    /// Wildcards by [`wild_key`].
    wild: HashMap<String, BTreeSet<Arc<str>>>,
    /// Hosts by their reversed text: those under a wildcard stand together.
    reversed: BTreeMap<String, Arc<str>>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wild: HashMap::new(),
            reversed: BTreeMap::new(),
        }
    }
}

fn reversed(host: &str) -> String {
    host.chars().rev().collect()
}

impl<T: Identity> HostMap<T> {
    pub(super) fn insert(&mut self, host: &Arc<str>, object: Arc<T>) {
        let list = self.exact.entry(host.clone()).or_default();
        if list.is_empty() {
            self.reversed.insert(reversed(host), host.clone());
            if host.starts_with('*') {
                let wild = self.wild.entry(wild_key(host).to_owned()).or_default();
                wild.insert(host.clone());
            }
        }
        let at = list.partition_point(|o| o.identity() < object.identity());
        list.insert(at, object);
    }

    pub(super) fn remove(&mut self, host: &str, identity: (&str, &str)) {
        let Some(list) = self.exact.get_mut(host) else {
            return;
        };
        list.retain(|o| o.identity() != identity);
        if !list.is_empty() {
            return;
        }
        self.exact.remove(host);
        self.reversed.remove(&reversed(host));
        if host.starts_with('*')
            && let Some(wild) = self.wild.get_mut(wild_key(host))
        {
            wild.remove(host);
            if wild.is_empty() {
                self.wild.remove(wild_key(host));
            }
        }
    }

    pub(super) fn get(&self, host: &str) -> &[Arc<T>] {
        self.exact.get(host).map_or(&[], Vec::as_slice)
    }

    /// Objects of the wildcards that cover a host, the longest first; not of the host itself.
    pub(super) fn covering(&self, host: &str) -> Vec<Arc<T>> {
        let keys = wild_keys(host).filter_map(|key| self.wild.get(key));
        let mut patterns: Vec<&Arc<str>> = keys
            .flatten()
            .filter(|p| covers(p, host) && ***p != *host)
            .collect();
        patterns.sort_by(|a, b| (b.len(), a).cmp(&(a.len(), b)));
        let found = patterns.into_iter().flat_map(|p| self.get(p));
        found.cloned().collect()
    }

    /// Objects whose host is the wildcard or lies under it, by host.
    pub(super) fn under(&self, pattern: &str) -> Vec<Arc<T>> {
        let prefix = reversed(pattern.trim_start_matches('*'));
        let hosts = self
            .reversed
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(_, host)| covers(pattern, host));
        let mut hosts: Vec<&Arc<str>> = hosts.map(|(_, host)| host).collect();
        hosts.sort();
        let found = hosts.into_iter().flat_map(|h| self.get(h));
        found.cloned().collect()
    }
}
