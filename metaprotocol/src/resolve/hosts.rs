//! Hosts with their ports and addresses, from Services and ServiceEntries; and what routes may know of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::Value;
use trimtab_crds::istio::{DestinationRule, ServiceEntry};
use trimtab_kit::problem::Problem;
use trimtab_mesh::names::{full_host, meant, service_host};

use super::ports::{Registry, protocol};
use super::{Mesh, age, owner};
use crate::input::{Endpoint, HostFacts, Port, Protocol, Source, SubsetFacts};

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Annotation of a ServiceEntry with the labels of its workload, as Aeraki reads it.
const SELECTOR_ANNOTATION: &str = "workloadSelector";

/// A host that callers use.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub name: String,
    pub namespace: String,
    pub service: String,
    pub source: Source,
    pub vips: BTreeSet<IpAddr>,
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
    let registry = Registry::new(&mesh.protocols);
    let mut slices: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in &mesh.endpoint_slices {
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            let key = (slice.namespace().unwrap_or_default(), service.clone());
            slices.entry(key).or_default().push(slice);
        }
    }
    let mut out = BTreeMap::new();
    for service in &mesh.services {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let slices = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
        if let Some(host) = of_service(service, slices, mesh.domain(), &registry) {
            out.insert(host.name.clone(), host);
        }
    }
    let mut entries: Vec<&ServiceEntry> = mesh.service_entries.iter().collect();
    entries.sort_by_key(|e| age(*e));
    for entry in entries {
        for host in of_entry(entry, &registry) {
            if let Some(first) = out.get(&host.name) {
                if host.ports.iter().any(|p| p.protocol.is_some()) {
                    problems.push(Problem::new(
                        owner("ServiceEntry", entry),
                        "spec.hosts",
                        "Conflict",
                        format!(
                            "{} {}/{} has the host \"{}\" already: remove it from one of the two",
                            first.source.as_str(),
                            first.namespace,
                            first.service,
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

fn of_service(
    service: &Service,
    slices: &[&EndpointSlice],
    domain: &str,
    registry: &Registry,
) -> Option<Host> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let (namespace, name) = (service.namespace()?, service.name_any());
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let vips: BTreeSet<IpAddr> = addresses.clone().filter_map(|a| a.parse().ok()).collect();
    let headless = addresses.clone().any(|a| a == "None");
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let port_name = port.name.clone().unwrap_or_default();
        let number = u16::try_from(port.port).ok()?;
        let endpoints = endpoints(slices, &port_name);
        let targets = match &port.target_port {
            Some(IntOrString::Int(n)) if *n != 0 => u16::try_from(*n).into_iter().collect(),
            // Each pod decides what a named port is; the slices say.
            Some(IntOrString::String(_)) => endpoints.iter().map(|e| e.port).collect(),
            _ => BTreeSet::new(),
        };
        Some(HostPort {
            protocol: protocol(&port_name, port.app_protocol.as_deref(), registry),
            port: Port {
                number,
                targets: targets.into_iter().collect(),
                name: port_name,
            },
            endpoints,
        })
    });
    Some(Host {
        name: service_host(&name, &namespace, domain),
        ports: ports.collect(),
        namespace,
        service: name,
        source: Source::Service,
        vips,
        headless,
        selector: spec.selector.clone().unwrap_or_default(),
    })
}

/// Ready endpoints of the port with this name. A slice without a word on readiness counts as ready.
fn endpoints(slices: &[&EndpointSlice], port_name: &str) -> BTreeSet<Endpoint> {
    let mut out = BTreeSet::new();
    for slice in slices {
        let named = |p: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            p.name.as_deref().unwrap_or_default() == port_name
        };
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(named)
            .and_then(|p| p.port);
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|c| c.ready)
                .unwrap_or(true);
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            if ready {
                out.extend(addresses.map(|address| Endpoint { address, port }));
            }
        }
    }
    out
}

fn of_entry(entry: &ServiceEntry, registry: &Registry) -> Vec<Host> {
    let spec = &entry.spec;
    let ports: Vec<HostPort> = spec
        .ports
        .iter()
        .filter_map(|port| {
            let number = |field: &str| port[field].as_u64().and_then(|n| u16::try_from(n).ok());
            let name = port["name"].as_str().unwrap_or_default().to_owned();
            Some(HostPort {
                protocol: protocol(&name, None, registry),
                port: Port {
                    number: number("number")?,
                    targets: number("targetPort")
                        .filter(|n| *n > 0)
                        .into_iter()
                        .collect(),
                    name,
                },
                endpoints: BTreeSet::new(),
            })
        })
        .collect();
    let vips: BTreeSet<IpAddr> = addresses(entry).collect();
    spec.hosts
        .iter()
        .map(|host| Host {
            name: host.clone(),
            namespace: entry.namespace().unwrap_or_default(),
            service: entry.name_any(),
            source: Source::ServiceEntry,
            vips: vips.clone(),
            headless: false,
            selector: selector(entry),
            ports: ports.clone(),
        })
        .collect()
}

/// Single addresses of a ServiceEntry; networks are none.
pub(super) fn addresses(entry: &ServiceEntry) -> impl Iterator<Item = IpAddr> + '_ {
    entry.spec.addresses.iter().filter_map(|a| address(a))
}

