//! What a scope needs to know of the mesh, and the reading of it.

use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::size;

/// Which registry a host comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A Service.
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

pub use trimtab_mesh::model::{DestinationRule, Labels, RouteKind, VirtualService};
pub use trimtab_mesh::{Exports, Protocol};

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// How a proxy finds the endpoints of a host, as istiod tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// istiod names them: a Service with an address, a ServiceEntry of `STATIC`.
    #[default]
    Static,
    /// The address of the call: a headless Service, a ServiceEntry of `NONE`.
    Passthrough,
    /// DNS.
    Dns,
    /// DNS, for each host that is called under a wildcard.
    DynamicDns,
    /// None: an ExternalName.
    Alias,
}

/// An endpoint of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Address, or a name.
    pub address: Arc<str>,
    /// Labels.
    pub labels: Labels,
}

/// A host in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Full host name in lower case; of a ServiceEntry it may begin with `*`.
    pub host: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// Kind of the object.
    pub registry: Registry,
    /// When the object was made.
    pub created: Option<Timestamp>,
    /// Who sees it.
    pub exports: Exports,
    /// Ports, sorted.
    pub ports: Box<[Port]>,
    /// Host that an ExternalName stands for.
    pub target: Option<Arc<str>>,
    /// Labels of the object.
    pub labels: Arc<Labels>,
    /// No virtual address: clients pick an endpoint themselves.
    pub headless: bool,
    /// Static endpoints of a ServiceEntry.
    pub endpoints: usize,
    /// Each of them; of one of DNS without any, the host itself is one.
    pub instances: Arc<[Instance]>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Virtual addresses as they are written: single ones are networks of one address.
    pub addresses: Box<[IpNet]>,
    /// A ServiceEntry has pods or WorkloadEntries behind it.
    pub selects: bool,
}

/// Sizes of many services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of services.
    pub services: u64,
    /// Estimated configuration in bytes, see [`size`].
    pub bytes: u64,
}

/// The mesh as a scope reads it. Answers are sorted, and each costs what it gives back.
pub trait Services {
    /// Entries of exactly this host (a wildcard is found by its own text), by namespace and name.
    fn host(&self, host: &str) -> Vec<Arc<HostEntry>>;
    /// Wildcard entries that cover the host, the longest first; not the host itself.
    fn covering(&self, host: &str) -> Vec<Arc<HostEntry>>;
    /// Entries whose host is this wildcard or lies under it.
    fn under(&self, pattern: &str) -> Vec<Arc<HostEntry>>;
    /// ExternalNames that stand for exactly this host.
    fn standing_for(&self, host: &str) -> Vec<Arc<HostEntry>>;
    /// Entries in a namespace.
    fn in_namespace(&self, namespace: &str) -> Vec<Arc<HostEntry>>;
    /// Entries of Services with all of these labels; none for no labels.
    fn labelled(&self, labels: &Labels) -> Vec<Arc<HostEntry>>;
    /// Entries with a listener of their own on this port, when they are imported.
    fn on_tcp_port(&self, port: u16) -> Vec<Arc<HostEntry>>;
    /// The first entry that a client sees and that gives the listener that HTTP shares on this port.
    fn on_http_port(&self, port: u16, client: &str) -> Option<Arc<HostEntry>>;
    /// VirtualServices of sidecars with a host that is or covers this one.
    fn routes(&self, host: &str) -> Vec<Arc<VirtualService>>;
    /// VirtualServices of sidecars with a host that is this wildcard or lies under it.
    fn routes_under(&self, pattern: &str) -> Vec<Arc<VirtualService>>;
    /// VirtualServices of sidecars in a namespace.
    fn routes_in(&self, namespace: &str) -> Vec<Arc<VirtualService>>;
    /// All entries.
    fn all(&self) -> Vec<Arc<HostEntry>>;
    /// All VirtualServices of sidecars.
    fn all_routes(&self) -> Vec<Arc<VirtualService>>;
    /// A VirtualService by name, whatever gateways it is for; none of the Gateway API.
    fn route(&self, namespace: &str, name: &str) -> Option<Arc<VirtualService>>;
    /// DestinationRules whose host is or covers this one, the longest first.
    fn rules(&self, host: &str) -> Vec<Arc<DestinationRule>>;
    /// Number of endpoints.
    fn endpoints(&self, entry: &HostEntry) -> usize;
    /// What a client in a namespace gets without a Sidecar. Constant time; a host in two namespaces counts twice.
    fn totals(&self, client: &str) -> Totals;
    /// Whether a namespace is there, or a service or a VirtualService of sidecars in it.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// Rules of `domainAliases` that match no host.
    fn unused_aliases(&self) -> Vec<usize>;
}

