//! Istio's kinds that add filters or telemetry to proxies, and the one of JWTs.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyTargets, open, open_items, open_object};

/// `extensions.istio.io/v1alpha1` WasmPlugin: a Wasm filter of the workloads that it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.istio.io",
    version = "v1alpha1",
    kind = "WasmPlugin",
    plural = "wasmplugins",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct WasmPluginSpec {
    /// The workloads that it is for.
    #[serde(flatten)]
    pub targets: PolicyTargets,
    /// Configuration of the plugin, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub plugin_config: Option<Value>,
}

/// `extensions.istio.io/v1alpha1` TrafficExtension: a Wasm or Lua filter of the workloads that it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.istio.io",
    version = "v1alpha1",
    kind = "TrafficExtension",
    plural = "trafficextensions",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct TrafficExtensionSpec {
    /// The workloads that it is for.
    #[serde(flatten)]
    pub targets: PolicyTargets,
    /// The Lua filter, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub lua: Option<Value>,
    /// The Wasm filter, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub wasm: Option<Value>,
}

/// `telemetry.istio.io/v1` Telemetry: traces, access logs and metrics of the workloads that it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "telemetry.istio.io",
    version = "v1",
    kind = "Telemetry",
    plural = "telemetries",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct TelemetrySpec {
    /// The workloads that it is for.
    #[serde(flatten)]
    pub targets: PolicyTargets,
    /// Traces, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub tracing: Vec<Value>,
    /// Access logs, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub access_logging: Vec<Value>,
    /// Metrics, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub metrics: Vec<Value>,
}

/// `security.istio.io/v1` RequestAuthentication: the JWTs that the workloads take which it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "RequestAuthentication",
    plural = "requestauthentications",
    shortname = "ra",
    namespaced
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open)]
pub struct RequestAuthenticationSpec {
    /// The workloads that it is for.
    #[serde(flatten)]
    pub targets: PolicyTargets,
    /// Rules of the JWTs, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub jwt_rules: Vec<Value>,
}
