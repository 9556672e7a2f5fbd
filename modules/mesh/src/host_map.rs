//! Objects found by host: exactly, by the wildcards that cover a host, and by the hosts under a wildcard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{DestinationRule, VirtualService};
use crate::names::{covers, wild_key, wild_keys};

/// Which object a host is from.
pub trait Named {
    /// Namespace and name.
    fn name(&self) -> (&str, &str);

    /// Whether both are of one object.
    fn is(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Named for VirtualService {
    fn name(&self) -> (&str, &str) {
        (&self.id.namespace, &self.id.name)
    }

    fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name() == other.name()
    }
}

impl Named for DestinationRule {
    fn name(&self) -> (&str, &str) {
        (&self.id.namespace, &self.id.name)
    }
}

/// Objects by host.
#[derive(Debug)]
pub struct HostMap<T> {
    /// By host as it is written; sorted by name.
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

impl<T: Named> HostMap<T> {
    /// Takes an object in under a host.
    pub fn insert(&mut self, host: &Arc<str>, object: Arc<T>) {
        let list = self.exact.entry(host.clone()).or_default();
        if list.is_empty() {
            self.reversed.insert(reversed(host), host.clone());
            if host.starts_with('*') {
                let wild = self.wild.entry(wild_key(host).to_owned()).or_default();
                wild.insert(host.clone());
            }
        }
        let at = list.partition_point(|o| o.name() < object.name());
        list.insert(at, object);
    }

    /// Takes what is of the object out from under a host.
    pub fn remove(&mut self, host: &str, object: &T) {
        let Some(list) = self.exact.get_mut(host) else {
            return;
        };
        list.retain(|o| !o.is(object));
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

    /// Objects of exactly this host, by name; a wildcard is found by its own text.
    pub fn get(&self, host: &str) -> &[Arc<T>] {
        self.exact.get(host).map_or(&[], Vec::as_slice)
    }

    /// Objects of the wildcards that cover a host, the longest first; not of the host itself.
    pub fn covering(&self, host: &str) -> Vec<Arc<T>> {
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
    pub fn under(&self, pattern: &str) -> Vec<Arc<T>> {
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
