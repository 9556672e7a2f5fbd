//! Which services and routes a proxy gets (`SidecarScope` of istiod's push context).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use trimtab_mesh::Exports;
use trimtab_mesh::model::VirtualService;

use super::egress::{Egress, Hosts};
use super::gateway::{joined, port_of};
use super::known::{Known, Service};
use super::merge::{Ports, brought};
use super::order::{Decisions, Undecided, places};
use super::route::{Route, age};
use super::{Client, Reads, Release, Unread};
use crate::scope::services::{HostEntry, Port, Registry, Services};

/// What a proxy gets, in istiod's order.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Services that entries name: they have virtual hosts, listeners and names.
    pub listed: Vec<Service>,
    /// Those, and what routes lead to: they have clusters. One for each host.
    pub known: Vec<Service>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// Services and routes that a proxy gets; without a Sidecar, all that it may see.
pub fn import(
    client: &Client<'_>,
    egress: Option<&Egress>,
    services: &dyn Services,
    reads: &mut dyn Reads,
) -> Imported {
    decided(client, egress, services, &Decisions::default(), reads)
}

/// The same with what istiod may decide in several ways decided in one of them.
pub(super) fn decided(
    client: &Client<'_>,
    egress: Option<&Egress>,
    services: &dyn Services,
    decisions: &Decisions,
    reads: &mut dyn Reads,
) -> Imported {
    let everything = Egress::everything();
    let import = Import {
        client,
        egress: egress.unwrap_or(&everything),
        services,
        decisions,
    };
    let mut out = Imported {
        listed: import.listed(reads),
        routes: import.routes(reads),
        ..Imported::default()
    };
    let mut known = Known::default();
    for service in &out.listed {
        known.add(service.clone());
    }
    for route in &out.routes {
        for (host, ports) in brought(&route.object, &route.http, client.namespace) {
            reads.host(&host);
            if let Some(service) = import.destination(&host, &ports) {
                known.add(service);
            }
        }
    }
    out.known = known.services;
    out
}

/// Whether a route to a host leads, whatever else is imported and whatever istiod decides, to what a client has of the host
/// without a Sidecar.
pub(super) fn leads_alike(
    client: &Client<'_>,
    host: &str,
    ports: &Ports,
    services: &dyn Services,
) -> bool {
    if services.host(host).len() < 2 {
        return true;
    }
    let any = Egress::of_host(host);
    let decisions = Decisions::default();
    let import = Import {
        client,
        egress: &any,
        services,
        decisions: &decisions,
    };
    let mut known = Known::default();
    for service in import.listed(&mut Unread) {
        known.add(service);
    }
    let Some(without) = known.services.into_iter().next() else {
        return true;
    };
    let Some(brought) = import.destination(host, ports) else {
        return false;
    };
    let named = |port: &&Port| ports.contains(&None) || ports.contains(&Some(port.number));
    let numbers = |ports: &[Port]| -> BTreeSet<u16> {
        ports.iter().filter(named).map(|p| p.number).collect()
    };
    let alike = Arc::ptr_eq(&brought.entry, &without.entry)
        && numbers(&brought.ports) == numbers(&without.ports);
    // Addresses of one ServiceEntry are the same to a route.
    let asked = decisions.into_asked().into_keys();
    let several = |what: &Undecided| match what {
        Undecided::Namespace(_) => true,
        Undecided::Order(namespace, host) => {
            let entries = services.host(host);
            entries.iter().filter(|e| e.namespace == *namespace).count() > 1
        }
    };
    alike && !asked.into_iter().any(|what| several(&what))
}

struct Import<'a> {
    client: &'a Client<'a>,
    egress: &'a Egress,
    services: &'a dyn Services,
    decisions: &'a Decisions,
}

fn age_of(entry: &HostEntry) -> (Timestamp, String, String) {
    let name = match entry.registry {
        Registry::Kubernetes => &entry.name,
        Registry::ServiceEntry => &entry.host,
    };
    age(entry.created, name, &entry.namespace)
}

