//! What is kept of each kind.

mod capture;
mod clusters;
mod destination_rule;
mod endpoint_slice;
mod gateway_route;
mod limit_patches;
mod mesh_config;
mod namespace;
mod pod;
mod providers;
pub mod route;
mod service;
mod service_entry;
mod virtual_service;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};

pub use capture::{Capture, Outside, Proxy};
pub use clusters::{Clusters, ExtensionClusters, FilterClusters, PluginClusters};
pub use destination_rule::{DestinationRule, in_order};
pub use endpoint_slice::{Endpoint, EndpointSlice};
pub use gateway_route::{GrpcRoute, HttpRoute};
pub use limit_patches::{LimitChange, LimitPatch, LimitPatches};
pub use mesh_config::{DefaultProviders, ExtensionProvider, MeshConfig, ProxyConfig};
pub use namespace::Namespace;
pub use pod::{PROXY, Pod, PodGroup, PodGroups, Resources, Workload};
pub use providers::{CustomPolicy, KeyServers, Report, Side, Telemetry};
pub use service::{Service, ServicePort, TargetPort, Transport};
pub use service_entry::{ServiceEntry, port_protocol};
pub use virtual_service::{RouteKind, VirtualService};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether labels have all that a selector asks for. An empty selector selects everything: callers decide whether theirs may.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Which object a row is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `metadata.uid`; empty: not known.
    pub uid: Box<str>,
    /// `metadata.generation`; 0: not counted.
    pub generation: i64,
    /// When the object was created.
    pub created: Option<Timestamp>,
}

impl Identity {
    /// Of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default().into(),
            name: object.name_any().into(),
            uid: object.uid().unwrap_or_default().into(),
            generation: object.meta().generation.unwrap_or_default(),
            created: object.creation_timestamp().map(|t| t.0),
        }
    }

    /// Order by age: the oldest first, then by namespace and name; an object without a time is new.
    pub fn age(&self) -> impl Ord + Clone + use<> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        (self.created.is_none(), self.created, namespace, name)
    }
}

/// The annotations of an object that modules read.
fn annotations<K: Resource>(object: &K, names: &[&str]) -> Labels {
    let all = object.annotations().iter();
    all.filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
