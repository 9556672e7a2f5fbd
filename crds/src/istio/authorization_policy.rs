//! `security.istio.io/v1` AuthorizationPolicy.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyTargets, open, open_items, open_object};

/// `security.istio.io/v1` AuthorizationPolicy: who may call the workloads that it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "AuthorizationPolicy",
    plural = "authorizationpolicies",
    shortname = "ap",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct AuthorizationPolicySpec {
    /// `ALLOW` unless set; `DENY`, `AUDIT`, `CUSTOM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Who decides for `CUSTOM`, as JSON: `name` of an extension provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub provider: Option<Value>,
    /// The workloads that it is for.
    #[serde(flatten)]
    pub targets: PolicyTargets,
    /// `from`, `to` and `when` of each rule, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub rules: Vec<Value>,
}
