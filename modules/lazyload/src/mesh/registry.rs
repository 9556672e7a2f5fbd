//! Services, ServiceEntries, VirtualServices and DestinationRules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Name;
use super::facts::{EntryRow, ServiceInfo, ServiceRow};
use super::host_map::HostMap;
use crate::scope::services::Registry::{Kubernetes, ServiceEntry};
use crate::scope::services::{Exports, HostEntry, Labels, Route, Rule, Services, Totals};
use crate::scope::size;

/// The mesh as scopes read it.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) services: HashMap<Name, ServiceRow>,
    pub(super) entries: HashMap<Name, EntryRow>,
    routes: BTreeMap<Name, Arc<Route>>,
    rules: HashMap<Name, Arc<Rule>>,
    hosts: HostMap<HostEntry>,
    by_namespace: HashMap<Arc<str>, ByHost>,
    by_label: HashMap<(String, String), BTreeSet<Name>>,
    route_hosts: HostMap<Route>,
    rule_hosts: HostMap<Rule>,
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

    /// Takes a Service in or out. Gives the old one.
    pub(super) fn set_service(
        &mut self,
        name: &Name,
        row: Option<ServiceRow>,
    ) -> Option<ServiceRow> {
        let old = self.services.remove(name);
        if let Some(old) = &old {
            self.unlink(&old.entry);
            for (key, value) in old.info.labels.iter() {
                let pair = (key.clone(), value.clone());
                if let Some(names) = self.by_label.get_mut(&pair) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_label.remove(&pair);
                    }
                }
            }
        }
        if let Some(row) = row {
            self.link(&row.entry);
            for (key, value) in row.info.labels.iter() {
                let names = self.by_label.entry((key.clone(), value.clone()));
                names.or_default().insert(name.clone());
            }
            self.services.insert(name.clone(), row);
        }
        old
    }

    /// Takes a ServiceEntry in or out. Gives the old one.
    pub(super) fn set_entry(&mut self, name: &Name, row: Option<EntryRow>) -> Option<EntryRow> {
        let old = self.entries.remove(name);
        for entry in old.iter().flat_map(|o| &o.entries) {
            self.unlink(entry);
        }
        if let Some(row) = row {
            for entry in &row.entries {
                self.link(entry);
            }
            self.entries.insert(name.clone(), row);
        }
        old
    }

    /// Takes a VirtualService in or out. Gives the old one.
    pub(super) fn set_route(&mut self, name: &Name, route: Option<Route>) -> Option<Arc<Route>> {
        let old = self.routes.remove(name);
        if let Some(old) = old.as_ref().filter(|r| r.mesh) {
            for host in &old.hosts {
                self.route_hosts.remove(host, (&old.namespace, &old.name));
            }
            let bytes = signed(size::of_rules(old.rules));
            self.count(&old.exports, &old.namespace, 0, -bytes);
        }
        if let Some(route) = route {
            let route = Arc::new(route);
            if route.mesh {
                for host in &route.hosts {
                    self.route_hosts.insert(host, route.clone());
                }
                let bytes = signed(size::of_rules(route.rules));
                self.count(&route.exports, &route.namespace, 0, bytes);
            }
            self.routes.insert(name.clone(), route);
        }
        old
    }

    /// Takes a DestinationRule in or out. Gives the old one.
    pub(super) fn set_rule(&mut self, name: &Name, rule: Option<Rule>) -> Option<Arc<Rule>> {
        let old = self.rules.remove(name);
        if let Some(old) = &old {
            self.rule_hosts
                .remove(&old.host, (&old.namespace, &old.name));
        }
        if let Some(rule) = rule {
            let rule = Arc::new(rule);
            self.rule_hosts.insert(&rule.host, rule.clone());
            self.rules.insert(name.clone(), rule);
        }
        old
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

    pub(super) fn of_route(&self, name: &Name) -> Option<Arc<Route>> {
        self.routes.get(name).cloned()
    }

    pub(super) fn route_names(&self) -> Vec<Name> {
        self.routes.keys().cloned().collect()
    }

    pub(super) fn rule_names(&self) -> Vec<Name> {
        self.rules.keys().cloned().collect()
    }

    /// What of a Service does not concern its host.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceInfo> {
        let name = (namespace.to_owned(), name.to_owned());
        self.services.get(&name).map(|row| &row.info)
    }

    /// Namespace and name of all Services, in no order.
    pub fn service_names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// All hosts, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<HostEntry>> {
        let entries = self.entries.values().flat_map(|row| &row.entries);
        self.services.values().map(|row| &row.entry).chain(entries)
    }
}

/// Each object once, by identity.
fn distinct(mut routes: Vec<Arc<Route>>) -> Vec<Arc<Route>> {
    routes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
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
        let rows = smallest
            .into_iter()
            .flatten()
            .filter_map(|n| self.services.get(n));
        rows.filter(|row| {
            labels
                .iter()
                .all(|(k, v)| row.info.labels.get(k) == Some(v))
        })
        .map(|row| row.entry.clone())
        .collect()
    }

    fn routes(&self, host: &str) -> Vec<Arc<Route>> {
        let mut routes = self.route_hosts.get(host).to_vec();
        routes.extend(self.route_hosts.covering(host));
        distinct(routes)
    }

    fn routes_under(&self, pattern: &str) -> Vec<Arc<Route>> {
        distinct(self.route_hosts.under(pattern))
    }

    fn routes_in(&self, namespace: &str) -> Vec<Arc<Route>> {
        let from = (namespace.to_owned(), String::new());
        let routes = self.routes.range(from..);
        let here = routes.take_while(|((owner, _), _)| owner == namespace);
        here.filter(|(_, r)| r.mesh)
            .map(|(_, r)| r.clone())
            .collect()
    }

    fn route(&self, namespace: &str, name: &str) -> Option<Arc<Route>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.routes.get(&name).cloned()
    }

    fn rules(&self, host: &str) -> Vec<Arc<Rule>> {
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
