//! `networking.istio.io/v1` DestinationRule.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::open;

/// `networking.istio.io/v1` DestinationRule: host, subsets and traffic policies.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "DestinationRule",
    plural = "destinationrules",
    shortname = "dr",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct DestinationRuleSpec {
    /// A short name, or a full one: a name with a dot is full.
    #[serde(default)]
    pub host: String,
    /// Load balancer, pools and TLS of the whole host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subsets: Vec<Subset>,
    /// Namespaces that see the rule: names, `.` or `*`. Empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
}

/// A subset of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct Subset {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Labels on top of the Service's selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the subset changes of the host's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// A policy of a host or a subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct TrafficPolicy {
    /// How endpoints are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

impl TrafficPolicy {
    /// Header by whose value endpoints are chosen.
    pub fn hash_header(&self) -> Option<&str> {
        let hash = self.load_balancer.as_ref()?.consistent_hash.as_ref()?;
        Some(hash.http_header_name.as_str()).filter(|n| !n.is_empty())
    }
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct LoadBalancer {
    /// `ROUND_ROBIN`, `RANDOM`, `LEAST_REQUEST`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub simple: String,
    /// By a hash of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct ConsistentHash {
    /// Header.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub http_header_name: String,
}
