//! `networking.istio.io/v1` DestinationRule.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{open, open_object};

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
    /// Short name, `name.namespace` or fully qualified.
    #[serde(default)]
    pub host: String,
    /// Load balancer, pools and TLS of the whole host, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub traffic_policy: Option<Value>,
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
    /// What the subset changes of the host's policy, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub traffic_policy: Option<Value>,
}
