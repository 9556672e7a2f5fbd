//! Services, ServiceEntries, VirtualServices and DestinationRules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use trimtab_mesh::Mesh;
use trimtab_mesh::host_map::{HostMap, Named as _};
use trimtab_mesh::model::{DestinationRule, Service, VirtualService, selects};
use trimtab_mesh::table::Table;

use super::Name;
use crate::scope::services::Registry::{Kubernetes, ServiceEntry};
use crate::scope::services::{Exports, HostEntry, Labels, Services, Totals};
use crate::scope::size;

/// The mesh as scopes read it.
#[derive(Debug)]
pub struct Registry {
    objects: Arc<Table<Service>>,
    services: HashMap<Name, Arc<HostEntry>>,
    entries: HashMap<Name, Vec<Arc<HostEntry>>>,
    routes: BTreeMap<Name, Arc<VirtualService>>,
    hosts: HostMap<HostEntry>,
    by_namespace: HashMap<Arc<str>, ByHost>,
    by_label: HashMap<(String, String), BTreeSet<Name>>,
    route_hosts: HostMap<VirtualService>,
    rule_hosts: HostMap<DestinationRule>,
    /// Of Services, by host.
    endpoints: HashMap<Arc<str>, usize>,
    /// By the namespace that sees them; `None`: all do.
    totals: HashMap<Option<String>, Sum>,
}

/// Entries by host and name of the object.
type ByHost = BTreeMap<(Arc<str>, Arc<str>), Arc<HostEntry>>;

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    services: i64,
    bytes: i64,
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Registry {
    /// No hosts yet.
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            objects: mesh.table(),
            services: HashMap::new(),
            entries: HashMap::new(),
            routes: BTreeMap::new(),
            hosts: HostMap::default(),
            by_namespace: HashMap::new(),
            by_label: HashMap::new(),
            route_hosts: HostMap::default(),
            rule_hosts: HostMap::default(),
            endpoints: HashMap::new(),
            totals: HashMap::new(),
        }
    }

    fn count(&mut self, exports: &Exports, owner: &str, services: i64, bytes: i64) {
        let clients: Vec<Option<String>> = match exports.clients(owner) {
            None => vec![None],
            Some(names) => names.map(|n| Some(n.to_owned())).collect(),
        };
        for client in clients {
            let sum = self.totals.entry(client).or_default();
            sum.services += services;
            sum.bytes = sum.bytes.saturating_add(bytes);
        }
    }

    fn count_entry(&mut self, entry: &HostEntry, sign: i64) {
        let bytes = sign * signed(entry.bytes(self.endpoints(entry)));
        self.count(&entry.exports, &entry.namespace, sign, bytes);
    }

    fn link(&mut self, entry: &Arc<HostEntry>) {
        self.hosts.insert(&entry.host, entry.clone());
        let namespace = self.by_namespace.entry(entry.namespace.clone());
        let key = (entry.host.clone(), entry.name.clone());
        namespace.or_default().insert(key, entry.clone());
        self.count_entry(entry, 1);
    }

    fn unlink(&mut self, entry: &HostEntry) {
        self.count_entry(entry, -1);
        self.hosts
            .remove(&entry.host, (&entry.namespace, &entry.name));
        if let Some(namespace) = self.by_namespace.get_mut(&entry.namespace) {
            namespace.remove(&(entry.host.clone(), entry.name.clone()));
            if namespace.is_empty() {
                self.by_namespace.remove(&entry.namespace);
            }
        }
    }

    /// Takes the host of a Service in or out.
    pub(super) fn set_service(&mut self, name: &Name, entry: Option<Arc<HostEntry>>) {
        if let Some(old) = self.services.remove(name) {
            self.unlink(&old);
            for (key, value) in old.labels.iter() {
                let pair = (key.clone(), value.clone());
                if let Some(names) = self.by_label.get_mut(&pair) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_label.remove(&pair);
                    }
                }
            }
        }
        if let Some(entry) = entry {
            self.link(&entry);
            for (key, value) in entry.labels.iter() {
                let names = self.by_label.entry((key.clone(), value.clone()));
                names.or_default().insert(name.clone());
            }
            self.services.insert(name.clone(), entry);
        }
    }

    /// Takes the hosts of a ServiceEntry in or out. Gives the old ones.
    pub(super) fn set_entry(
        &mut self,
        name: &Name,
        entries: Vec<Arc<HostEntry>>,
    ) -> Vec<Arc<HostEntry>> {
        let old = self.entries.remove(name).unwrap_or_default();
        for entry in &old {
            self.unlink(entry);
        }
        for entry in &entries {
            self.link(entry);
        }
        if !entries.is_empty() {
            self.entries.insert(name.clone(), entries);
        }
        old
    }

    fn count_route(&mut self, route: &VirtualService, sign: i64) {
        let bytes = sign * signed(size::of_rules(route.rules));
        self.count(&route.exports, &route.id.namespace, 0, bytes);
    }

    /// Takes a VirtualService in or out.
    pub(super) fn set_route(&mut self, name: &Name, route: Option<&Arc<VirtualService>>) {
        if let Some(old) = self.routes.remove(name).filter(|r| r.mesh) {
            for host in &old.hosts {
                self.route_hosts.remove(host, (&name.0, &name.1));
            }
            self.count_route(&old, -1);
        }
        if let Some(route) = route {
            if route.mesh {
                for host in &route.hosts {
                    self.route_hosts.insert(host, route.clone());
                }
                self.count_route(route, 1);
            }
            self.routes.insert(name.clone(), route.clone());
        }
    }

    /// Takes a DestinationRule in or out.
    pub(super) fn set_rule(
        &mut self,
        name: &Name,
        old: Option<&Arc<DestinationRule>>,
        new: Option<&Arc<DestinationRule>>,
    ) {
        if let Some(old) = old {
            self.rule_hosts.remove(&old.host, (&name.0, &name.1));
        }
        if let Some(rule) = new {
            self.rule_hosts.insert(&rule.host, rule.clone());
        }
    }

    /// Sets the number of endpoints of a Service.
    pub(super) fn set_endpoints(&mut self, host: &Arc<str>, count: usize) {
        let entries = self.hosts.get(host).iter();
        let entries = entries.filter(|e| e.registry == Kubernetes).cloned();
        let entries: Vec<Arc<HostEntry>> = entries.collect();
        for entry in &entries {
            self.count_entry(entry, -1);
        }
        if count == 0 {
            self.endpoints.remove(host);
        } else {
            self.endpoints.insert(host.clone(), count);
        }
        for entry in &entries {
            self.count_entry(entry, 1);
        }
    }

    /// A host as objects have it.
    pub(super) fn known(&self, host: &str) -> Option<Arc<str>> {
        Some(self.hosts.get(host).first()?.host.clone())
    }

    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.objects.get(namespace, name)
    }

    /// Namespace and name of all Services, in no order.
    pub fn service_names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// All VirtualServices of sidecars, by namespace and name.
    pub fn all_routes(&self) -> Vec<Arc<VirtualService>> {
        let routes = self.routes.values();
        routes.filter(|route| route.mesh).cloned().collect()
    }

    /// All hosts, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<HostEntry>> {
        let entries = self.entries.values().flatten();
        self.services.values().chain(entries)
    }
}

