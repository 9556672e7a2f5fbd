//! The Istio types that Trimtab reads and writes: only the fields used; the rest is kept as it is.
//!
//! The schemas are open (`x-kubernetes-preserve-unknown-fields`): they serve the embedded API, a cluster has Istio's own.
//! Kinds that Trimtab writes keep unknown fields in `others`, so that nothing is lost on a round trip.

mod authorization_policy;
mod destination_rule;
mod envoyfilter;
mod extensions;
mod fields;
mod gateway;
mod route_match;
mod served;
mod service_entry;
mod sidecar;
mod targets;
mod virtual_service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use authorization_policy::{AuthorizationPolicy, AuthorizationPolicySpec};
pub use destination_rule::{
    ConsistentHash, DestinationRule, DestinationRuleSpec, LoadBalancer, Subset, TrafficPolicy,
};
pub use envoyfilter::{EnvoyFilter, EnvoyFilterSpec};
pub use extensions::{
    RequestAuthentication, RequestAuthenticationSpec, Telemetry, TelemetrySpec, TrafficExtension,
    TrafficExtensionSpec, WasmPlugin, WasmPluginSpec,
};
pub use fields::{RELEASE, UnknownField, unknown_fields};
pub use gateway::{Gateway, GatewaySpec, Server};
pub use route_match::{ConnectionMatch, Redirect, SourceMatch};
pub(crate) use served::{as_served, unread_crds};
pub use service_entry::{
    AllocatedAddress, ServiceEntry, ServiceEntryEndpoint, ServiceEntryPort, ServiceEntrySpec,
    ServiceEntryStatus,
};
pub use sidecar::{Sidecar, SidecarEgress, SidecarSpec};
pub use targets::PolicyTargets;
pub use virtual_service::{
    Delegate, Destination, HttpMatchRequest, HttpRetry, HttpRule, MirrorPolicy, Percent,
    PortSelector, RouteDestination, StringMatch, TcpRule, VirtualService, VirtualServiceSpec,
};

/// Labels that select workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadSelector {
    /// All must be on the pod.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A port of a Gateway's server or of a Sidecar's listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = open)]
pub struct IstioPort {
    /// Number, 1 to 65535; 0 where Istio lets it out.
    #[serde(default)]
    pub number: i32,
    /// Name; its second and third part name the protocol, as on a Service's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Istio's protocol, e.g. `TCP`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
}

fn open(schema: &mut schemars::Schema) {
    schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
}

fn open_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn open_items(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}
