//! `security.istio.io/v1` AuthorizationPolicy.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{open, open_items, open_object};

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
    /// Labels of the workloads in `matchLabels`, as JSON; absent: all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub selector: Option<Value>,
    /// Services and gateways that it is for, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub target_refs: Vec<Value>,
    /// One such target, as older releases have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub target_ref: Option<Value>,
    /// `from`, `to` and `when` of each rule, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub rules: Vec<Value>,
}
