//! Which services and routes a proxy gets (`SidecarScope` of istiod's push context).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use trimtab_mesh::Exports;
use trimtab_mesh::model::VirtualService;
use trimtab_mesh::model::route::{HttpRule, Part, Test};

use super::egress::{Egress, Hosts};
use super::merge::{Ports, brought, merged};
use super::{Client, Reads, Release};
use crate::scope::services::{HostEntry, Port, Registry, RouteKind, Services};

/// A host as a proxy has it.
#[derive(Clone, Debug)]
pub struct Service {
    /// The host.
    pub entry: Arc<HostEntry>,
    /// Its addresses; of a ServiceEntry, which istiod takes for a service for each, one.
    pub addresses: Vec<IpNet>,
    /// Ports that the proxy has.
    pub ports: Vec<Port>,
    /// Hosts of ExternalNames that stand for it and that the proxy knows; sorted.
    pub aliases: Vec<Arc<HostEntry>>,
}

/// A VirtualService as a proxy has it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The object; the oldest of those of the Gateway API that are joined.
    pub object: Arc<VirtualService>,
    /// Its rules for HTTP, with those of delegates.
    pub http: Vec<HttpRule>,
}

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
    let everything = Egress::everything();
    let import = Import {
        client,
        egress: egress.unwrap_or(&everything),
        services,
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

struct Import<'a> {
    client: &'a Client<'a>,
    egress: &'a Egress,
    services: &'a dyn Services,
}

/// In this order istiod goes through what is of one list.
fn age(created: Option<Timestamp>, name: &str, namespace: &str) -> (Timestamp, String, String) {
    (
        created.unwrap_or(Timestamp::MAX),
        name.to_owned(),
        namespace.to_owned(),
    )
}

fn age_of(entry: &HostEntry) -> (Timestamp, String, String) {
    let name = match entry.registry {
        Registry::Kubernetes => &entry.name,
        Registry::ServiceEntry => &entry.host,
    };
    age(entry.created, name, &entry.namespace)
}

/// Of the services of a host in one namespace, that which a look-up finds.
fn first(entries: impl IntoIterator<Item = Arc<HostEntry>>) -> Option<Arc<HostEntry>> {
    entries.into_iter().min_by_key(|e| (e.registry, age_of(e)))
}

