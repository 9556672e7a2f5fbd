//! Services, ServiceEntries, VirtualServices and DestinationRules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use trimtab_mesh::Mesh;
use trimtab_mesh::host_map::{HostMap, Named as _};
use trimtab_mesh::model::{
    DestinationRule, Namespace, RouteKind, Service, VirtualService, selects,
};
use trimtab_mesh::table::Table;

use super::Name;
use super::aliases::AliasUses;
use crate::config::DomainAlias;
use crate::scope::services::Registry::{Kubernetes, ServiceEntry};
use crate::scope::services::{Exports, HostEntry, Labels, Listener, Resolution, Services, Totals};
use crate::scope::size;

/// The mesh as scopes read it.
#[derive(Debug)]
pub struct Registry {
    objects: Arc<Table<Service>>,
    namespaces: Arc<Table<Namespace>>,
    pub(super) aliases: AliasUses,
    services: HashMap<Name, Arc<HostEntry>>,
    entries: HashMap<Name, Vec<Arc<HostEntry>>>,
    /// By kind and name of the object, an entry for each Service of a route of the Gateway API.
    routes: BTreeMap<RouteKey, Vec<Arc<VirtualService>>>,
    hosts: HostMap<HostEntry>,
    /// ExternalNames by what they stand for.
    by_target: HashMap<Arc<str>, Vec<Arc<HostEntry>>>,
    by_namespace: HashMap<Arc<str>, ByHost>,
    by_label: HashMap<(String, String), BTreeSet<Name>>,
    by_listener: HashMap<Listener, ByHost>,
    route_hosts: HostMap<VirtualService>,
    rule_hosts: HostMap<DestinationRule>,
    /// Of Services, by host.
    endpoints: HashMap<Arc<str>, usize>,
    /// By the namespace that sees them; `None`: all do.
    totals: HashMap<Option<String>, Sum>,
}

/// Namespace, kind and name of an object with routes.
type RouteKey = (String, RouteKind, String);

/// Entries by host, and namespace and name of the object.
type ByHost = BTreeMap<(Arc<str>, Arc<str>, Arc<str>), Arc<HostEntry>>;

