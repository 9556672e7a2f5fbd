//! Hosts that several services have a part of.
//!
//! istiod looks an exact entry up, when all entries of a Sidecar are exact, and finds one service of a host in a namespace: of
//! several ServiceEntries one, and of several addresses of one, one, in an order that it does not fix. Without a Sidecar it has
//! them all. An entry of any namespace makes it look through all services instead.
//!
//! Of a host under a wildcard, calls to ports that its own service has not go to the wildcard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use trimtab_mesh::names::covers;

use super::builder::Builder;
use super::services::{HostEntry, Port, Protocol, Registry};
use super::{Reason, Warning};

/// What takes calls to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Taker {
    /// A virtual host.
    Http(u16),
    /// A chain of names, of an address or of all.
    Tls(Option<IpNet>, u16),
    /// A chain, of an address or of all.
    Tcp(Option<IpNet>, u16),
}

/// Whether whoever wrote or configured it means the host itself: any port of it may be called.
fn names_host(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Stable(_) | Reason::Static(_) | Reason::Label(_) | Reason::Alias(_)
    )
}

fn takers(entry: &HostEntry) -> BTreeSet<Taker> {
    let addresses: Vec<Option<IpNet>> = match &*entry.addresses {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let mut out = BTreeSet::new();
    for port in &entry.ports {
        let number = port.number;
        if port.protocol.is_http() || port.protocol == Protocol::Auto {
            out.insert(Taker::Http(number));
        }
        for address in &addresses {
            match port.protocol {
                Protocol::Tls => out.insert(Taker::Tls(*address, number)),
                Protocol::Tcp | Protocol::Auto => out.insert(Taker::Tcp(*address, number)),
                Protocol::Http | Protocol::Http2 => false,
            };
        }
    }
    out
}

impl Builder<'_> {
    /// Whether istiod has several services of the host in the namespace of the entry, so that it finds one of them.
    fn several(&self, entry: &HostEntry) -> Option<String> {
        if entry.host.starts_with('*') {
            return None;
        }
        let mut objects: Vec<String> = Vec::new();
        for other in self.services.host(&entry.host) {
            if other.namespace == entry.namespace {
                objects.push(other.object());
            }
        }
        if objects.len() > 1 {
            return Some(format!("is of {}", objects.join(" and ")));
        }
        let has_listener = entry.ports.iter().any(|p| !p.protocol.is_http());
        let many = entry.registry == Registry::ServiceEntry && entry.addresses.len() > 1;
        let text = || format!("has several addresses in {}", entry.object());
        (many && has_listener).then(text)
    }

    /// A host of several services of one namespace is imported from any namespace, where that brings the same: istiod takes
    /// the namespace that it takes without a Sidecar.
    pub(super) fn widen(&mut self, entry: &HostEntry, reason: &Reason) {
        if self.whole.as_deref() == Some(&*entry.namespace) {
            return;
        }
        let Some(why) = self.several(entry) else {
            return;
        };
        let taken = self.taken(self.services.host(&entry.host));
        let (host, namespace) = (entry.host.to_string(), entry.namespace.to_string());
        if taken.iter().any(|taken| taken.namespace == entry.namespace) {
            self.enter("*", &entry.host, reason);
            self.out.warnings.insert(Warning::Wide { host, why });
        } else {
            self.out.warnings.insert(Warning::OneOfSeveral {
                host,
                why,
                namespace,
            });
        }
    }

    /// Of entries those that istiod takes: the client sees them, and of each host they are of one namespace.
    pub(super) fn taken(&self, mut entries: Vec<Arc<HostEntry>>) -> Vec<Arc<HostEntry>> {
        entries.retain(|e| e.exports.visible(&e.namespace, self.client));
        let mut of: BTreeMap<Arc<str>, Arc<HostEntry>> = BTreeMap::new();
        for entry in &entries {
            let best = of
                .entry(entry.host.clone())
                .or_insert_with(|| entry.clone());
            if entry.preference(self.client) < best.preference(self.client) {
                *best = entry.clone();
            }
        }
        let of_best =
            |e: &Arc<HostEntry>| of.get(&e.host).is_some_and(|b| b.namespace == e.namespace);
        entries.retain(of_best);
        entries
    }

    /// Connections to a wildcard's listener follow the VirtualServices of whichever host under it: these count for all.
    pub(super) fn connections(&mut self, entry: &HostEntry) {
        let raw = |p: &Port| !p.protocol.is_http();
        if !entry.host.starts_with('*') || !entry.ports.iter().any(raw) {
            return;
        }
        for route in self.services.routes_under(&entry.host) {
            let for_connections = !route.tcp.is_empty() || !route.tls.is_empty();
            if !for_connections || !route.exports.visible(&route.id.namespace, self.client) {
                continue;
            }
            for host in &route.hosts {
                if covers(&entry.host, host) {
                    self.follow(host);
                }
            }
        }
    }

    /// What takes calls to a host. Where several services of it have a port, that of another protocol may hide the one of HTTP.
    fn takers_of(&self, entry: &HostEntry) -> BTreeSet<Taker> {
        let all = self.taken(self.services.host(&entry.host));
        let mut out: BTreeSet<Taker> = all.iter().flat_map(|e| takers(e)).collect();
        for port in all.iter().flat_map(|e| &*e.ports) {
            if !port.protocol.is_http() && port.protocol != Protocol::Auto {
                out.remove(&Taker::Http(port.number));
            }
        }
        out
    }

    /// Wildcards that take calls to the host which nothing closer to it takes. `closest` is what the host has itself.
    pub(super) fn around(&mut self, host: &str, closest: Option<&HostEntry>, reason: &Reason) {
        if !names_host(reason) || closest.is_some_and(|e| e.target.is_some()) {
            return;
        }
        let mut taken = closest.map(|e| self.takers_of(e)).unwrap_or_default();
        let wild = self.taken(self.services.covering(host));
        let hosts: BTreeSet<Arc<str>> = wild.iter().map(|e| e.host.clone()).collect();
        let mut hosts: Vec<Arc<str>> = hosts.into_iter().collect();
        hosts.sort_by_key(|host| std::cmp::Reverse(host.len()));
        for host in hosts {
            let of_host = wild.iter().filter(|e| e.host == host);
            let Some(entry) = of_host.min_by_key(|e| e.preference(self.client)).cloned() else {
                continue;
            };
            let takers = self.takers_of(&entry);
            if closest.is_none_or(|c| c.host != host) && !takers.is_subset(&taken) {
                self.service(&entry, reason);
            }
            taken.extend(takers);
        }
    }
}
