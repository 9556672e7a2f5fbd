//! What is kept of each object.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use trimtab_crds::fence::LAZY_XDS_ANNOTATION;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, VirtualService};

use super::Name;
use crate::scope::Labels;
use crate::scope::services::{Exports, HostEntry, Port, Protocol, Registry, Route, Rule};
use trimtab_mesh::names::{full_host, service_host};

/// Annotation of Services in place of `exportTo`.
const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn name_of<K: Resource>(object: &K) -> Name {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// What of a Service does not concern its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Labels.
    pub labels: Arc<Labels>,
    /// Annotation `lazy-xds`.
    pub lazy_xds: Option<String>,
    /// Selector; empty: none.
    pub selector: Labels,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceRow {
    pub(super) entry: Arc<HostEntry>,
    pub(super) info: ServiceInfo,
    pub(super) addresses: Vec<IpAddr>,
}

pub(super) fn service(object: &Service, domain: &str) -> ServiceRow {
    let (namespace, name) = name_of(object);
    let spec = object.spec.clone().unwrap_or_default();
    let exports = object.annotations().get(EXPORT_TO);
    let exports = Exports::new(exports.iter().flat_map(|list| list.split(',')));
    let labels = Arc::new(object.labels().clone().into_iter().collect::<Labels>());
    let mut ports: Vec<Port> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| {
            let transport = p.protocol.as_deref().unwrap_or("TCP");
            let name = p.name.as_deref().unwrap_or_default();
            Some(Port {
                number: u16::try_from(p.port).ok()?,
                protocol: Protocol::of(transport, name, p.app_protocol.as_deref())?,
            })
        })
        .collect();
    ports.sort_unstable();
    let target = spec
        .external_name
        .filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    let cluster_ips = spec.cluster_ips.into_iter().flatten();
    let addresses: Vec<IpAddr> = spec
        .cluster_ip
        .iter()
        .cloned()
        .chain(cluster_ips)
        .filter_map(|ip| ip.parse().ok())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let entry = HostEntry {
        host: service_host(&name, &namespace, domain).into(),
        namespace: namespace.into(),
        name: name.into(),
        registry: Registry::Kubernetes,
        created: object.creation_timestamp().map(|t| t.0),
        exports,
        ports: ports.into(),
        target: target.map(|t| t.trim_end_matches('.').to_ascii_lowercase().into()),
        labels: labels.clone(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        endpoints: 0,
    };
    ServiceRow {
        entry: Arc::new(entry),
        info: ServiceInfo {
            labels,
            lazy_xds: object.annotations().get(LAZY_XDS_ANNOTATION).cloned(),
            selector: spec.selector.unwrap_or_default(),
        },
        addresses,
    }
}

/// A ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryRow {
    pub(super) entries: Vec<Arc<HostEntry>>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ranges: Vec<IpNet>,
    /// Addresses of static endpoints.
    pub(super) behind: Vec<IpAddr>,
}

pub(super) fn service_entry(object: &ServiceEntry) -> EntryRow {
    let (namespace, name) = name_of(object);
    let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
    let spec = &object.spec;
    let mut ports: Vec<Port> = spec
        .ports
        .iter()
        .filter_map(|p| {
            let said = p["protocol"].as_str().unwrap_or_default();
            Some(Port {
                number: u16::try_from(p["number"].as_u64()?).ok()?,
                protocol: Protocol::of(said, p["name"].as_str().unwrap_or_default(), Some(said))?,
            })
        })
        .collect();
    ports.sort_unstable();
    let mut hosts: Vec<String> = spec
        .hosts
        .iter()
        .map(|h| h.trim_end_matches('.').to_ascii_lowercase())
        .collect();
    // istiod refuses `*` alone.
    hosts.retain(|h| !h.is_empty() && h != "*");
    hosts.sort();
    hosts.dedup();
    let exports = Exports::new(spec.export_to.iter().map(String::as_str));
    let entries = hosts.into_iter().map(|host| {
        Arc::new(HostEntry {
            host: host.into(),
            namespace: namespace.clone(),
            name: name.clone(),
            registry: Registry::ServiceEntry,
            created: object.creation_timestamp().map(|t| t.0),
            exports: exports.clone(),
            ports: ports.clone().into(),
            target: None,
            labels: Arc::default(),
            headless: spec.resolution.as_deref().is_none_or(|r| r == "NONE"),
            endpoints: spec.endpoints.len(),
        })
    });
    let addresses = spec.addresses.iter();
    let ranges = spec.addresses.iter().filter(|a| a.contains('/'));
    let behind = spec.endpoints.iter().filter_map(|e| e["address"].as_str());
    EntryRow {
        entries: entries.collect(),
        addresses: addresses.filter_map(|a| a.parse().ok()).collect(),
        ranges: ranges.filter_map(|a| a.parse().ok()).collect(),
        behind: behind.filter_map(|a| a.parse().ok()).collect(),
    }
}

/// A VirtualService. A host `*` is left out: istiod refuses it for sidecars.
pub(super) fn route(object: &VirtualService, domain: &str) -> Route {
    let (namespace, name) = name_of(object);
    let spec = &object.spec;
    let full = |host: &str| full_host(host, &namespace, domain);
    let mut hosts: Vec<Arc<str>> = spec.hosts.iter().map(|h| full(h).into()).collect();
    hosts.retain(|h| !h.is_empty() && **h != *"*");
    hosts.sort();
    hosts.dedup();
    let mut destinations: Vec<Arc<str>> = Vec::new();
    let mut delegates: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for rule in spec.http.iter().chain(&spec.tls).chain(&spec.tcp) {
        let routes = rule["route"].as_array().into_iter().flatten();
        let mirrors = rule["mirrors"].as_array().into_iter().flatten();
        let named = routes.chain(mirrors).map(|r| &r["destination"]["host"]);
        let named = named.chain([&rule["mirror"]["host"]]);
        destinations.extend(named.filter_map(Value::as_str).map(|h| full(h).into()));
        if let Some(delegate) = rule["delegate"]["name"].as_str() {
            let owner = rule["delegate"]["namespace"].as_str();
            let owner = owner.filter(|n| !n.is_empty()).unwrap_or(&namespace);
            delegates.push((owner.into(), delegate.into()));
        }
    }
    destinations.sort();
    destinations.dedup();
    delegates.sort();
    delegates.dedup();
    Route {
        hosts: hosts.into(),
        mesh: spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh"),
        exports: Exports::new(spec.export_to.iter().map(String::as_str)),
        destinations: destinations.into(),
        delegates: delegates.into(),
        rules: spec.http.len() + spec.tls.len() + spec.tcp.len(),
        namespace: namespace.as_str().into(),
        name: name.into(),
    }
}

/// A DestinationRule.
pub(super) fn rule(object: &DestinationRule, domain: &str) -> Rule {
    let (namespace, name) = name_of(object);
    Rule {
        host: full_host(&object.spec.host, &namespace, domain).into(),
        exports: Exports::new(object.spec.export_to.iter().map(String::as_str)),
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SliceRow {
    /// Host of the Service; empty: of none.
    pub(super) host: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
}

pub(super) fn slice(object: &EndpointSlice, domain: &str) -> SliceRow {
    let namespace = object.namespace().unwrap_or_default();
    let Some(service) = object.labels().get(SERVICE_NAME) else {
        return SliceRow::default();
    };
    let texts = object.endpoints.iter().flat_map(|e| &e.addresses);
    let mut addresses: Vec<IpAddr> = texts.filter_map(|a| a.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    SliceRow {
        host: service_host(service, &namespace, domain).into(),
        addresses,
    }
}
