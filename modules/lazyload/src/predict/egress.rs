//! The entries of a Sidecar, as istiod sorts them by namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{is_subset, overlap};

/// Entries `NAMESPACE/HOST` of a Sidecar's egress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    namespaces: BTreeMap<String, Hosts>,
    /// Of any namespace.
    anywhere: Option<Hosts>,
}

/// Hosts of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    pub(super) exact: BTreeSet<String>,
    pub(super) wild: BTreeSet<String>,
    excluded: BTreeSet<String>,
}

impl Egress {
    /// Reads entries for a client in a namespace; what is no entry is left out.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>, client: &str) -> Self {
        let mut out = Self::default();
        for (namespace, host) in entries.into_iter().filter_map(|e| e.split_once('/')) {
            let excluded = namespace.strip_prefix('~');
            let namespace = match excluded.unwrap_or(namespace) {
                "" => "*",
                "." => client,
                namespace => namespace,
            };
            let hosts = if namespace == "*" {
                out.anywhere.get_or_insert_default()
            } else {
                out.namespaces.entry(namespace.to_owned()).or_default()
            };
            let set = if excluded.is_some() {
                &mut hosts.excluded
            } else if host.starts_with('*') {
                &mut hosts.wild
            } else {
                &mut hosts.exact
            };
            set.insert(host.to_owned());
        }
        out
    }

    /// Everything, as without a Sidecar.
    pub(super) fn everything() -> Self {
        Self::new(["*/*"], "")
    }

    /// One host, of any namespace.
    pub(super) fn of_host(host: &str) -> Self {
        Self::new([format!("*/{host}").as_str()], "")
    }

    /// Whether istiod can look everything up, without a walk through all services.
    pub(super) fn is_exact(&self) -> bool {
        let named = |hosts: &Hosts| !hosts.exact.is_empty() || !hosts.wild.is_empty();
        !self.anywhere.as_ref().is_some_and(named)
            && self.namespaces.values().all(|h| h.wild.is_empty())
    }

    pub(super) fn anywhere(&self) -> Option<&Hosts> {
        self.anywhere.as_ref()
    }

    /// Namespaces with entries of their own.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, &Hosts)> {
        self.namespaces
            .iter()
            .map(|(namespace, hosts)| (namespace.as_str(), hosts))
    }

    /// Lists that count for a namespace: its own first.
    pub(super) fn lists<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Hosts> + use<'a> {
        self.namespaces
            .get(namespace)
            .into_iter()
            .chain(&self.anywhere)
    }

    /// Whether a host of a namespace is taken away.
    pub(super) fn excludes(&self, namespace: &str, host: &str) -> bool {
        self.lists(namespace)
            .any(|hosts| hosts.excluded.iter().any(|e| is_subset(host, e)))
    }
}

impl Hosts {
    /// Whether they import a service's host.
    pub(super) fn import(&self, host: &str) -> bool {
        self.exact.contains(host) || self.wild.iter().any(|wild| is_subset(host, wild))
    }

    /// Whether they import a VirtualService by one of its hosts; those of the Gateway API as services.
    pub(super) fn import_route(&self, host: &str, as_service: bool) -> bool {
        if as_service {
            return self.import(host);
        }
        let common = |wild: &String| overlap(host, wild);
        let under =
            || host.starts_with('*') && self.exact.iter().any(|exact| is_subset(exact, host));
        self.exact.contains(host) || self.wild.iter().any(common) || under()
    }
}
