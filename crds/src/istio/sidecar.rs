//! `networking.istio.io/v1` Sidecar.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{IstioPort, WorkloadSelector, open, open_items, open_object};

/// `networking.istio.io/v1` Sidecar: what a workload's proxy sees of the mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Sidecar",
    plural = "sidecars",
    namespaced,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct SidecarSpec {
    /// Absent: every workload of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Outbound listeners with the hosts seen on each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<SidecarEgress>,
    /// Inbound listeners, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub ingress: Vec<Value>,
    /// What becomes of calls to unknown hosts, as JSON, e.g. `{"mode": "ALLOW_ANY"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub outbound_traffic_policy: Option<Value>,
    /// Limits of inbound connections, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub inbound_connection_pool: Option<Value>,
    /// Fields that we do not write: seen, so that a hand edit of them is noticed.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// One outbound listener of a Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct SidecarEgress {
    /// Absent: all ports that no other entry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IstioPort>,
    /// Address or Unix socket to listen on; absent = from the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// `DEFAULT`, `IPTABLES` or `NONE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_mode: Option<String>,
    /// Hosts as `namespace/dnsName`; `.` = own namespace, `*` = all, `~` = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}
