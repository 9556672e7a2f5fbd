//! What is measured at one tick. Each value may be missing: a metric that is absent, stale or no number is `None`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Outputs;

/// Measurements of one tick. Rates are requests per second, times are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tick {
    /// Time of the tick; may jump in either direction.
    pub t: f64,
    /// Time up to which the measurements reach.
    pub as_of: Option<f64>,
    /// The limits that are in force, whatever was decided.
    pub in_force: Option<Outputs>,
    /// What was called: routes or callers, by name.
    pub apis: BTreeMap<String, Api>,
    /// The pods that serve the calls, by name.
    pub pods: BTreeMap<String, Pod>,
}

/// Calls of one API. `offered` counts all requests, `accepted` those that were not refused by a limit.
/// Percentiles are over all responses but our refusals and 5xx.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Api {
    /// Requests per second, refused ones included.
    pub offered: Option<f64>,
    /// Requests per second that passed the limits.
    pub accepted: Option<f64>,
    /// Answers per second that were right and within the SLO.
    pub ok: Option<f64>,
    /// Answers per second that came after the SLO, or whose client had left.
    pub late: Option<f64>,
    /// Answers per second that were errors.
    pub errors: Option<f64>,
    /// Mean time of an answer, in seconds.
    pub mean_s: Option<f64>,
    /// Median time of an answer, in seconds.
    pub p50_s: Option<f64>,
    /// 95th percentile of the time of an answer, in seconds.
    pub p95_s: Option<f64>,
    /// 99th percentile of the time of an answer, in seconds.
    pub p99_s: Option<f64>,
    /// Services that a call of this API reaches.
    pub path: Vec<String>,
    /// Priority tier, one of `Config::tiers`.
    pub tier: Option<serde_json::Value>,
}

/// One pod. `cpu` is the used share of the CPU limit; `inflight` counts requests that were accepted and not answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// The service that the pod belongs to.
    pub service: Option<String>,
    /// Whether the pod is Ready.
    pub ready: Option<bool>,
    /// Requests per second, refused ones included.
    pub offered: Option<f64>,
    /// Requests per second that passed the limits.
    pub accepted: Option<f64>,
    /// Answers per second that were right and within the SLO.
    pub ok: Option<f64>,
    /// Answers per second that came after the SLO, or whose client had left.
    pub late: Option<f64>,
    /// Answers per second that were errors.
    pub errors: Option<f64>,
    /// Requests in the pod.
    pub inflight: Option<f64>,
    /// Used share of the CPU limit.
    pub cpu: Option<f64>,
}
