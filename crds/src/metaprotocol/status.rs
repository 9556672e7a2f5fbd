//! Status of a MetaRouter.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a MetaRouter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetaRouterStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// metav1 conditions: Accepted, ResolvedRefs, Programmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = crate::schema::conditions)]
    pub conditions: Vec<Condition>,
    /// What the proxies run: the MetaProtocol filter or a filter of stock Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<String>,
    /// How routes reach the proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// How many proxies have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyCounts>,
    /// Number of routes in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<i32>,
}

/// Proxies by what they said to the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProxyCounts {
    /// Asked for the routes.
    #[serde(default)]
    pub subscribed: i32,
    /// Took the present routes.
    #[serde(default)]
    pub acknowledged: i32,
    /// Refused the present routes.
    #[serde(default)]
    pub refused: i32,
}