fn by_host(entry: &HostEntry) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (host, namespace, name) = (&entry.host, &entry.namespace, &entry.name);
    (host.clone(), namespace.clone(), name.clone())
}

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
            namespaces: mesh.table(),
            aliases: AliasUses::default(),
            services: HashMap::new(),
            entries: HashMap::new(),
            routes: BTreeMap::new(),
            hosts: HostMap::default(),
            by_target: HashMap::new(),
            by_namespace: HashMap::new(),
            by_label: HashMap::new(),
            by_listener: HashMap::new(),
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

    /// An ExternalName has no configuration of its own.
    fn count_entry(&mut self, entry: &HostEntry, sign: i64) {
        if entry.resolution == Resolution::Alias {
            return;
        }
        let bytes = sign * signed(entry.bytes(self.endpoints(entry)));
        self.count(&entry.exports, &entry.namespace, sign, bytes);
    }

    fn link(&mut self, entry: &Arc<HostEntry>) {
        self.hosts.insert(&entry.host, entry.clone());
        if let Some(target) = &entry.target {
            let aliases = self.by_target.entry(target.clone()).or_default();
            let at = aliases.partition_point(|a| a.name() < entry.name());
            aliases.insert(at, entry.clone());
        }
        let namespace = self.by_namespace.entry(entry.namespace.clone());
        namespace.or_default().insert(by_host(entry), entry.clone());
        for listener in entry.listeners() {
            let there = self.by_listener.entry(listener).or_default();
            there.insert(by_host(entry), entry.clone());
        }
        self.aliases.count(&entry.host, true);
        self.count_entry(entry, 1);
    }

    fn unlink(&mut self, entry: &HostEntry) {
        self.count_entry(entry, -1);
        self.aliases.count(&entry.host, false);
        self.hosts.remove(&entry.host, entry);
        if let Some(target) = &entry.target
            && let Some(aliases) = self.by_target.get_mut(target)
        {
            aliases.retain(|alias| !alias.is(entry));
            if aliases.is_empty() {
                self.by_target.remove(target);
            }
        }
        if let Some(namespace) = self.by_namespace.get_mut(&entry.namespace) {
            namespace.remove(&by_host(entry));
            if namespace.is_empty() {
                self.by_namespace.remove(&entry.namespace);
            }
        }
        for listener in entry.listeners() {
            if let Some(there) = self.by_listener.get_mut(&listener) {
                there.remove(&by_host(entry));
                if there.is_empty() {
                    self.by_listener.remove(&listener);
                }
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

    /// Takes the routes of an object in or out; those of one object have a host each, or are one.
    pub(super) fn set_routes(
        &mut self,
        name: &Name,
        kind: RouteKind,
        routes: Vec<Arc<VirtualService>>,
    ) {
        let key = (name.0.clone(), kind, name.1.clone());
        for old in self.routes.remove(&key).unwrap_or_default() {
            if old.mesh {
                for host in &old.hosts {
                    self.route_hosts.remove(host, &old);
                }
                self.count_route(&old, -1);
            }
        }
        for route in routes.iter().filter(|r| r.mesh) {
            for host in &route.hosts {
                self.route_hosts.insert(host, route.clone());
            }
            self.count_route(route, 1);
        }
        if !routes.is_empty() {
            self.routes.insert(key, routes);
        }
    }

    /// Routes of the Gateway API count where the Service is.
    fn in_force(&self, route: &VirtualService) -> bool {
        let service = |host: &Arc<str>| {
            let mut entries = self.hosts.get(host).iter();
            entries.any(|e| e.registry == Kubernetes)
        };
        !route.kind.is_gateway_api() || route.hosts.iter().all(service)
    }

    /// Each object once, by identity, of those that are in force.
    fn distinct(&self, mut routes: Vec<Arc<VirtualService>>) -> Vec<Arc<VirtualService>> {
        routes.retain(|route| self.in_force(route));
        routes.sort_by(|a, b| identity(a).cmp(&identity(b)));
        routes.dedup();
        routes
    }

    /// Takes a DestinationRule in or out.
    pub(super) fn set_rule(
        &mut self,
        old: Option<&Arc<DestinationRule>>,
        new: Option<&Arc<DestinationRule>>,
    ) {
        if let Some(old) = old {
            self.rule_hosts.remove(&old.host, old);
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

    /// Whether a Service has endpoints.
    pub(super) fn has_endpoints(&self, host: &str) -> bool {
        self.endpoints.contains_key(host)
    }

    /// Takes over the rules of `domainAliases`.
    pub(super) fn set_aliases(&mut self, rules: &[DomainAlias]) {
        let mut aliases = AliasUses::new(rules);
        for entry in self.all() {
            aliases.count(&entry.host, true);
        }
        self.aliases = aliases;
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
        let routes = self.routes.values().flatten();
        routes.filter(|route| route.mesh).cloned().collect()
    }

    /// All hosts, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<HostEntry>> {
        let entries = self.entries.values().flatten();
        self.services.values().chain(entries)
    }
}

fn identity(route: &VirtualService) -> (&str, &str, RouteKind, &[Arc<str>]) {
    let (namespace, name) = route.name();
    (namespace, name, route.kind, &route.hosts)
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

    fn standing_for(&self, host: &str) -> Vec<Arc<HostEntry>> {
        self.by_target.get(host).cloned().unwrap_or_default()
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<HostEntry>> {
        let entries = self.by_namespace.get(namespace);
        entries
            .into_iter()
            .flat_map(|e| e.values())
            .cloned()
            .collect()
    }

    fn on_tcp_port(&self, port: u16) -> Vec<Arc<HostEntry>> {
        let there = self.by_listener.get(&Listener::Own(port));
        let there = there.into_iter().flatten();
        let entries = there.map(|(_, entry)| entry);
        // A headless Service has a listener for each of its pods.
        let listens = |e: &&Arc<HostEntry>| {
            e.registry == ServiceEntry || !e.headless || self.endpoints(e) > 0
        };
        entries.filter(listens).cloned().collect()
    }

    fn on_http_port(&self, port: u16, client: &str) -> Option<Arc<HostEntry>> {
        let there = self.by_listener.get(&Listener::Shared(port))?;
        let mut entries = there.values();
        // Of a host in several namespaces istiod takes one.
        let taken = |e: &Arc<HostEntry>| {
            let all = self.hosts.get(&e.host).iter();
            let visible = all.filter(|o| o.exports.visible(&o.namespace, client));
            let best = visible.min_by_key(|o| o.preference(client));
            best.is_some_and(|best| best.namespace == e.namespace)
        };
        let found = entries.find(|e| e.exports.visible(&e.namespace, client) && taken(e));
        found.cloned()
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
        self.distinct(routes)
    }

    fn routes_under(&self, pattern: &str) -> Vec<Arc<VirtualService>> {
        self.distinct(self.route_hosts.under(pattern))
    }

    fn routes_in(&self, namespace: &str) -> Vec<Arc<VirtualService>> {
        let from = (
            namespace.to_owned(),
            RouteKind::VirtualService,
            String::new(),
        );
        let routes = self.routes.range(from..);
        let here = routes.take_while(|((owner, ..), _)| owner == namespace);
        let here = here.flat_map(|(_, routes)| routes).filter(|r| r.mesh);
        self.distinct(here.cloned().collect())
    }

    fn all(&self) -> Vec<Arc<HostEntry>> {
        let mut all: Vec<Arc<HostEntry>> = Self::all(self).cloned().collect();
        all.sort_by(|a, b| (&a.host, a.name()).cmp(&(&b.host, b.name())));
        all
    }

    fn all_routes(&self) -> Vec<Arc<VirtualService>> {
        let all = self.routes.values().flatten().filter(|r| r.mesh);
        self.distinct(all.cloned().collect())
    }

    fn route(&self, namespace: &str, name: &str) -> Option<Arc<VirtualService>> {
        let key = (
            namespace.to_owned(),
            RouteKind::VirtualService,
            name.to_owned(),
        );
        self.routes.get(&key)?.first().cloned()
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
        let mut out = Totals {
            bytes: size::PROXY,
            ..Totals::default()
        };
        for key in [None, Some(client.to_owned())] {
            let sum = self.totals.get(&key).copied().unwrap_or_default();
            out.services += u64::try_from(sum.services).unwrap_or_default();
            out.bytes += u64::try_from(sum.bytes).unwrap_or_default();
        }
        out
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.by_namespace.contains_key(namespace)
            || self.namespaces.get("", namespace).is_some()
            || !self.routes_in(namespace).is_empty()
    }

    fn unused_aliases(&self) -> Vec<usize> {
        self.aliases.unused()
    }
}
