//! Fields that Trimtab adds to SmartLimiter: metrics, holding, mode, delivery.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A query of this limiter only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricQuery {
    /// PromQL. `$namespace`, `$service` and `$pod_name` are replaced.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Shape of the answer; default `Value`.
    #[serde(default)]
    pub r#type: QueryType,
}

/// Shape of a query's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QueryType {
    /// Exactly one series.
    #[default]
    Value,
    /// One metric per series, under the series' own name.
    Group,
    /// Series with namespace and pod labels, joined to the target's pods.
    PerPod,
    /// Series with namespace and service labels, joined to the target.
    PerService,
}

/// Whether refusals really happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Requests over the limit are refused.
    #[default]
    Enforce,
    /// Requests over the limit are counted and pass.
    Shadow,
}

/// How values reach the proxies.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Delivery {
    /// One EnvoyFilter with everything in it, through istiod.
    #[default]
    EnvoyFilter,
    /// A static EnvoyFilter, and hot values over Trimtab's own xDS: no drain, no API write per change.
    #[serde(rename = "ECDS")]
    Ecds,
}

/// What holds when a metric has been missing for longer than `holdFor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.action != 'Limit' || has(self.quota)", "message": "fallback.quota is required with action Limit: add the number of requests per fill_interval"},
    {"rule": "self.action == 'Limit' || !has(self.quota)", "message": "fallback.quota is used only with action Limit: remove it or set action: Limit"}
]))]
pub struct Fallback {
    /// What is done while a metric is missing.
    #[serde(default)]
    pub action: FallbackAction,
    /// Requests per fill interval with action `Limit`; shared or per pod as the strategy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub quota: Option<i64>,
}

/// Kinds of [`Fallback`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackAction {
    /// The last decision stays, however old.
    #[default]
    KeepLast,
    /// The declared `quota` is enforced.
    Limit,
    /// No limit.
    NoLimit,
}

/// When a limit in force gives way to another one: each change fills its bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stabilization {
    /// How long nothing tighter must have been right before a limit is loosened or lifted, e.g. `60s`; default:
    /// `fill_interval`, at most 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = super::schema::duration)]
    pub window: Option<String>,
    /// Percent of the quota in force; a tighter one that differs by no more waits for the window too. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub dead_band: Option<i32>,
}

/// The roll-out ladder: shadow, then a percentage, then all. Not available yet: a limiter that sets it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Percentages of requests that are held to the limit, in order.
    #[serde(default)]
    #[schemars(length(max = 16), inner(range(min = 0, max = 100)))]
    pub steps: Vec<i32>,
}
