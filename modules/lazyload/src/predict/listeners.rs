//! Listeners and their chains (`networking/core/listener.go`, `tls.go`).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use trimtab_mesh::model::route::Weighted;

use super::import::Imported;
use super::known::Service;
use super::names::overlap;
use super::route::Route;
use super::routes::destination;
use super::{Chain, Client, Lead, cluster, endpoints, hosts};
use crate::scope::services::{Port, Protocol, Registry, Resolution, Services};

/// The address of listeners for all addresses.
const ANY: &str = "0.0.0.0";
/// Ports that the proxy itself has on all addresses.
const RESERVED: [u16; 4] = [15001, 15006, 15021, 15090];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    /// HTTP and TCP are told apart.
    Sniffed,
}

struct Listener {
    kind: Kind,
    chains: Vec<Chain>,
}

/// Names of the route configurations that listeners use.
pub(super) fn route_names(listeners: &BTreeMap<String, BTreeSet<Chain>>) -> BTreeSet<String> {
    let leads = listeners.values().flatten().map(|chain| &chain.lead);
    let named = leads.filter_map(|lead| match lead {
        Lead::Routes(name) => Some(name.clone()),
        _ => None,
    });
    named.collect()
}

pub(super) fn build(
    client: &Client<'_>,
    imported: &Imported,
    services: &dyn Services,
) -> BTreeMap<String, BTreeSet<Chain>> {
    let mut builder = Builder {
        client,
        imported,
        services,
        known: imported.known.iter().map(|s| (&**s.host(), s)).collect(),
        out: BTreeMap::new(),
    };
    for service in &imported.listed {
        for port in &service.ports {
            builder.add(service, *port);
        }
    }
    let listeners = builder.out.into_iter();
    listeners
        .map(|((bind, port), l)| (format!("{bind}_{port}"), l.chains.into_iter().collect()))
        .collect()
}

struct Builder<'a> {
    client: &'a Client<'a>,
    imported: &'a Imported,
    services: &'a dyn Services,
    known: BTreeMap<&'a str, &'a Service>,
    out: BTreeMap<(String, u16), Listener>,
}

/// Where callers reach a service.
enum Address {
    /// Nowhere in particular.
    Any,
    Single(String),
    Network(String),
}

fn address(service: &Service) -> Address {
    let v4 = service.addresses.iter().find(|a| matches!(a, IpNet::V4(_)));
    match v4.or(service.addresses.first()) {
        None => Address::Any,
        Some(net) if net.prefix_len() == net.max_prefix_len() => {
            Address::Single(net.addr().to_string())
        }
        Some(net) => Address::Network(net.to_string()),
    }
}