/// Each object once, by identity.
fn distinct(mut routes: Vec<Arc<VirtualService>>) -> Vec<Arc<VirtualService>> {
    routes.sort_by(|a, b| a.name().cmp(&b.name()));
    routes.dedup();
    routes
}

impl Services for Registry {
    fn host(&self, host: &str) -> Vec<Arc<HostEntry>> {
        self.hosts.get(host).to_vec()
    }

    fn covering(&self, host: &str) -> Vec<Arc<HostEntry>> {
        self.hosts.covering(host)
    }

    fn under(&self, pattern: &str) -> Vec<Arc<HostEntry>> {
        self.hosts.under(pattern)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<HostEntry>> {
        let entries = self.by_namespace.get(namespace);
        entries
            .into_iter()
            .flat_map(|e| e.values())
            .cloned()
            .collect()
    }

    fn labelled(&self, labels: &Labels) -> Vec<Arc<HostEntry>> {
        let sets = labels
            .iter()
            .map(|(k, v)| self.by_label.get(&(k.clone(), v.clone())));
        let smallest = sets
            .min_by_key(|set| set.map_or(0, BTreeSet::len))
            .flatten();
        let names = smallest.into_iter().flatten();
        let entries = names.filter_map(|n| self.services.get(n));
        entries
            .filter(|entry| selects(labels, &entry.labels))
            .cloned()
            .collect()
    }

    fn routes(&self, host: &str) -> Vec<Arc<VirtualService>> {
        let mut routes = self.route_hosts.get(host).to_vec();
        routes.extend(self.route_hosts.covering(host));
        distinct(routes)
    }

    fn routes_under(&self, pattern: &str) -> Vec<Arc<VirtualService>> {
        distinct(self.route_hosts.under(pattern))
    }

    fn routes_in(&self, namespace: &str) -> Vec<Arc<VirtualService>> {
        let from = (namespace.to_owned(), String::new());
        let routes = self.routes.range(from..);
        let here = routes.take_while(|((owner, _), _)| owner == namespace);
        here.filter(|(_, r)| r.mesh)
            .map(|(_, r)| r.clone())
            .collect()
    }

    fn route(&self, namespace: &str, name: &str) -> Option<Arc<VirtualService>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.routes.get(&name).cloned()
    }

    fn rules(&self, host: &str) -> Vec<Arc<DestinationRule>> {
        let mut rules = self.rule_hosts.get(host).to_vec();
        rules.extend(self.rule_hosts.covering(host));
        rules
    }

    fn endpoints(&self, entry: &HostEntry) -> usize {
        let of_slices = || self.endpoints.get(&entry.host).copied().unwrap_or_default();
        match entry.registry {
            Kubernetes => of_slices(),
            ServiceEntry => entry.endpoints,
        }
    }

    fn totals(&self, client: &str) -> Totals {
        let mut out = Totals::default();
        for key in [None, Some(client.to_owned())] {
            let sum = self.totals.get(&key).copied().unwrap_or_default();
            out.services += u64::try_from(sum.services).unwrap_or_default();
            out.bytes += u64::try_from(sum.bytes).unwrap_or_default();
        }
        out
    }
}
