//! Hosts with their ports and addresses, from Services and ServiceEntries; and what routes may know of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use trimtab_crds::istio::{ServiceEntryPort, TrafficPolicy};
use trimtab_mesh::Exports;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, Service, ServiceEntry, ServicePort, TargetPort, in_order,
    port_protocol,
};

use super::Mesh;
use super::ports::{Registry, protocol};
use crate::input::{Endpoint, HostFacts, Port, Protocol, ServicePortInput, Source, SubsetFacts};
use crate::owner::Owner;
use trimtab_kit::envoy::header;
use trimtab_kit::problem::Problem;

/// A host that callers use.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub name: String,
    pub namespace: String,
    pub service: String,
    pub source: Source,
    pub vips: BTreeSet<IpAddr>,
    pub exports: Exports,
    /// Whether a port speaks HTTP.
    pub http: bool,
    pub headless: bool,
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<HostPort>,
}

/// A port of a host.
#[derive(Clone, Debug)]
pub(super) struct HostPort {
    pub port: Port,
    pub protocol: Option<Protocol>,
    pub endpoints: BTreeSet<Endpoint>,
}

/// All hosts by name. Of two objects with one host the Service wins, then the older.
pub(super) fn all(mesh: &Mesh, problems: &mut Vec<Problem>) -> BTreeMap<String, Host> {
    let registry = mesh.registry();
    let mut slices: BTreeMap<&str, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in &mesh.endpoint_slices {
        slices.entry(&slice.host).or_default().push(slice);
    }
    let mut out = BTreeMap::new();
    for service in &mesh.services {
        let slices = slices.get(&*service.host).map(Vec::as_slice);
        if service.external_name.is_none() {
            let host = of_service(service, slices.unwrap_or_default(), &registry);
            out.insert(host.name.clone(), host);
        }
    }
    let mut entries: Vec<&ServiceEntry> = mesh.service_entries.iter().map(AsRef::as_ref).collect();
    entries.sort_by_key(|e| e.id.age());
    for entry in entries {
        for host in of_entry(entry, &registry) {
            if let Some(first) = out.get(&host.name) {
                if host.ports.iter().any(|p| p.protocol.is_some()) {
                    problems.push(Problem::new(
                        Owner::of_row("ServiceEntry", &entry.id),
                        "spec.hosts",
                        if first.namespace == host.namespace {
                            "Conflict"
                        } else {
                            "NotOwner"
                        },
                        format!(
                            "{} has the host \"{}\" already, and a host belongs to one object: remove it from one of the two",
                            first.object(),
                            host.name
                        ),
                    ));
                }
                continue;
            }
            out.insert(host.name.clone(), host);
        }
    }
    out
}

fn of_service(service: &Service, slices: &[&EndpointSlice], registry: &Registry) -> Host {
    let port = |port: &ServicePort| {
        let endpoints = endpoints(slices, &port.name);
        let targets: BTreeSet<u16> = match &port.target {
            Some(TargetPort::Number(n)) => BTreeSet::from([*n]),
            // Each pod decides what a named port is; the slices say.
            Some(TargetPort::Name(_)) => endpoints.iter().map(|e| e.port).collect(),
            None => BTreeSet::new(),
        };
        HostPort {
            protocol: protocol(&port.name, port.app_protocol.as_deref(), registry),
            port: Port {
                number: port.number,
                targets: targets.into_iter().collect(),
                name: port.name.to_string(),
            },
            endpoints,
        }
    };
    let web = |port: &ServicePort| {
        let layer7 = protocol(&port.name, port.app_protocol.as_deref(), registry);
        layer7.is_none() && is_web(port.protocol())
    };
    Host {
        name: service.host.to_string(),
        namespace: service.id.namespace.to_string(),
        service: service.id.name.to_string(),
        source: Source::Service,
        vips: service.addresses.iter().copied().collect(),
        headless: service.headless,
        exports: service.exports.clone(),
        http: service.ports.iter().any(web),
        selector: service.selector.clone(),
        ports: service.ports.iter().map(port).collect(),
    }
}

/// Whether Istio reads HTTP rules for a port.
fn is_web(port: Option<trimtab_mesh::Protocol>) -> bool {
    port.is_some_and(|p| p.is_http() || p == trimtab_mesh::Protocol::Auto)
}

/// Ready endpoints of the port with this name.
fn endpoints(slices: &[&EndpointSlice], port_name: &str) -> BTreeSet<Endpoint> {
    let mut out = BTreeSet::new();
    for slice in slices {
        let Some(port) = slice.port(port_name) else {
            continue;
        };
        let ready = slice.endpoints.iter().filter(|e| e.ready);
        let addresses = ready.flat_map(|e| &e.addresses);
        let addresses = addresses.filter_map(|a| a.parse().ok());
        out.extend(addresses.map(|address| Endpoint { address, port }));
    }
    out
}