impl Builder<'_> {
    fn add(&mut self, service: &Service, port: Port) {
        let entry = &service.entry;
        if entry.resolution == Resolution::Alias {
            return;
        }
        if port.protocol.is_http() {
            self.http(port.number);
            return;
        }
        let address = address(service);
        let (bind, networks) = match address {
            Address::Any => (ANY.to_owned(), BTreeSet::new()),
            Address::Single(address) => (address, BTreeSet::new()),
            Address::Network(network) => (ANY.to_owned(), BTreeSet::from([network])),
        };
        if entry.resolution != Resolution::Passthrough || bind != ANY || !networks.is_empty() {
            self.listen(service, port, bind, &networks);
            return;
        }
        // A headless service has a listener for each endpoint, also those of ServiceEntries with its host; a ServiceEntry
        // without any has one for all addresses.
        let Some(ends) = endpoints::of_port(entry, port.number, self.services) else {
            return;
        };
        if ends.is_empty() && entry.registry == Registry::ServiceEntry {
            self.listen(service, port, bind, &networks);
        }
        for end in ends {
            if end.address.parse::<std::net::IpAddr>().is_ok() {
                self.listen(service, port, end.address.to_string(), &networks);
            }
        }
    }

    fn listen(&mut self, service: &Service, port: Port, bind: String, networks: &BTreeSet<String>) {
        let key = (bind, port.number);
        let old = self.out.get(&key).map(|l| l.kind);
        if port.protocol == Protocol::Auto && old == Some(Kind::Sniffed) {
            return;
        }
        let mut chains = self.tcp(service, port, &key.0, networks);
        let auto = port.protocol == Protocol::Auto;
        if auto {
            let shared = key.0 == ANY;
            let routes = if shared {
                port.number.to_string()
            } else {
                format!("{}:{}", service.host(), port.number)
            };
            chains.push(sniffed(routes));
        }
        let kind = if auto { Kind::Sniffed } else { Kind::Tcp };
        self.put(key, kind, chains);
    }

    fn http(&mut self, port: u16) {
        let key = (ANY.to_owned(), port);
        let old = self.out.get(&key).map(|l| l.kind);
        if old != Some(Kind::Sniffed) && !RESERVED.contains(&port) {
            self.put(key, Kind::Sniffed, vec![sniffed(port.to_string())]);
        }
    }

    /// Joins chains to those of the listener that is there; of two for the same connections the first stays.
    fn put(&mut self, key: (String, u16), kind: Kind, chains: Vec<Chain>) {
        let empty = Listener {
            kind,
            chains: Vec::new(),
        };
        let listener = self.out.entry(key).or_insert(empty);
        if kind == Kind::Sniffed {
            listener.kind = kind;
        }
        for chain in chains {
            let same = |old: &Chain| {
                old.sniffed == chain.sniffed
                    && old.sni == chain.sni
                    && masked(old) == masked(&chain)
            };
            if !listener.chains.iter().any(same) {
                listener.chains.push(chain);
            }
        }
    }

    fn routes(&self, host: &str) -> impl Iterator<Item = &Route> {
        let routes = self.imported.routes.iter();
        routes.filter(move |route| route.object.hosts.iter().any(|h| overlap(h, host)))
    }

    fn tcp(
        &self,
        service: &Service,
        port: Port,
        bind: &str,
        networks: &BTreeSet<String>,
    ) -> Vec<Chain> {
        if port.protocol == Protocol::Tls {
            self.tls_chains(service, port, bind, networks.clone())
        } else {
            self.tcp_chains(service, port, networks)
        }
    }

    fn tls_chains(
        &self,
        service: &Service,
        port: Port,
        bind: &str,
        mut networks: BTreeSet<String>,
    ) -> Vec<Chain> {
        let mut out = Vec::new();
        let mut handled = BTreeSet::new();
        let rules = self
            .routes(service.host())
            .flat_map(|route| &route.object.tls);
        for rule in rules.filter(|rule| !rule.routes.is_empty()) {
            for of_rule in &rule.matches {
                if !of_rule.source.tcp_applies(
                    self.client.namespace,
                    self.client.labels,
                    port.number,
                ) {
                    continue;
                }
                if !of_rule.subnets.is_empty() {
                    networks = of_rule.subnets.iter().map(|s| range(s)).collect();
                }
                if handled.insert((&of_rule.sni, &of_rule.subnets)) {
                    out.push(Chain {
                        sni: of_rule.sni.iter().map(ToString::to_string).collect(),
                        networks: networks.clone(),
                        sniffed: false,
                        lead: self.lead(&rule.routes, port.number),
                    });
                }
            }
        }
        if out.is_empty() {
            let by_name = !networks.is_empty()
                || matches!(address(service), Address::Network(_))
                || (matches!(address(service), Address::Any) && bind == ANY)
                || (service.host().starts_with('*')
                    && service.entry.resolution == Resolution::DynamicDns);
            let sni = if by_name {
                self.server_names(service)
            } else {
                BTreeSet::new()
            };
            out.push(Chain {
                sni,
                networks,
                sniffed: false,
                lead: own_cluster(service, port),
            });
        }
        for chain in &mut out {
            // A chain for any name is one without names.
            if chain.sni.contains("*") {
                chain.sni.clear();
            }
        }
        out
    }

    fn server_names(&self, service: &Service) -> BTreeSet<String> {
        let mut out = BTreeSet::from([service.host().to_string()]);
        for alias in &service.aliases {
            out.insert(alias.host.to_string());
            out.insert(format!("{}.", alias.host));
            out.extend(hosts::short_forms(self.client, &alias.host));
        }
        out
    }

    fn tcp_chains(&self, service: &Service, port: Port, networks: &BTreeSet<String>) -> Vec<Chain> {
        let mut out = Vec::new();
        let mut has_default = false;
        let chain = |networks: BTreeSet<String>, lead| Chain {
            networks,
            lead,
            ..Chain::default()
        };
        let rules = self
            .routes(service.host())
            .flat_map(|route| &route.object.tcp);
        for rule in rules.filter(|rule| !rule.routes.is_empty()) {
            let lead = || self.lead(&rule.routes, port.number);
            let applied = rule.matches.iter();
            let applied = applied.filter(|m| {
                m.source
                    .tcp_applies(self.client.namespace, self.client.labels, port.number)
            });
            let mut subnets = BTreeSet::new();
            let mut ends = rule.matches.is_empty();
            for of_rule in applied {
                if of_rule.subnets.is_empty() {
                    ends = true;
                    break;
                }
                subnets.extend(of_rule.subnets.iter().map(|s| range(s)));
            }
            if ends {
                out.push(chain(networks.clone(), lead()));
                return out;
            }
            if !subnets.is_empty() {
                has_default |= subnets == *networks;
                out.push(chain(subnets, lead()));
            }
        }
        if !has_default {
            out.push(chain(networks.clone(), own_cluster(service, port)));
        }
        out
    }

    /// An ExternalName gives way to what it stands for also where only a route brings it.
    fn lead(&self, routes: &[Weighted], port: u16) -> Lead {
        let to = |route: &Weighted| {
            let service = self.known.get(&*route.to.host);
            let only = service.and_then(|s| match s.ports.as_slice() {
                [port] => Some(port.number),
                _ => None,
            });
            destination(&route.to, service.map(|s| &*s.entry), only, port)
        };
        match routes {
            [one] => Lead::Clusters(vec![(to(one), 0)]),
            several => {
                let called = several.iter().filter(|route| route.weight > 0);
                Lead::Clusters(called.map(|route| (to(route), route.weight)).collect())
            }
        }
    }
}

fn own_cluster(service: &Service, port: Port) -> Lead {
    Lead::Clusters(vec![(cluster(service.host(), "", port.number), 0)])
}

fn sniffed(routes: String) -> Chain {
    Chain {
        sniffed: true,
        lead: Lead::Routes(routes),
        ..Chain::default()
    }
}

/// A network of a rule; an address is one of a single address.
fn range(text: &str) -> String {
    let single = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let network = text.parse().ok().or_else(single);
    network.map_or_else(|| text.to_owned(), |network| network.to_string())
}

/// Networks as Envoy compares them.
fn masked(chain: &Chain) -> BTreeSet<String> {
    let masked = |text: &String| {
        text.parse::<IpNet>()
            .map_or_else(|_| text.clone(), |net| net.trunc().to_string())
    };
    chain.networks.iter().map(masked).collect()
}
