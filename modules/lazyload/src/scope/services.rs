//! What a scope needs to know of the mesh, and the reading of it.

use std::sync::Arc;

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

pub use trimtab_mesh::model::{DestinationRule, Labels, VirtualService};
pub use trimtab_mesh::{Exports, Protocol};

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
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
    /// Entries in a namespace.
    fn in_namespace(&self, namespace: &str) -> Vec<Arc<HostEntry>>;
    /// Entries of Services with all of these labels; none for no labels.
    fn labelled(&self, labels: &Labels) -> Vec<Arc<HostEntry>>;
    /// VirtualServices of sidecars with a host that is or covers this one.
    fn routes(&self, host: &str) -> Vec<Arc<VirtualService>>;
    /// VirtualServices of sidecars with a host that is this wildcard or lies under it.
    fn routes_under(&self, pattern: &str) -> Vec<Arc<VirtualService>>;
    /// VirtualServices of sidecars in a namespace.
    fn routes_in(&self, namespace: &str) -> Vec<Arc<VirtualService>>;
    /// A VirtualService by name, whatever gateways it is for.
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

impl HostEntry {
    /// Order in which one of several entries of a host is taken: the client's namespace, Services, the oldest.
    pub fn preference(&self, client: &str) -> impl Ord + use<> {
        (
            &*self.namespace != client,
            self.registry,
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
