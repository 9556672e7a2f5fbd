//! Services that share a TCP port with one that has no address (R7).
//!
//! A connection takes the listener of its own address, else the one of `0.0.0.0`. A ServiceEntry without an address has that
//! one, for connections to any address, and one with a range has a part of it: when such a one is in scope, every service with
//! a listener of its own on that port must be, or its connections go elsewhere, and no fallback sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_mesh::names::covers;

use super::builder::Builder;
use super::services::{HostEntry, Listener};
use super::{EVERYTHING, Reason};

/// Services by namespace and host, with the reasons.
type Taken = BTreeMap<(Arc<str>, Arc<str>), (Arc<HostEntry>, BTreeSet<Reason>)>;

impl Builder<'_> {
    /// Adds them. What is added may have a range itself.
    pub(super) fn neighbours(&mut self) {
        let mut looked = BTreeSet::new();
        loop {
            let new = self.out.entries.keys().filter(|e| !looked.contains(*e));
            let new: Vec<String> = new.cloned().collect();
            if new.is_empty() || self.out.entries.contains_key(EVERYTHING) {
                return;
            }
            let open: Vec<Arc<HostEntry>> = new.iter().flat_map(|e| self.imported(e)).collect();
            looked.extend(new);
            for (entry, reasons) in self.taken_by(&open).into_values() {
                for reason in reasons {
                    self.bring(&entry, &reason);
                }
            }
        }
    }

    /// Services that an entry imports.
    pub(super) fn imported(&self, entry: &str) -> Vec<Arc<HostEntry>> {
        let Some((namespace, host)) = entry.split_once('/') else {
            return Vec::new();
        };
        let mut found = match host {
            "*" => self.services.in_namespace(namespace),
            wild if wild.starts_with('*') => self.services.under(wild),
            host => self.services.host(host),
        };
        found.retain(|e| {
            let there = namespace == "*" || *e.namespace == *namespace;
            there && e.exports.visible(&e.namespace, self.client)
        });
        found
    }

    /// Services out of scope whose connections would go to one of these.
    fn taken_by(&mut self, open: &[Arc<HostEntry>]) -> Taken {
        let mut out = Taken::new();
        for taker in open {
            for port in taker.open_ports() {
                self.out.consulted.listeners.insert(Listener::Own(port));
                let reason = Reason::Neighbour(taker.host.to_string(), port);
                for entry in self.services.on_tcp_port(port) {
                    let visible = entry.exports.visible(&entry.namespace, self.client);
                    if visible && taker.takes_from(&entry) && !self.is_in(&entry) {
                        let key = (entry.namespace.clone(), entry.host.clone());
                        let fresh = (entry, BTreeSet::new());
                        let (_, reasons) = out.entry(key).or_insert(fresh);
                        reasons.insert(reason.clone());
                    }
                }
            }
        }
        out
    }

    /// Whether a service is in by an entry.
    fn is_in(&self, entry: &HostEntry) -> bool {
        let has = |namespace: &str, host: &str| {
            let entries = &self.out.entries;
            entries.contains_key(&format!("{namespace}/{host}"))
        };
        let own = has(&entry.namespace, &entry.host) || has(&entry.namespace, "*");
        if own || has("*", &entry.host) {
            return true;
        }
        let entries = self.out.entries.keys().filter_map(|e| e.split_once('/'));
        let mut wild = entries.filter(|(_, host)| host.starts_with('*'));
        wild.any(|(namespace, host)| {
            (namespace == "*" || *namespace == *entry.namespace) && covers(host, &entry.host)
        })
    }
}
