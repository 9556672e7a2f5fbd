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
    /// How services are measured for strategy `adaptive`.
    pub adaptive: AdaptiveConfig,
}

/// `limiter.adaptive:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdaptiveConfig {
    /// Whose `istio_requests_total` counts: `destination`, the pods' own proxies, or `source`, those of the callers.
    pub reporter: Reporter,
    /// Over which time rates are taken: at least two scrape intervals.
    pub window: Duration,
    /// Upper bounds of the buckets of `istio_request_duration_milliseconds` in the mesh, in milliseconds.
    pub buckets: Vec<f64>,
}

/// Which proxies report requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reporter {
    /// Those of the pods that are limited.
    #[default]
    Destination,
    /// Those of the callers.
    Source,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            reporter: Reporter::Destination,
            window: Duration::from_secs(30),
            // Istio's.
            buckets: vec![
                0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0,
                10_000.0, 30_000.0, 60_000.0,
            ],
        }
    }
}

impl AdaptiveConfig {
    /// The error names the key and the fix.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.window < Duration::from_secs(1) {
            return Err(format!(
                "limiter.adaptive.window: {} is shorter than 1s: write at least two scrape intervals, for example 30s",
                self.window
            ));
        }
        let good = |bound: &f64| bound.is_finite() && *bound > 0.0;
        if self.buckets.is_empty() || !self.buckets.iter().all(good) {
            return Err("limiter.adaptive.buckets: needs numbers of milliseconds above 0: write for example [100, 500, 1000]".to_owned());
        }
        Ok(())
    }
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
            adaptive: AdaptiveConfig::default(),
        }
    }
}
