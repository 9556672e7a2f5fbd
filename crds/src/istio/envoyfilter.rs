//! `networking.istio.io/v1alpha3` EnvoyFilter.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{WorkloadSelector, open, open_items};

/// `networking.istio.io/v1alpha3` EnvoyFilter.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1alpha3",
    kind = "EnvoyFilter",
    plural = "envoyfilters",
    namespaced,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct EnvoyFilterSpec {
    /// Absent: every workload of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Patches in order, as JSON: the values are Envoy's protobuf JSON.
    #[serde(default)]
    #[schemars(schema_with = "open_items")]
    pub config_patches: Vec<Value>,
    /// Order among EnvoyFilters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Fields that we do not write: seen, so that a hand edit of them is noticed.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}
