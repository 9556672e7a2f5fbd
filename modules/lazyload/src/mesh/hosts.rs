//! Hosts that Services and ServiceEntries give.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use trimtab_mesh::host_map::Named;
use trimtab_mesh::model::{Labels, Service, ServiceEntry, port_protocol};

use crate::scope::services::{HostEntry, Instance, Port, Registry, Resolution};

impl Named for HostEntry {
    fn name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn is(&self, other: &Self) -> bool {
        self.registry == other.registry && self.name() == other.name()
    }
}

fn sorted(ports: impl Iterator<Item = Port>) -> Box<[Port]> {
    let mut ports: Vec<Port> = ports.collect();
    ports.sort_unstable();
    ports.into()
}

/// The host of a Service.
pub(crate) fn of_service(service: &Service) -> HostEntry {
    let ports = service.ports.iter().filter_map(|p| {
        Some(Port {
            number: p.number,
            protocol: p.protocol()?,
        })
    });
    HostEntry {
        host: service.host.clone(),
        namespace: service.id.namespace.clone(),
        name: service.id.name.clone(),
        registry: Registry::Kubernetes,
        created: service.id.created,
        exports: service.exports.clone(),
        ports: sorted(ports),
        target: service.external_name.clone().filter(|t| !t.is_empty()),
        labels: service.labels.clone(),
        headless: service.headless,
        endpoints: 0,
        instances: Arc::default(),
        resolution: match service.external_name.as_deref() {
            _ if service.headless => Resolution::Passthrough,
            Some(target) if !target.is_empty() => Resolution::Alias,
            _ => Resolution::Static,
        },
        addresses: service.addresses.iter().copied().map(IpNet::from).collect(),
        selects: false,
    }
}

fn resolution(entry: &ServiceEntry) -> Resolution {
    match entry.spec.resolution.as_deref() {
        Some("STATIC") => Resolution::Static,
        Some("DNS" | "DNS_ROUND_ROBIN") => Resolution::Dns,
        Some("DYNAMIC_DNS") => Resolution::DynamicDns,
        _ => Resolution::Passthrough,
    }
}

/// An address, or a network.
fn network(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single)
}

/// The hosts of a ServiceEntry, sorted; `*` alone is none, since istiod refuses it.
pub(crate) fn of_entry(entry: &ServiceEntry) -> Vec<Arc<HostEntry>> {
    let spec = &entry.spec;
    let ports = spec.ports.iter().filter_map(|p| {
        Some(Port {
            number: p.number()?,
            protocol: port_protocol(p)?,
        })
    });
    let ports = sorted(ports);
    let addresses: Box<[IpNet]> = spec.addresses.iter().filter_map(|a| network(a)).collect();
    let hosts = spec.hosts.iter();
    let mut hosts: Vec<String> = hosts
        .map(|h| h.trim_end_matches('.').to_ascii_lowercase())
        .filter(|h| !h.is_empty() && h != "*")
        .collect();
    hosts.sort();
    hosts.dedup();
    let named = named_instances(entry);
    let entries = hosts.into_iter().map(|host| {
        let host: Arc<str> = host.into();
        Arc::new(HostEntry {
            instances: instances(entry, &named, &host),
            host,
            namespace: entry.id.namespace.clone(),
            name: entry.id.name.clone(),
            registry: Registry::ServiceEntry,
            created: entry.id.created,
            exports: entry.exports.clone(),
            ports: ports.clone(),
            target: None,
            labels: Arc::default(),
            headless: spec.resolution.as_deref().is_none_or(|r| r == "NONE"),
            endpoints: spec.endpoints.len(),
            resolution: resolution(entry),
            addresses: addresses.clone(),
            selects: spec.workload_selector.is_some(),
        })
    });
    entries.collect()
}

/// Endpoints that it names, the same for all of its hosts.
fn named_instances(entry: &ServiceEntry) -> Arc<[Instance]> {
    let named = entry.spec.endpoints.iter().map(|end| Instance {
        address: end.address.as_str().into(),
        labels: end.labels.clone(),
    });
    named.collect()
}

/// Endpoints that it names; of DNS without any, its host is one.
fn instances(entry: &ServiceEntry, named: &Arc<[Instance]>, host: &Arc<str>) -> Arc<[Instance]> {
    let itself = entry.spec.workload_selector.is_none() && resolution(entry) == Resolution::Dns;
    if named.is_empty() && itself {
        let (address, labels) = (host.clone(), Labels::new());
        return Arc::from([Instance { address, labels }]);
    }
    named.clone()
}

/// Networks of a ServiceEntry.
pub(super) fn ranges(entry: &ServiceEntry) -> impl Iterator<Item = IpNet> + '_ {
    let written = entry.spec.addresses.iter().filter(|a| a.contains('/'));
    written.filter_map(|a| a.parse().ok())
}

/// Addresses of its static endpoints.
pub(super) fn behind(entry: &ServiceEntry) -> impl Iterator<Item = IpAddr> + '_ {
    let endpoints = entry.spec.endpoints.iter();
    endpoints.filter_map(|e| e.address.parse().ok())
}
