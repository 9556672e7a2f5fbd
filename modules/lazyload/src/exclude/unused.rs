//! Which services may be excluded. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use trimtab_mesh::names::covers;

use super::since::Catching;
use super::size::leads_to;
use crate::scope::services::{HostEntry, Services, VirtualService};
use crate::scope::{EVERYTHING, Imports};

/// Bytes of exclusions in one Sidecar, at most: etcd takes objects of 1.5 MiB. Of more, those that come first by name stay.
const MOST_BYTES: usize = 700_000;

/// What must stay: the scope that `Enforce` would have.
#[derive(Debug, Default)]
pub struct Needed {
    everything: bool,
    hosts: HashSet<String>,
    namespaces: HashSet<String>,
    patterns: Vec<String>,
}

impl Needed {
    /// Takes entries of a Sidecar, `namespace/host`.
    pub fn add<'a>(&mut self, entries: impl IntoIterator<Item = &'a String>) {
        for entry in entries {
            let Some((namespace, host)) = entry.split_once('/') else {
                continue;
            };
            match (namespace, host) {
                _ if entry == EVERYTHING => self.everything = true,
                (none, _) if none.starts_with('~') => {}
                (namespace, "*") => {
                    self.namespaces.insert(namespace.to_owned());
                }
                // By the host alone: calls do not say which of several namespaces they mean.
                (_, host) if host.starts_with('*') => self.patterns.push(host.to_owned()),
                (_, host) => {
                    self.hosts.insert(host.to_owned());
                }
            }
        }
    }

    /// Takes what istiod imports for entries.
    pub fn add_imports(&mut self, imports: &Imports) {
        self.add(imports.services.keys());
    }

    fn has(&self, entry: &HostEntry) -> bool {
        self.namespaces.contains(&*entry.namespace) || self.has_host(&entry.host)
    }

    /// Whether a host is among them, whole namespaces apart.
    pub fn has_host(&self, host: &str) -> bool {
        self.everything
            || self.hosts.contains(host)
            || self.patterns.iter().any(|p| p == host || covers(p, host))
    }
}

/// What is asked of the mesh.
pub struct Mesh<'a> {
    /// Look-ups.
    pub services: &'a dyn Services,
    /// All hosts.
    pub all: Vec<Arc<HostEntry>>,
    /// Listeners that take connections to other addresses than their own.
    pub catching: Vec<Catching>,
}

/// Entries `namespace/host` of the services that a client in namespace `client` sees, does not need, and that are `proven`
/// unused. Never a wildcard, for a service that is new may lie under it; never an ExternalName, which is counted as what it
/// stands for, and is no cluster.
pub fn unused(
    client: &str,
    mesh: &Mesh<'_>,
    needed: &Needed,
    proven: impl Fn(&HostEntry) -> bool,
) -> BTreeSet<String> {
    if needed.everything {
        return BTreeSet::new();
    }
    let visible = |e: &&Arc<HostEntry>| e.exports.visible(&e.namespace, client);
    let mut by_host: BTreeMap<Arc<str>, Vec<&Arc<HostEntry>>> = BTreeMap::new();
    let mut stay: HashSet<Arc<str>> = HashSet::new();
    for entry in mesh.all.iter().filter(visible) {
        let exact = !entry.host.starts_with('*') && entry.target.is_none();
        if exact && !needed.has(entry) && proven(entry) {
            by_host.entry(entry.host.clone()).or_default().push(entry);
        } else {
            // Of a host in several namespaces all must be unused.
            stay.insert(entry.host.clone());
        }
    }
    by_host.retain(|host, _| !stay.contains(host));
    while keep_more(client, mesh, &mut by_host) {}
    let mut room = MOST_BYTES;
    let entries = by_host.values().flatten();
    let names = entries.map(|e| format!("{}/{}", e.namespace, e.host));
    let names: BTreeSet<String> = names.collect();
    names
        .into_iter()
        .take_while(|name| {
            // With the sign, and what YAML and JSON put around it.
            let size = name.len() + 8;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .collect()
}

/// Takes out what must stay because of what stays. Whether there was any.
fn keep_more(
    client: &str,
    mesh: &Mesh<'_>,
    candidates: &mut BTreeMap<Arc<str>, Vec<&Arc<HostEntry>>>,
) -> bool {
    let caught = caught(client, mesh, candidates);
    let mut keep = Vec::new();
    for (host, entries) in candidates.iter() {
        let ports = entries.iter().flat_map(|e| &*e.ports);
        let misled = ports.map(|p| p.number).any(|p| caught.contains(&p));
        if misled || leads_to_used(client, mesh, host, candidates) {
            keep.push(host.clone());
        }
    }
    for host in &keep {
        candidates.remove(host);
    }
    !keep.is_empty()
}

/// TCP ports on which what stays takes connections to any address: a call to an excluded service there would reach
/// another one, and nobody would learn of it.
fn caught(
    client: &str,
    mesh: &Mesh<'_>,
    candidates: &BTreeMap<Arc<str>, Vec<&Arc<HostEntry>>>,
) -> BTreeSet<u16> {
    let here = mesh.catching.iter().filter(|c| {
        c.exports.visible(&c.namespace, client)
            && c.hosts.iter().any(|h| !candidates.contains_key(h))
    });
    here.flat_map(|c| c.ports.iter().copied()).collect()
}

/// A call to a host is counted as the one that it was led to: when that one is in use, the host may be.
fn leads_to_used(
    client: &str,
    mesh: &Mesh<'_>,
    host: &Arc<str>,
    candidates: &BTreeMap<Arc<str>, Vec<&Arc<HostEntry>>>,
) -> bool {
    let routes = mesh.services.routes(host);
    let visible = |r: &Arc<VirtualService>| r.exports.visible(&r.id.namespace, client);
    let mut to = routes
        .iter()
        .filter(|r| visible(r))
        .flat_map(|route| leads_to(route, mesh.services));
    to.any(|to| to != *host && !candidates.contains_key(&to))
}
