//! Virtual hosts (`networking/core/httproute.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use trimtab_mesh::model::RouteKind;

use super::import::Imported;
use super::known::Service;
use super::names::{closest, overlap};
use super::route::Route;
use super::routes::{OnPort, actions};
use super::{Action, Client, Lead, VirtualHost, cluster};
use crate::scope::services::{Protocol, Registry, Resolution};

/// istiod makes virtual hosts of VirtualServices without a service on this port only.
const PLAIN: u16 = 80;

/// Virtual hosts with the same routes.
struct Wrapper<'a> {
    services: Vec<&'a Service>,
    /// Hosts that no service has.
    others: Vec<String>,
    routes: Vec<Action>,
}

/// The virtual hosts of a route configuration: `PORT`, or `HOST:PORT` of a service whose protocol is found out.
pub(super) fn configuration(
    client: &Client<'_>,
    imported: &Imported,
    name: &str,
) -> Vec<VirtualHost> {
    let (host, port) = name
        .rsplit_once(':')
        .map_or((None, name), |(host, port)| (Some(host), port));
    let Ok(port) = port.parse() else {
        return Vec::new();
    };
    let mut all = on_port(client, imported, port);
    all.sort();
    let Some(host) = host else {
        return all;
    };
    all.retain(|vhost| vhost.domains.contains(host) || vhost.domains.contains(name));
    if let [only] = all.as_mut_slice() {
        only.domains = BTreeSet::from(["*".to_owned()]);
    }
    all
}

fn speaks_http(service: &Service, port: u16) -> bool {
    let of_port = service.ports.iter().find(|p| p.number == port);
    of_port.is_some_and(|p| p.protocol.is_http() || p.protocol == Protocol::Auto)
}

fn on_port(client: &Client<'_>, imported: &Imported, port: u16) -> Vec<VirtualHost> {
    let has_port = |s: &&Service| s.ports.iter().any(|p| p.number == port);
    let here: OnPort<'_> = imported
        .listed
        .iter()
        .filter(has_port)
        .map(|s| (&**s.host(), s))
        .collect();
    let closest = closest_routes(imported);
    let mut rest = here.clone();
    let mut wrappers = Vec::new();
    for (at, route) in imported.routes.iter().enumerate() {
        if port != PLAIN && !has_service(route, &here) {
            continue;
        }
        let routes = actions(client, route, port, &here);
        if routes.is_empty() {
            continue;
        }
        let Some((services, others)) = split(client, (at, route), &here, &closest) else {
            continue;
        };
        let services: Vec<&Service> = services
            .into_iter()
            .filter(|s| speaks_http(s, port))
            .collect();
        if services.is_empty() && port != PLAIN {
            continue;
        }
        for service in &services {
            rest.remove(&**service.host());
        }
        wrappers.push(Wrapper {
            services,
            others,
            routes,
        });
    }
    for service in rest.into_values() {
        if service.entry.resolution != Resolution::Alias && speaks_http(service, port) {
            let to = cluster(service.host(), "", port);
            let routes = vec![Action {
                lead: Lead::Clusters(vec![(to, 0)]),
                ..Action::default()
            }];
            wrappers.push(Wrapper {
                services: vec![service],
                others: Vec::new(),
                routes,
            });
        }
    }
    virtual_hosts(client, wrappers, port)
}

/// Whether a VirtualService has a host of a service of the port.
fn has_service(route: &Route, here: &OnPort<'_>) -> bool {
    route.object.hosts.iter().any(|host| {
        here.contains_key(&**host)
            || here
                .keys()
                .any(|of| (host.starts_with('*') || of.starts_with('*')) && overlap(host, of))
    })
}

/// Of each service the VirtualService (by its place) whose host says most of it.
fn closest_routes(imported: &Imported) -> BTreeMap<&str, usize> {
    let mut exact: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wild: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, route) in imported.routes.iter().enumerate() {
        for host in &route.object.hosts {
            let of = if host.starts_with('*') {
                &mut wild
            } else {
                &mut exact
            };
            of.entry(host).or_insert(at);
        }
    }
    let found = imported.listed.iter().filter_map(|service| {
        let host = &**service.host();
        let same = if host.starts_with('*') {
            wild.get(host)
        } else {
            exact.get(host)
        };
        let above = || wild.get(closest(host, wild.keys().copied())?);
        Some((host, *same.or_else(above)?))
    });
    found.collect()
}