impl Import<'_> {
    fn sees(&self, exports: &Exports, owner: &str) -> bool {
        exports.visible(owner, self.client.namespace)
    }

    /// Services of the host by namespace, as look-ups find them, also those that the client may not see.
    fn by_namespace(&self, host: &str) -> BTreeMap<Arc<str>, Arc<HostEntry>> {
        let mut all: BTreeMap<Arc<str>, Vec<Arc<HostEntry>>> = BTreeMap::new();
        for entry in self.services.host(host) {
            all.entry(entry.namespace.clone()).or_default().push(entry);
        }
        let found = all
            .into_iter()
            .filter_map(|(namespace, entries)| Some((namespace, first(entries)?)));
        found.collect()
    }

    /// Services that entries name.
    fn listed(&self, reads: &mut dyn Reads) -> Vec<Service> {
        let exact = self.client.release >= Release::V1_31 && self.egress.is_exact();
        let mut entries = if exact {
            self.looked_up(reads)
        } else {
            self.walked(reads)
        };
        entries.retain(|e| self.sees(&e.exports, &e.namespace));
        let public = |e: &HostEntry| e.exports.clients("").is_none();
        entries.sort_by_cached_key(|e| (!exact && public(e), age_of(e)));
        let mut out: Vec<Service> = Vec::new();
        for entry in entries {
            let Some(list) = self.importing(&entry) else {
                continue;
            };
            let aliases = self.aliases(&entry.host).into_iter();
            let service = Service {
                addresses: entry.addresses.to_vec(),
                ports: entry.ports.to_vec(),
                aliases: aliases.filter(|alias| list.import(&alias.host)).collect(),
                entry: entry.clone(),
            };
            let each = service.each_address();
            out.extend(each.into_iter().take(if exact { 1 } else { usize::MAX }));
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

    fn looked_up(&self, reads: &mut dyn Reads) -> Vec<Arc<HostEntry>> {
        let mut out = Vec::new();
        for (namespace, hosts) in self.egress.namespaces() {
            for host in &hosts.exact {
                reads.host(host);
                let here = self.services.host(host).into_iter();
                out.extend(first(here.filter(|e| &*e.namespace == namespace)));
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
        let found = self.by_namespace(host);
        let own = found.get(self.client.namespace).cloned();
        let best = || {
            let visible = found
                .values()
                .filter(|e| self.sees(&e.exports, &e.namespace));
            first(visible.cloned())
        };
        let entry = own.or_else(best)?;
        let named = |port: &&Port| ports.contains(&None) || ports.contains(&Some(port.number));
        let of_route: Vec<Port> = entry.ports.iter().filter(named).copied().collect();
        if of_route.is_empty() && !ports.contains(&None) {
            return None;
        }
        let aliases = self.aliases(host);
        let service = Service {
            addresses: entry.addresses.to_vec(),
            ports: of_route,
            aliases,
            entry,
        };
        service.each_address().into_iter().next()
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

/// The port that a route of the Gateway API names for its Service.
fn port_of(object: &VirtualService) -> Option<u16> {
    object.http.first()?.matches.first()?.source.port
}

/// Routes with their rules. Those of the Gateway API of one namespace, host and port are one.
fn joined(
    routes: Vec<Arc<VirtualService>>,
    services: &dyn Services,
    reads: &mut dyn Reads,
) -> Vec<Route> {
    let mut out = Vec::new();
    let mut of_services: BTreeMap<_, Vec<Arc<VirtualService>>> = BTreeMap::new();
    for object in routes {
        if object.kind == RouteKind::VirtualService {
            let http = merged(&object, services, reads);
            out.push(Route { object, http });
            continue;
        }
        let port = port_of(&object);
        let key = (
            object.kind,
            object.id.namespace.clone(),
            object.hosts.first().cloned(),
            port,
        );
        of_services.entry(key).or_default().push(object);
    }
    for mut objects in of_services.into_values() {
        objects.sort_by_cached_key(|o| age(o.id.created, &o.id.name, &o.id.namespace));
        let mut http: Vec<HttpRule> = objects
            .iter()
            .flat_map(|o| o.http.iter().cloned())
            .collect();
        http.sort_by_key(precedence);
        if let Some(object) = objects.into_iter().next() {
            out.push(Route { object, http });
        }
    }
    out
}

/// Order of the rules of the Gateway API: the closest path, then a method, more headers, more parameters.
fn precedence(rule: &HttpRule) -> impl Ord + use<> {
    let Some(first) = rule.matches.first() else {
        return (true, Reverse(0), Reverse(0), false, Reverse(0), Reverse(0));
    };
    let (kind, length) = match first.request.get(&Part::Uri) {
        Some(Test::Exact(text)) => (4, text.len()),
        Some(Test::Prefix(text)) => (3, text.len()),
        Some(Test::Regex(text)) => (2, text.len()),
        Some(Test::Present) | None => (0, 0),
    };
    let count = |of: fn(&Part) -> bool| first.request.keys().filter(|part| of(part)).count();
    let headers = count(|part| matches!(part, Part::Header(_)));
    let parameters = count(|part| matches!(part, Part::Query(_)));
    let any_method = !first.request.contains_key(&Part::Method);
    (
        false,
        Reverse(kind),
        Reverse(length),
        any_method,
        Reverse(headers),
        Reverse(parameters),
    )
}

impl Service {
    /// Its host.
    pub fn host(&self) -> &Arc<str> {
        &self.entry.host
    }

    /// One for each address of a ServiceEntry.
    fn each_address(self) -> Vec<Self> {
        if self.entry.registry == Registry::Kubernetes || self.addresses.len() < 2 {
            return vec![self];
        }
        let each = self.addresses.iter().map(|address| Self {
            addresses: vec![*address],
            ..self.clone()
        });
        each.collect()
    }

    fn can_join(&self, other: &Self) -> bool {
        let key = |e: &HostEntry| {
            (
                e.namespace.clone(),
                e.resolution,
                e.registry,
                e.labels.clone(),
                e.selects,
                e.exports.written(),
            )
        };
        key(&self.entry) == key(&other.entry)
    }
}

/// Services that a proxy knows; of one host there is one, with the ports of all that are alike.
#[derive(Default)]
struct Known {
    services: Vec<Service>,
    by_host: HashMap<Arc<str>, usize>,
}

impl Known {
    fn add(&mut self, service: Service) {
        let at = self.by_host.get(&service.entry.host);
        let Some(old) = at.and_then(|at| self.services.get_mut(*at)) else {
            self.by_host
                .insert(service.entry.host.clone(), self.services.len());
            self.services.push(service);
            return;
        };
        let (before, now) = (old.entry.registry, service.entry.registry);
        if before == Registry::Kubernetes && now != Registry::Kubernetes {
            return;
        }
        if before != Registry::Kubernetes && now == Registry::Kubernetes {
            *old = service;
            return;
        }
        if old.ports != service.ports && old.can_join(&service) {
            let more = service.ports.into_iter();
            let more: Vec<Port> = more
                .filter(|p| old.ports.iter().all(|o| o.number != p.number))
                .collect();
            old.ports.extend(more);
        }
    }
}