/// Whether addresses may be given to a ServiceEntry: it has a layer-7 port, callers are led by address, and no network
/// stands in place of addresses.
pub(super) fn is_managed(entry: &ServiceEntry, registry: &Registry) -> bool {
    let spec = &entry.spec;
    let speaks = |port: &Value| {
        let name = port["name"].as_str().unwrap_or_default();
        protocol(name, None, registry).is_some()
    };
    let resolved = spec.resolution.as_deref().is_some_and(|r| r != "NONE");
    resolved && spec.ports.iter().any(speaks) && spec.addresses.iter().all(|a| address(a).is_some())
}

/// An address, also as a network of one address.
fn address(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (prefix.is_empty() || prefix == whole).then_some(address)
}

/// Labels of the pods: the selector, else Aeraki's annotation (`value` for the label app, or `key: value`).
fn selector(entry: &ServiceEntry) -> BTreeMap<String, String> {
    if let Some(selector) = &entry.spec.workload_selector
        && !selector.labels.is_empty()
    {
        return selector.labels.clone();
    }
    let Some(text) = entry.annotations().get(SELECTOR_ANNOTATION) else {
        return BTreeMap::new();
    };
    let text = text.replace(' ', "");
    let (key, value) = text.split_once(':').unwrap_or(("app", &text));
    if value.is_empty() {
        return BTreeMap::new();
    }
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

/// What routes may know of each host. Of several DestinationRules for a host, those in its namespace come first, then
/// the older ones; the first to name a subset or a policy decides it.
pub(super) fn facts(mesh: &Mesh, hosts: &BTreeMap<String, Host>) -> BTreeMap<String, HostFacts> {
    let mut out: BTreeMap<String, HostFacts> = hosts
        .values()
        .map(|host| {
            let ports = host
                .ports
                .iter()
                .map(|p| (p.port.number, p.port.name.clone()));
            let facts = HostFacts {
                ports: ports.collect(),
                ..HostFacts::default()
            };
            (host.name.clone(), facts)
        })
        .collect();
    let mut rules: Vec<(bool, String, &DestinationRule)> = mesh
        .destination_rules
        .iter()
        .map(|rule| {
            let namespace = rule.namespace().unwrap_or_default();
            let host = full_host(&rule.spec.host, &namespace, mesh.domain());
            let own = hosts.get(&host).map(|h| h.namespace.clone());
            (rule.namespace() != own, host, rule)
        })
        .collect();
    rules.sort_by_key(|(foreign, _, rule)| (*foreign, age(*rule)));
    for (_, host, rule) in rules {
        let Some(facts) = out.get_mut(&host) else {
            let meant = meant(&host, mesh.domain());
            if let Some(facts) = meant.and_then(|meant| out.get_mut(&meant)) {
                facts.misread.insert(host);
            }
            continue;
        };
        if facts.hash_attribute.is_none() {
            facts.hash_attribute = hash_attribute(rule.spec.traffic_policy.as_ref());
        }
        for subset in &rule.spec.subsets {
            facts
                .subsets
                .entry(subset.name.clone())
                .or_insert_with(|| SubsetFacts {
                    labels: subset.labels.clone(),
                    hash_attribute: hash_attribute(subset.traffic_policy.as_ref()),
                });
        }
    }
    out
}

fn hash_attribute(policy: Option<&Value>) -> Option<String> {
    let name = policy?["loadBalancer"]["consistentHash"]["httpHeaderName"].as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}
