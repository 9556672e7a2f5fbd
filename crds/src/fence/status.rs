//! What Trimtab reports, and what it remembers over a restart.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Mode;
use super::schema;

/// Dependencies in a status, at most: an object must stay below what etcd takes.
///
/// The long lists are one value each for the API server. Field by field, it would keep every name a second time in
/// `managedFields`, and only Trimtab writes them.
pub const DEPENDENCIES_MAX: usize = 4000;

/// Status of a ServiceFence. `domains`, `metricStatus` and `visitor` are Slime's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The mode that is in force; of mode `Auto` the one that it has come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How far mode `Auto` has come: what a restart reads back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoStatus>,
    /// Hosts of the scope, by the dependency that leads to them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub domains: BTreeMap<String, Domain>,
    /// Learned calls as Slime keeps them: `{destination_service="HOST"}` and a count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub metric_status: BTreeMap<String, String>,
    /// Deprecated, kept as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub visitor: BTreeMap<String, bool>,
    /// Learned dependencies with their evidence: what a restart reads back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DEPENDENCIES_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub dependencies: Vec<Dependency>,
    /// Size of the scope against the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeSize>,
    /// metav1 conditions: Accepted, FallbackReady, Programmed, Ready; of mode `Auto` also Tightened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = crate::schema::conditions)]
    pub conditions: Vec<Condition>,
}

/// How far mode `Auto` has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoStatus {
    /// `Exclude` or `Enforce`; absent: `Exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Mode>,
    /// When this step began, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Watched time in this step, in coarse steps, e.g. `18h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<String>,
    /// Watched time since the last call outside the scope, in coarse steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// Most calls to unknown hosts in one window while nothing was out of scope: what is usual here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub usual: Option<i64>,
    /// How often it went back from `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub returns: Option<i64>,
}

/// Hosts of one dependency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Domain {
    /// The host itself, where its routes lead, and its aliases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// `ACTIVE` (0), `EXPIRE` (1) or `EXPIREWAIT` (2, still in the Sidecar).
    #[serde(default, deserialize_with = "state")]
    #[schemars(transform = schema::name_or_number)]
    pub status: DomainState,
}

/// State of a dependency.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum DomainState {
    /// In the Sidecar.
    #[default]
    Active,
    /// Not in the Sidecar any more.
    Expire,
    /// Expired, still in the Sidecar.
    ExpireWait,
}

/// By name or by number.
fn state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DomainState, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(match (value.as_u64(), value.as_str()) {
        (Some(1), _) | (_, Some("EXPIRE")) => DomainState::Expire,
        (Some(2), _) | (_, Some("EXPIREWAIT")) => DomainState::ExpireWait,
        _ => DomainState::Active,
    })
}

/// A learned dependency of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Full name of the host that is called.
    pub host: String,
    /// Workload that calls, in the fence's namespace.
    #[serde(default)]
    pub caller: String,
    /// How it is known: `AccessLog`, `Prometheus`, `Policy`, `Template`, `Restored`; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// First call, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub first_seen: String,
    /// Last call that was known when this was written, RFC 3339 in UTC. A call that is no news is not written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_seen: String,
    /// For how long no call was seen, in watched time and coarse steps, e.g. `36h`; absent: it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
    /// Longest pause between two calls so far, e.g. `24h`, when it makes the dependency live longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap: Option<String>,
    /// What became of it.
    #[serde(default)]
    pub state: DependencyState,
}

/// What becomes of a learned dependency.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum DependencyState {
    /// In scope.
    #[default]
    Active,
    /// Expired, in scope until the grace is over.
    Expiring,
    /// Out of scope, remembered.
    Expired,
    /// Called, but no service of the mesh that this namespace may see: nothing to import.
    Unresolved,
}

impl DependencyState {
    /// As it is in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Expiring => "Expiring",
            Self::Expired => "Expired",
            Self::Unresolved => "Unresolved",
        }
    }
}

/// Size of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopeSize {
    /// Services that istiod will give to the proxy.
    pub services: i64,
    /// Services that it would give without a Sidecar.
    pub mesh_services: i64,
    /// Estimated configuration in bytes: clusters, endpoints, routes and listeners.
    pub bytes: i64,
    /// The same without a Sidecar.
    pub mesh_bytes: i64,
}