fn of_entry(entry: &ServiceEntry, registry: &Registry) -> Vec<Host> {
    let port = |port: &ServiceEntryPort| {
        Some(HostPort {
            protocol: protocol(&port.name, None, registry),
            port: Port {
                number: port.number()?,
                targets: port.target().into_iter().collect(),
                name: port.name.clone(),
            },
            endpoints: BTreeSet::new(),
        })
    };
    let ports: Vec<HostPort> = entry.spec.ports.iter().filter_map(port).collect();
    let web = |port: &ServiceEntryPort| {
        protocol(&port.name, None, registry).is_none() && is_web(port_protocol(port))
    };
    let vips: BTreeSet<IpAddr> = entry.addresses().collect();
    let hosts = entry.spec.hosts.iter();
    hosts
        .map(|host| Host {
            name: host.clone(),
            namespace: entry.id.namespace.to_string(),
            service: entry.id.name.to_string(),
            source: Source::ServiceEntry,
            vips: vips.clone(),
            headless: false,
            exports: entry.exports.clone(),
            http: entry.spec.ports.iter().any(web),
            selector: entry.workload_labels(),
            ports: ports.clone(),
        })
        .collect()
}

/// Whether addresses may be given to a ServiceEntry: it has a layer-7 port, callers are led by address, and no network
/// stands in place of addresses.
pub(super) fn is_managed(entry: &ServiceEntry, registry: &Registry) -> bool {
    let speaks = |port: &ServiceEntryPort| protocol(&port.name, None, registry).is_some();
    let spec = &entry.spec;
    let resolved = spec.resolution.as_deref().is_some_and(|r| r != "NONE");
    resolved && spec.ports.iter().any(speaks) && entry.has_single_addresses()
}

/// What routes may know of each host.
pub(super) fn facts(mesh: &Mesh, hosts: &BTreeMap<String, Host>) -> BTreeMap<String, HostFacts> {
    let mut by_host: BTreeMap<&str, Vec<&Arc<DestinationRule>>> = BTreeMap::new();
    let mut misread: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for rule in &mesh.destination_rules {
        by_host.entry(&rule.host).or_default().push(rule);
        if let Some(meant) = rule.meant.as_deref()
            && !hosts.contains_key(&*rule.host)
        {
            let written = misread.entry(meant).or_default();
            written.insert(rule.host.to_string());
        }
    }
    let facts = |host: &Host| {
        let name = host.name.as_str();
        let ports = host.ports.iter();
        let mut out = HostFacts {
            ports: ports
                .map(|p| (p.port.number, p.port.name.clone()))
                .collect(),
            misread: misread.remove(name).unwrap_or_default(),
            ..HostFacts::default()
        };
        let rules = by_host.get(name).into_iter().flatten().copied();
        for rule in in_order(rules, mesh.settings.trust(), &host.namespace) {
            let spec = &rule.spec;
            if out.hash_attribute.is_none() {
                out.hash_attribute = hash_attribute(spec.traffic_policy.as_ref());
            }
            for subset in &spec.subsets {
                let known = out.subsets.entry(subset.name.clone());
                known.or_insert_with(|| SubsetFacts {
                    labels: subset.labels.clone(),
                    hash_attribute: hash_attribute(subset.traffic_policy.as_ref()),
                });
            }
        }
        (host.name.clone(), out)
    };
    hosts.values().map(facts).collect()
}

/// Names of headers to hash by that proxies refuse, of hosts that routes lead to.
pub(super) fn check_hashes(mesh: &Mesh, inputs: &[ServicePortInput], problems: &mut Vec<Problem>) {
    let led_to = |rule: &DestinationRule| inputs.iter().any(|i| i.hosts.contains_key(&*rule.host));
    for rule in mesh.destination_rules.iter().filter(|r| led_to(r)) {
        let own = (String::new(), rule.spec.traffic_policy.as_ref());
        let subsets = rule.spec.subsets.iter().enumerate();
        let subsets = subsets.map(|(i, s)| (format!("subsets[{i}]."), s.traffic_policy.as_ref()));
        for (at, policy) in std::iter::once(own).chain(subsets) {
            let name = policy.and_then(TrafficPolicy::hash_header);
            if let Some(Err(why)) = name.map(header::matched) {
                problems.push(Problem::new(
                    Owner::of_row("DestinationRule", &rule.id),
                    format!("spec.{at}trafficPolicy.loadBalancer.consistentHash.httpHeaderName"),
                    "InvalidHeader",
                    why.to_string(),
                ));
            }
        }
    }
}

fn hash_attribute(policy: Option<&TrafficPolicy>) -> Option<String> {
    let name = policy?.hash_header()?;
    // Of one that proxies refuse it is as if it were not there.
    header::matched(name).is_ok().then(|| name.to_owned())
}
