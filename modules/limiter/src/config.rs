//! Configuration of the limiter module. Unknown keys are errors.

use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_crds::limiter::Delivery;

/// `limiter:` in the operator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LimiterConfig {
    /// Period of metric sampling, e.g. `5s`; Slime's is fixed at 30 s.
    pub refresh: Duration,
    /// How long the last good value of a metric stands in for a missing one.
    pub hold_for: Duration,
    /// Delivery of limiters that do not say.
    pub delivery: Delivery,
    /// Do not insert the local rate limit filter: the user inserts it (Slime's key).
    pub disable_insert_local_rate_limit: bool,
    /// RE2 for `match.proxy.proxyVersion` of every patch (Slime's key).
    pub proxy_version: String,
    /// Istio's root namespace.
    pub root_namespace: String,
    /// Limiters with their own series in `/metrics`, at most: series cost memory in Prometheus.
    pub export_limiters: usize,
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            hold_for: Duration::from_secs(60),
            delivery: Delivery::EnvoyFilter,
            disable_insert_local_rate_limit: false,
            proxy_version: String::new(),
            root_namespace: "istio-system".to_owned(),
            export_limiters: 1000,
        }
    }
}
