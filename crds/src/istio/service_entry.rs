//! `networking.istio.io/v1` ServiceEntry.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{WorkloadSelector, open};

/// `networking.istio.io/v1` ServiceEntry: hosts, addresses, ports and what is behind them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "ServiceEntry",
    plural = "serviceentries",
    shortname = "se",
    namespaced,
    status = "ServiceEntryStatus"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct ServiceEntrySpec {
    /// Host names.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Virtual addresses or CIDR ranges, v4 or v6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// `MESH_EXTERNAL` (Istio's default) or `MESH_INTERNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// `NONE` (Istio's default), `STATIC`, `DNS` or `DNS_ROUND_ROBIN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Pods or WorkloadEntries behind the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Static endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<ServiceEntryEndpoint>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServiceEntryPort>,
    /// Namespaces that see the hosts: names, `.` or `*`. Empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Names that the endpoints' certificates must have one of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

/// What Istio says of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = open)]
pub struct ServiceEntryStatus {
    /// Addresses that it gave to the hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AllocatedAddress>,
}

/// An address that Istio gave to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = open)]
pub struct AllocatedAddress {
    /// The address.
    #[serde(default)]
    pub value: String,
}

/// A port of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct ServiceEntryPort {
    /// Port that callers use, 1 to 65535.
    #[serde(default)]
    pub number: i32,
    /// Name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Istio's protocol, e.g. `HTTP` or `GRPC-Web`, in any case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Port of the endpoints; 0 or absent: `number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<i32>,
}

impl ServiceEntryPort {
    /// The number; `None`: it is not a port.
    pub fn number(&self) -> Option<u16> {
        port(self.number)
    }

    /// The port of the endpoints, when it is written.
    pub fn target(&self) -> Option<u16> {
        self.target_port.and_then(port)
    }
}

/// A static endpoint of a ServiceEntry (Istio's `WorkloadEntry` inline).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct ServiceEntryEndpoint {
    /// IP address, host name, or `unix:` and a path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Ports by the name of the entry's port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, i32>,
    /// Labels, for subsets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Weight among the endpoints; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

impl ServiceEntryEndpoint {
    /// Its own number for a port of the entry, when it is written.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied().and_then(port)
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n > 0)
}
