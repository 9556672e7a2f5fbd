//! What protects the service.

use serde_json::{Value, json};
use trimtab_limiter::translate::actuator::{Actuator, Aim, EcdsBucket};

use super::operator::Objects;
use super::{PODS, SLO, WORKERS, capacity};

/// One of the things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// No limit.
    Nothing,
    /// A limit of 0.9 of what the pods can do when all is well.
    Static,
    /// Slime: `30/{pod}` while `cpu > 0.8`.
    Slime,
    /// Envoy's `adaptive_concurrency` as its documentation shows it.
    AdaptiveConcurrency,
    /// Envoy's `admission_control` as its documentation shows it.
    AdmissionControl,
    /// The law with a token bucket.
    Bucket,
    /// The law with bounds for `adaptive_concurrency`.
    Bounds,
    /// The operator.
    Operator(Objects),
}

/// All of them, in the order of the table.
pub const ALL: [Variant; 7] = [
    Variant::Nothing,
    Variant::Static,
    Variant::Slime,
    Variant::AdaptiveConcurrency,
    Variant::AdmissionControl,
    Variant::Bucket,
    Variant::Bounds,
];

impl Variant {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Static => "static",
            Self::Slime => "slime",
            Self::AdaptiveConcurrency => "adaptive_concurrency",
            Self::AdmissionControl => "admission_control",
            Self::Bucket => "trimtab, bucket",
            Self::Bounds => "trimtab, bounds",
            Self::Operator(_) => "trimtab, operator",
        }
    }

    /// The law of Plant A that does the same, with its parameters, if there is one.
    pub fn simulated(self) -> Option<(&'static str, Value)> {
        match self {
            Self::Nothing => Some(("none", json!({}))),
            Self::Static => Some(("static", json!({"share": STATIC_SHARE}))),
            Self::Slime => Some(("bang-bang", json!({"quota": SLIME_QUOTA / PODS as f64}))),
            Self::Bucket => Some(("trimtab", json!({}))),
            Self::AdaptiveConcurrency
            | Self::AdmissionControl
            | Self::Bounds
            | Self::Operator(_) => None,
        }
    }

    /// Time-out of the route; `0s` is none. `admission_control` counts answers, and clients that leave are none: only with a
    /// time-out in front of the clients' it sees an overload at all.
    pub fn route_timeout(self) -> String {
        if self == Self::AdmissionControl {
            format!("{}s", 0.9 * SLO.as_secs_f64())
        } else {
            "0s".to_owned()
        }
    }

    /// The HTTP filters in front of the router. What changes comes from the file `hot`.
    pub fn filters(self, hot: &str) -> Vec<Value> {
        match self {
            // The operator says what its filters are.
            Self::Nothing | Self::Operator(_) => Vec::new(),
            Self::Static => {
                let limit = aim(Some(STATIC_SHARE * capacity() / PODS as f64), 1.0);
                vec![filter("static", &EcdsBucket.filter(&limit).typed())]
            }
            Self::Slime | Self::Bucket | Self::Bounds => vec![json!({
                "name": HOT,
                "config_discovery": {
                    "config_source": {"path_config_source": {"path": hot}, "resource_api_version": "V3"},
                    "type_urls": [
                        "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                        "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
                    ],
                },
            })],
            Self::AdaptiveConcurrency => vec![filter(
                "envoy.filters.http.adaptive_concurrency",
                &json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
                    "gradient_controller_config": {
                        "sample_aggregate_percentile": {"value": 90},
                        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                        "min_rtt_calc_params": {"jitter": {"value": 10}, "interval": "60s", "request_count": 50},
                    },
                    "enabled": {"default_value": true, "runtime_key": "adaptive_concurrency.enabled"},
                }),
            )],
            Self::AdmissionControl => vec![filter(
                "envoy.filters.http.admission_control",
                &json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
                    "enabled": {"default_value": true, "runtime_key": "admission_control.enabled"},
                    "sampling_window": "30s",
                    "sr_threshold": {"default_value": {"value": 95}, "runtime_key": "admission_control.sr_threshold"},
                    "aggression": {"default_value": 1.0, "runtime_key": "admission_control.aggression"},
                    "success_criteria": {"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}},
                }),
            )],
        }
    }
}

/// Name of the filter whose configuration changes.
pub const HOT: &str = "trimtab.hot";
/// What somebody guesses, as a share of the capacity.
const STATIC_SHARE: f64 = 0.9;
/// The quota of Slime's example, over all pods.
pub const SLIME_QUOTA: f64 = 30.0;
/// The CPU above which it applies.
pub const SLIME_CPU: f64 = 0.8;

/// A limit of a pod of which nothing else is known.
pub fn aim(per_pod: Option<f64>, bucket_s: f64) -> Aim {
    Aim {
        per_pod,
        bucket_s,
        service_s: None,
        slo_s: SLO.as_secs_f64(),
    }
}

fn filter(name: &str, config: &Value) -> Value {
    json!({"name": name, "typed_config": config})
}

/// Workers of all pods, for texts.
pub fn workers() -> usize {
    PODS * WORKERS
}