impl Import<'_> {
    fn sees(&self, exports: &Exports, owner: &str) -> bool {
        exports.visible(owner, self.client.namespace)
    }

    /// Services of entries as istiod sorts them.
    fn sorted(&self, entries: impl IntoIterator<Item = Arc<HostEntry>>) -> Vec<Service> {
        let services = entries.into_iter().flat_map(|entry| {
            let places = places(&entry, self.services, self.decisions);
            places.into_iter().zip(Service::of(&entry))
        });
        let mut all: Vec<(usize, Service)> = services.collect();
        all.sort_by_cached_key(|(place, service)| (age_of(&service.entry), *place));
        all.into_iter().map(|(_, service)| service).collect()
    }

    /// Of the services of a host in one namespace, that which a look-up finds.
    fn first(&self, entries: impl IntoIterator<Item = Arc<HostEntry>>) -> Option<Service> {
        // Of a group that sorts alike all are asked, so that none goes before its place.
        let sorted = self.sorted(entries).into_iter();
        sorted.min_by_key(|service| service.entry.registry)
    }

    /// Services of the host by namespace, as look-ups find them, also those that the client may not see.
    fn by_namespace(&self, host: &str) -> BTreeMap<Arc<str>, Service> {
        let mut all: BTreeMap<Arc<str>, Vec<Arc<HostEntry>>> = BTreeMap::new();
        for entry in self.services.host(host) {
            all.entry(entry.namespace.clone()).or_default().push(entry);
        }
        let found = all
            .into_iter()
            .filter_map(|(namespace, entries)| Some((namespace, self.first(entries)?)));
        found.collect()
    }

    /// Services that entries name.
    fn listed(&self, reads: &mut dyn Reads) -> Vec<Service> {
        let exact = self.client.release >= Release::V1_31 && self.egress.is_exact();
        let mut services = if exact {
            self.looked_up(reads)
        } else {
            self.sorted(self.walked(reads))
        };
        services.retain(|s| self.sees(&s.entry.exports, &s.entry.namespace));
        if exact {
            services.sort_by_cached_key(|s| age_of(&s.entry));
        } else {
            services.sort_by_key(|s| s.entry.exports.clients("").is_none());
        }
        let mut out: Vec<Service> = Vec::new();
        for mut service in services {
            let Some(list) = self.importing(&service.entry) else {
                continue;
            };
            let aliases = self.aliases(service.host()).into_iter();
            service.aliases = aliases.filter(|alias| list.import(&alias.host)).collect();
            out.push(service);
        }
        self.one_namespace(out)
    }

    /// The list of entries that imports a service.
    fn importing(&self, entry: &HostEntry) -> Option<&Hosts> {
        if self.egress.excludes(&entry.namespace, &entry.host)
            && self.client.release >= Release::V1_31
        {
            return None;
        }
        let mut lists = self.egress.lists(&entry.namespace);
        lists.find(|list| list.import(&entry.host))
    }

    fn looked_up(&self, reads: &mut dyn Reads) -> Vec<Service> {
        let mut out = Vec::new();
        for (namespace, hosts) in self.egress.namespaces() {
            for host in &hosts.exact {
                reads.host(host);
                let here = self.services.host(host).into_iter();
                out.extend(self.first(here.filter(|e| &*e.namespace == namespace)));
            }
        }
        out
    }

    fn walked(&self, reads: &mut dyn Reads) -> Vec<Arc<HostEntry>> {
        let mut out: Vec<Arc<HostEntry>> = Vec::new();
        for (namespace, hosts) in self.egress.namespaces() {
            let here = |e: &Arc<HostEntry>| &*e.namespace == namespace;
            for host in &hosts.exact {
                reads.host(host);
                out.extend(self.services.host(host).into_iter().filter(here));
            }
            for wild in &hosts.wild {
                let found = if wild == "*" {
                    self.services.in_namespace(namespace)
                } else {
                    reads.host(wild);
                    self.services.under(wild)
                };
                out.extend(found.into_iter().filter(here));
            }
        }
        if let Some(hosts) = self.egress.anywhere() {
            for host in &hosts.exact {
                reads.host(host);
                out.extend(self.services.host(host));
            }
            for wild in &hosts.wild {
                let all = wild == "*";
                out.extend(if all {
                    self.services.all()
                } else {
                    self.services.under(wild)
                });
            }
        }
        let mut seen = HashSet::new();
        out.retain(|entry| seen.insert(Arc::as_ptr(entry)));
        out
    }

    /// Of a host in several namespaces one is taken: the client's, else the first, Services before others.
    fn one_namespace(&self, mut listed: Vec<Service>) -> Vec<Service> {
        let mut chosen: BTreeMap<Arc<str>, (Arc<str>, Registry)> = BTreeMap::new();
        for Service { entry, .. } in &listed {
            let this = (entry.namespace.clone(), entry.registry);
            let Some(old) = chosen.get(&entry.host).cloned() else {
                chosen.insert(entry.host.clone(), this);
                continue;
            };
            let own = *entry.namespace == *self.client.namespace;
            let old_own = *old.0 == *self.client.namespace;
            let better = old.1 != Registry::Kubernetes && entry.registry == Registry::Kubernetes;
            if own || (better && !old_own) {
                chosen.insert(entry.host.clone(), this);
            }
        }
        listed.retain(|s| {
            chosen
                .get(&s.entry.host)
                .is_some_and(|(ns, _)| *ns == s.entry.namespace)
        });
        listed
    }

    /// ExternalNames that stand for a host, in one step or several; sorted as istiod does.
    fn aliases(&self, host: &str) -> Vec<Arc<HostEntry>> {
        let mut out: Vec<Arc<HostEntry>> = Vec::new();
        let mut seen = BTreeSet::from([Arc::<str>::from(host)]);
        let mut next = self.services.standing_for(host);
        // What an ExternalName stands for has the names, and it none.
        if next.is_empty() || self.services.host(host).iter().any(|e| e.target.is_some()) {
            return out;
        }
        while let Some(alias) = next.pop() {
            if seen.insert(alias.host.clone()) {
                next.extend(self.services.standing_for(&alias.host));
                out.push(alias);
            }
        }
        out.sort_by(|a, b| (&a.namespace, &a.host).cmp(&(&b.namespace, &b.host)));
        out
    }

    /// The service that a route's destination is, with the ports that the route names.
    fn destination(&self, host: &str, ports: &Ports) -> Option<Service> {
        let mut found = self.by_namespace(host);
        let own = found.remove(self.client.namespace);
        let mut service = own.or_else(|| self.best(host, found.into_values()))?;
        let named = |port: &Port| ports.contains(&None) || ports.contains(&Some(port.number));
        // One without ports comes as it is.
        let all = service.ports.len();
        service.ports.retain(named);
        if service.ports.is_empty() && all > 0 {
            return None;
        }
        service.aliases = self.aliases(host);
        Some(service)
    }

    /// Of services of a host in several namespaces the one of Kubernetes, else one of the oldest.
    fn best(&self, host: &str, found: impl Iterator<Item = Service>) -> Option<Service> {
        let age = |s: &Service| (s.entry.registry, s.entry.created.unwrap_or(Timestamp::MAX));
        let visible = found.filter(|s| self.sees(&s.entry.exports, &s.entry.namespace));
        let mut visible: Vec<Service> = visible.collect();
        let oldest = visible.iter().map(age).min()?;
        visible.retain(|s| age(s) == oldest);
        let what = Undecided::Namespace(host.into());
        let way = self.decisions.way(what, visible.len());
        visible.into_iter().nth(way)
    }

    fn routes(&self, reads: &mut dyn Reads) -> Vec<Route> {
        let mut found = self.candidates();
        found.retain(|r| self.sees(&r.exports, &r.id.namespace) && self.imports(r));
        let joined = joined(found, self.services, reads);
        let mut ranked: Vec<_> = joined
            .into_iter()
            .map(|route| (self.rank(&route), route))
            .collect();
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        ranked.into_iter().map(|(_, route)| route).collect()
    }

    fn candidates(&self) -> Vec<Arc<VirtualService>> {
        let mut out: Vec<Arc<VirtualService>> = Vec::new();
        let mut asked = |owner: Option<&str>, hosts: &Hosts| {
            let here = |r: &Arc<VirtualService>| owner.is_none_or(|o| *r.id.namespace == *o);
            for host in &hosts.exact {
                out.extend(self.services.routes(host).into_iter().filter(here));
            }
            for wild in &hosts.wild {
                if wild == "*" {
                    out.extend(owner.map_or_else(
                        || self.services.all_routes(),
                        |o| self.services.routes_in(o),
                    ));
                    continue;
                }
                out.extend(self.services.routes(wild).into_iter().filter(here));
                out.extend(self.services.routes_under(wild).into_iter().filter(here));
            }
        };
        for (namespace, hosts) in self.egress.namespaces() {
            asked(Some(namespace), hosts);
        }
        if let Some(hosts) = self.egress.anywhere() {
            asked(None, hosts);
        }
        let mut seen = HashSet::new();
        out.retain(|route| seen.insert(Arc::as_ptr(route)));
        out
    }

    /// Whether entries import a VirtualService by one of its hosts.
    fn imports(&self, route: &VirtualService) -> bool {
        let owner = &*route.id.namespace;
        let excludes = self.client.release >= Release::V1_31;
        let by = |host: &Arc<str>| {
            let named = |list: &Hosts| list.import_route(host, route.kind.is_gateway_api());
            self.egress.lists(owner).any(named) && !(excludes && self.egress.excludes(owner, host))
        };
        route.hosts.iter().any(by)
    }

    /// istiod's order: what only the client's namespace sees, what some see, what all see; of each the client's own routes of
    /// the Gateway API first, then by age.
    fn rank(&self, route: &Route) -> impl Ord + use<> {
        let object = &route.object;
        let owner = &*object.id.namespace;
        let list = match object.exports.clients(owner) {
            None => 2,
            Some(_) if owner == self.client.namespace => 0,
            Some(_) => 1,
        };
        let own = object.kind.is_gateway_api() && owner == self.client.namespace;
        let name = match (object.kind.is_gateway_api(), object.hosts.first()) {
            (true, Some(host)) => {
                let port = port_of(object).map(|port| format!("{port}~"));
                format!("{owner}~{}{host}", port.unwrap_or_default())
            }
            _ => object.id.name.to_string(),
        };
        (list, Reverse(own), age(object.id.created, &name, owner))
    }
}
