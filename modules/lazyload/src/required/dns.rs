//! Hosts that only the DNS of proxies may know: it answers for what is in scope and for nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trimtab_mesh::model::{MeshConfig, ServiceEntry};

use super::needs::{Needs, Pods};
use crate::scope::{Reason, Required};

/// A host with its namespace in front.
type Host = (String, String);

/// Names of ServiceEntries that proxies resolve, by who sees them.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By the namespace that sees them; `None`: all do. Each with the number of its objects.
    by_client: HashMap<Option<String>, BTreeMap<Host, usize>>,
    /// Namespaces whose fences depend on names.
    looked: BTreeSet<String>,
}

/// The hosts that a proxy's DNS has by a ServiceEntry: none of a wildcard, nor those whose calls go wherever the
/// application's own DNS says.
fn hosts(entry: &ServiceEntry) -> BTreeSet<Host> {
    let spec = &entry.spec;
    let passed_on = spec
        .resolution
        .as_deref()
        .is_none_or(|r| r == "NONE" || r.is_empty());
    let single = entry.addresses().next().is_some();
    // Istio gives an address to those that have none.
    let named = single || (spec.addresses.is_empty() && !passed_on);
    if !named {
        return BTreeSet::new();
    }
    let hosts = spec.hosts.iter().filter(|host| !host.contains('*'));
    let hosts = hosts.map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    let hosts = hosts.filter(|host| !host.is_empty());
    hosts
        .map(|host| (entry.id.namespace.to_string(), host))
        .collect()
}

fn clients(entry: &ServiceEntry) -> Vec<Option<String>> {
    match entry.exports.clients(&entry.id.namespace) {
        None => vec![None],
        Some(names) => names.map(|n| Some(n.to_owned())).collect(),
    }
}

impl Names {
    fn set(&mut self, entry: &ServiceEntry, there: bool) {
        let hosts = hosts(entry);
        for client in clients(entry) {
            let names = self.by_client.entry(client.clone()).or_default();
            for host in &hosts {
                let count = names.entry(host.clone()).or_default();
                *count = if there {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
                if *count == 0 {
                    names.remove(host);
                }
            }
            if names.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }

    /// A ServiceEntry is another one now. Gives the namespaces whose fences this may matter to.
    pub(super) fn change(
        &mut self,
        old: Option<&ServiceEntry>,
        new: Option<&ServiceEntry>,
    ) -> BTreeSet<String> {
        let part = |entry: Option<&ServiceEntry>| entry.map(|e| (hosts(e), clients(e)));
        if part(old) == part(new) {
            return BTreeSet::new();
        }
        let (rows, mut touched) = ([(old, false), (new, true)], BTreeSet::new());
        for (entry, there) in rows {
            let Some(entry) = entry else { continue };
            self.set(entry, there);
            let own = |client: &&String| {
                let owner = &entry.id.namespace;
                !hosts(entry).is_empty() && entry.exports.visible(owner, client)
            };
            touched.extend(self.looked.iter().filter(own).cloned());
        }
        touched
    }

    fn seen_by(&mut self, client: &str) -> BTreeSet<Host> {
        self.looked.insert(client.to_owned());
        let keys = [None, Some(client.to_owned())];
        let seen = keys.iter().filter_map(|key| self.by_client.get(key));
        seen.flat_map(|names| names.keys().cloned()).collect()
    }
}

/// Whether the proxies of pods answer DNS; `None`: it cannot be told.
fn captured(pods: &BTreeSet<Pods>, mesh: Option<&MeshConfig>) -> Option<bool> {
    let default = mesh.filter(|mesh| !mesh.unreadable);
    let default = default.map(|mesh| mesh.default_config.captures_dns().unwrap_or(false));
    let each: BTreeSet<Option<bool>> = pods.iter().map(|p| p.dns.or(default)).collect();
    if each.contains(&Some(true)) {
        return Some(true);
    }
    (!each.contains(&None)).then_some(false)
}

/// Adds the names that a namespace sees. `wanted`: the configuration has them in scope.
pub(super) fn add(
    names: &mut Names,
    namespace: &str,
    (pods, mesh): (&BTreeSet<Pods>, Option<&MeshConfig>),
    wanted: bool,
    out: &mut Needs,
) {
    let captured = captured(pods, mesh);
    if captured == Some(false) {
        return;
    }
    for (owner, host) in names.seen_by(namespace) {
        if captured == Some(true) && wanted {
            out.hosts.insert(Required {
                host,
                namespace: Some(owner),
                reason: Reason::Dns,
                called: true,
            });
        } else {
            out.unnamed.insert(format!("{owner}/{host}"));
        }
    }
}