/// Services of a VirtualService's hosts, and its hosts that are of none. `None`: it is for other namespaces.
fn split<'a>(
    client: &Client<'_>,
    (at, route): (usize, &Route),
    here: &OnPort<'a>,
    closest: &BTreeMap<&str, usize>,
) -> Option<(Vec<&'a Service>, Vec<String>)> {
    let (mut services, mut others): (Vec<&'a Service>, Vec<String>) = (Vec::new(), Vec::new());
    let gateway_api = route.object.kind != RouteKind::VirtualService;
    let (wild, exact): (Vec<&Arc<str>>, Vec<&Arc<str>>) =
        route.object.hosts.iter().partition(|h| h.starts_with('*'));
    for host in exact {
        match here.get(&**host) {
            Some(service) => services.push(*service),
            None => others.push(host.to_string()),
        }
    }
    for host in wild {
        let under: Vec<&'a Service> = here
            .values()
            .filter(|s| overlap(s.host(), host))
            .copied()
            .collect();
        if gateway_api || under.is_empty() {
            others.push(host.to_string());
        }
        services.extend(
            under
                .into_iter()
                .filter(|s| closest.get(&**s.host()) == Some(&at)),
        );
    }
    let owner = &route.object.id.namespace;
    let meant = |s: &&Service| s.entry.namespace == *owner || **owner == *client.namespace;
    (!gateway_api || services.iter().any(meant)).then_some((services, others))
}

fn virtual_hosts(client: &Client<'_>, wrappers: Vec<Wrapper<'_>>, port: u16) -> Vec<VirtualHost> {
    let services = wrappers.iter().flat_map(|w| &w.services);
    let full: BTreeSet<String> = services
        .flat_map(|s| [s.host().to_string(), format!("{}:{port}", s.host())])
        .collect();
    let mut names = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    for wrapper in wrappers {
        let others = wrapper
            .others
            .into_iter()
            .map(|host| (host.clone(), vec![(host, false)]));
        let services = wrapper
            .services
            .iter()
            .map(|s| (s.host().to_string(), domains(client, s)));
        for (host, domains) in others.chain(services) {
            let name = format!("{host}:{port}");
            if !names.insert(name.clone()) {
                continue;
            }
            let free = domains.into_iter().filter(|(domain, short)| {
                !(taken.contains(domain) || *short && full.contains(domain))
            });
            let mut domains = BTreeSet::new();
            domains.extend(free.map(|(domain, _)| domain));
            taken.extend(domains.iter().cloned());
            if !domains.is_empty() {
                let routes = wrapper.routes.clone();
                out.push(VirtualHost {
                    name,
                    domains,
                    routes,
                });
            }
        }
    }
    out
}

/// Domains of a service, each with whether it is another form of a host, which gives way to a host of that name.
fn domains(client: &Client<'_>, service: &Service) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    let aliases = service.aliases.iter().map(|alias| &alias.host);
    for host in std::iter::once(service.host()).chain(aliases) {
        out.push((host.to_string(), false));
        out.push((format!("{host}."), true));
        out.extend(
            short_forms(client, host)
                .into_iter()
                .map(|form| (form, true)),
        );
    }
    let entry = &service.entry;
    if entry.resolution == Resolution::Passthrough && entry.registry == Registry::Kubernetes {
        let pods: Vec<_> = out
            .iter()
            .map(|(domain, _)| (format!("*.{domain}"), false))
            .collect();
        out.extend(pods);
    }
    out.extend(
        service
            .addresses
            .iter()
            .map(|address| (text(address), false)),
    );
    out
}

/// Short names by which a client calls a Service.
pub(super) fn short_forms(client: &Client<'_>, host: &str) -> Vec<String> {
    let Some(rest) = host
        .strip_suffix(client.domain)
        .and_then(|rest| rest.strip_suffix(".svc."))
    else {
        return Vec::new();
    };
    // As istiod: up to the first `.svc.`, wherever it is.
    let before = rest.split(".svc.").next().unwrap_or(rest);
    let Some((name, namespace)) = before.split_once('.') else {
        return Vec::new();
    };
    let service = format!("{before}.svc");
    if namespace == client.namespace {
        vec![name.to_owned(), service, before.to_owned()]
    } else {
        vec![before.to_owned(), service]
    }
}

/// An address as istiod writes it.
pub(super) fn text(address: &IpNet) -> String {
    let host = match address {
        IpNet::V4(net) => net.addr().to_string(),
        IpNet::V6(net) => format!("[{}]", net.addr()),
    };
    let whole = address.prefix_len() == address.max_prefix_len();
    if whole { host } else { address.to_string() }
}