/// An outbound listener that a service gives when it is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// At its own address.
    Own(u16),
    /// That which HTTP of all services shares.
    Shared(u16),
}

impl HostEntry {
    /// Listeners that it gives; an ExternalName gives none, and a ServiceEntry without an address none of its own.
    pub fn listeners(&self) -> impl Iterator<Item = Listener> + '_ {
        let any = self.target.is_none();
        let own = self.registry == Registry::Kubernetes || !self.addresses.is_empty();
        let ports = self.ports.iter().filter(move |_| any);
        ports.filter_map(move |port| match port.protocol {
            Protocol::Http | Protocol::Http2 => Some(Listener::Shared(port.number)),
            Protocol::Auto | Protocol::Tcp | Protocol::Tls => {
                own.then_some(Listener::Own(port.number))
            }
        })
    }

    /// Ports on which connections to other addresses are led to its endpoints: without an address its listener is
    /// `0.0.0.0`, and with a range it has a part of that one. TLS is told apart by names; without resolution a connection goes
    /// where the client said.
    pub fn open_ports(&self) -> impl Iterator<Item = u16> + '_ {
        let open =
            self.registry == Registry::ServiceEntry && self.resolution != Resolution::Passthrough;
        let open = open && (self.addresses.is_empty() || self.ranges().next().is_some());
        let takes = |p: &&Port| matches!(p.protocol, Protocol::Tcp | Protocol::Auto);
        let ports = self.ports.iter().filter(move |p| open && takes(p));
        ports.map(|p| p.number)
    }

    /// Addresses that are more than one.
    fn ranges(&self) -> impl Iterator<Item = &IpNet> {
        let more = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
        self.addresses.iter().filter(more)
    }

    /// Whether an open port takes connections to another service when that has no listener.
    pub fn takes_from(&self, other: &Self) -> bool {
        self.addresses.is_empty()
            || self
                .ranges()
                .any(|range| other.addresses.iter().any(|net| range.contains(net)))
    }

    /// Ports of the listeners that HTTP shares.
    pub fn http_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.listeners().filter_map(|listener| match listener {
            Listener::Shared(port) => Some(port),
            Listener::Own(_) => None,
        })
    }

    /// Order in which one of several entries of a host is taken: the client's namespace, Services, those that only some
    /// namespaces see, the oldest.
    pub fn preference(&self, client: &str) -> impl Ord + use<> {
        (
            &*self.namespace != client,
            self.registry,
            self.exports.clients("").is_none(),
            self.created.unwrap_or(Timestamp::MAX),
            self.namespace.clone(),
            self.name.clone(),
        )
    }

    /// Kind, namespace and name of the object.
    pub fn object(&self) -> String {
        let kind = match self.registry {
            Registry::Kubernetes => "Service",
            Registry::ServiceEntry => "ServiceEntry",
        };
        format!("{kind} {}/{}", self.namespace, self.name)
    }

    /// Estimated configuration in bytes.
    pub fn bytes(&self, endpoints: usize) -> u64 {
        size::of_service(&self.ports, endpoints)
    }
}
