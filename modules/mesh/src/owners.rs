//! Whose a host and an address are: objects of one namespace do not decide for another.
//!
//! - A host belongs to the namespace of its Service, else to that of the oldest ServiceEntry that has it.
//! - An address belongs to the Service that has it: as a cluster address, as one of its load balancer, as one of
//!   `externalIPs`, and, for a Service without an address, through the pods that it selects. Else it belongs to the oldest
//!   object that writes it down: a ServiceEntry, with an address or with a range around it, or an EndpointSlice by hand.
//! - On a host decide objects of its namespace, of the root namespace, and of namespaces that the operator names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::Exports;
use crate::model::{EndpointSlice, Identity, Service, ServiceEntry};

/// Which namespaces decide on hosts of others.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// Istio's root namespace.
    pub root: &'a str,
    /// Those that the operator names.
    pub further: &'a BTreeSet<String>,
}

impl<'a> Trust<'a> {
    /// The root namespace and no other.
    pub fn root(root: &'a str) -> Self {
        const NONE: &BTreeSet<String> = &BTreeSet::new();
        Self {
            root,
            further: NONE,
        }
    }

    /// Whether an object of `namespace` decides on hosts of `owner`.
    pub fn decides(&self, namespace: &str, owner: &str) -> bool {
        namespace == owner || namespace == self.root || self.further.contains(namespace)
    }

    /// What an object of `namespace` is told that does not decide on `what` of a host. `object` is whose the host is, in
    /// `owner`.
    pub fn refusal(
        &self,
        namespace: &str,
        (host, object, owner): (&str, &str, &str),
        what: &str,
    ) -> String {
        let deciders = if owner == self.root {
            owner.to_owned()
        } else {
            format!("{owner} and {}", self.root)
        };
        format!(
            "\"{host}\" belongs to namespace {owner} ({object}), and only objects of {deciders} decide on {what}: create the object there, or have {namespace} added to metaprotocol.trustedNamespaces"
        )
    }
}

/// How certain it is that an address is an object's, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Title {
    /// Kubernetes gave it to a Service.
    Cluster,
    /// A load balancer has it for a Service.
    Balancer,
    /// A Service names it.
    External,
    /// Of a pod that a Service without an address selects.
    Pod,
    /// Somebody wrote it down; the oldest has it.
    Written,
}

/// An object that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `Service` or `ServiceEntry`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    title: Title,
    created: Option<Timestamp>,
    ports: Arc<[u16]>,
    exports: Exports,
    range: Option<IpNet>,
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Claim {
    /// What the owner of `host`, an object of `namespace` that names the address too, is told.
    pub fn refusal(&self, address: IpAddr, port: u16, namespace: &str, host: &str) -> String {
        if *self.namespace == *namespace {
            return format!(
                "port {port} of {address} is {self}'s already, and an address leads to one host: give {host} an address of its own"
            );
        }
        format!(
            "{address} belongs to {self}, and no object of namespace {namespace} takes its place: give {host} an address of its own"
        )
    }

    /// Who goes before whom. `Service` is before `ServiceEntry` where nobody is older.
    fn order(&self) -> impl Ord + '_ {
        let age = (self.created.is_none(), self.created);
        (self.title, age, self.kind, &self.namespace, &self.name)
    }

    fn is(&self, kind: &str, id: (&str, &str)) -> bool {
        self.kind == kind && (&*self.namespace, &*self.name) == id
    }

    /// Whether this object, which goes before `other`, keeps it from a port of the address.
    fn excludes(&self, other: &Self, port: u16) -> bool {
        let same_port = self.ports.contains(&port);
        if self.namespace == other.namespace {
            // A single address goes before a range around it.
            return same_port && self.range.is_none();
        }
        // Two that nobody sees both do not meet; what is a Service's is no other's even so.
        let (mine, theirs) = (&*self.namespace, &*other.namespace);
        let meets = self.exports.overlap(mine, &other.exports, theirs);
        (self.range.is_none() || same_port) && (meets || self.title < Title::Written)
    }
}

/// Who has which address.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Those that go before others come first.
    single: BTreeMap<IpAddr, Vec<Claim>>,
    ranges: Vec<Claim>,
}

impl Addresses {
    /// Of the objects of a mesh. `slices` are those of Services without an address; others do not matter.
    pub fn new(
        services: &[Arc<Service>],
        entries: &[Arc<ServiceEntry>],
        slices: &[Arc<EndpointSlice>],
    ) -> Self {
        let mut out = Self::default();
        let mut headless: BTreeMap<&str, &Service> = BTreeMap::new();
        for service in services {
            let addresses = [
                (Title::Cluster, &service.addresses),
                (Title::Balancer, &service.ingress),
                (Title::External, &service.external),
            ];
            let claim = of_service(service);
            for (title, list) in addresses {
                for address in list {
                    out.add(*address, &claim, title);
                }
            }
            if service.headless {
                headless.insert(&service.host, service);
            }
        }
        for slice in slices {
            let Some(service) = headless.get(&*slice.host) else {
                continue;
            };
            let selected = slice.controlled && !service.selector.is_empty();
            let title = if selected { Title::Pod } else { Title::Written };
            let claim = of_service(service);
            for address in slice.addresses() {
                out.add(address, &claim, title);
            }
        }
        for entry in entries {
            let claim = of_entry(entry);
            for address in entry.addresses().chain(entry.allocated.iter().copied()) {
                out.add(address, &claim, Title::Written);
            }
            // All addresses are nobody's.
            let ranges = entry.networks().filter(|range| range.prefix_len() > 0);
            out.ranges.extend(ranges.map(|range| Claim {
                range: Some(range),
                ..claim.clone()
            }));
        }
        for claims in out.single.values_mut() {
            claims.sort_by(|a, b| a.order().cmp(&b.order()));
            claims.dedup();
        }
        out
    }

    fn add(&mut self, address: IpAddr, claim: &Claim, title: Title) {
        let claims = self.single.entry(address.to_canonical()).or_default();
        claims.push(Claim {
            title,
            ..claim.clone()
        });
    }

    /// Who keeps an object from a port of an address that it names; `None`: the object has it.
    pub fn holder(
        &self,
        address: IpAddr,
        port: u16,
        kind: &str,
        object: (&str, &str),
    ) -> Option<&Claim> {
        let address = address.to_canonical();
        let single = self.single.get(&address).map(Vec::as_slice);
        let single = single.unwrap_or_default();
        let own = single.iter().find(|c| c.is(kind, object))?;
        let covering = self.ranges.iter();
        let covering = covering.filter(|c| c.range.is_some_and(|r| r.contains(&address)));
        let before = single.iter().chain(covering);
        let before = before.filter(|c| !c.is(kind, object) && c.order() < own.order());
        before
            .filter(|c| c.excludes(own, port))
            .min_by(|a, b| a.order().cmp(&b.order()))
    }
}

fn of_service(service: &Service) -> Claim {
    let ports = service.ports.iter().map(|p| p.number);
    claim("Service", &service.id, ports.collect(), &service.exports)
}

fn of_entry(entry: &ServiceEntry) -> Claim {
    let ports = entry.spec.ports.iter();
    let ports = ports.filter_map(trimtab_crds::istio::ServiceEntryPort::number);
    claim("ServiceEntry", &entry.id, ports.collect(), &entry.exports)
}

fn claim(kind: &'static str, id: &Identity, ports: Arc<[u16]>, exports: &Exports) -> Claim {
    Claim {
        kind,
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        title: Title::Written,
        created: id.created,
        ports,
        exports: exports.clone(),
        range: None,
    }
}

#[cfg(test)]
mod tests;
