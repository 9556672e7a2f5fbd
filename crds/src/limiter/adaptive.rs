//! Options and status of strategy `adaptive`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::MetricQuery;
use super::schema;
use crate::number::number_or_text;

/// What strategy `adaptive` is told of a service. Only `slo` and `floor` have to be thought about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adaptive {
    /// Time within which an answer is of use to the client, e.g. `500ms`; default `1s`. What takes longer counts as late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::duration)]
    pub slo: Option<String>,
    /// Requests per second, over all pods, that are never refused; default 1.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 1_000_000_000), transform = crate::schema::number_or_text)]
    pub floor: Option<i64>,
    /// Percent of the offered requests that may be refused at most; default 95.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 100), transform = crate::schema::number_or_text)]
    pub max_shed: Option<i64>,
    /// Requests per second, over all pods, that the limit moves to when metrics have been missing for longer than `holdFor`;
    /// default: the last limit stays.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 1_000_000_000), transform = crate::schema::number_or_text)]
    pub fallback: Option<i64>,
    /// Time between two decisions, e.g. `10s`; default, and at least: the operator's sampling period (`limiter.refresh`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::duration)]
    pub interval: Option<String>,
    /// Priority of the requests that `match` selects, beside a descriptor without a tier for all requests: in an overload the
    /// lowest tier is refused first. Needs `metrics.offered`.
    #[serde(
        default,
        deserialize_with = "number_or_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 1000), transform = crate::schema::number_or_text)]
    pub tier: Option<i64>,
    /// Own queries in place of Istio's series, by what they measure: `offered`, `accepted`, `ok`, `late`, `errors` (requests
    /// per second), `mean`, `p50`, `p95`, `p99` (seconds), `inflight` (requests), `cpu` (used share of the limit, 0 to 1).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub metrics: BTreeMap<String, MetricQuery>,
}

/// What strategy `adaptive` has decided, with the values that it rests on. Rates are requests per second over all pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdaptiveStatus {
    /// `Open` (no limit), `Armed` (a ceiling above the capacity, so that nothing is refused before an overload), `Draining`
    /// (a queue empties), `Limiting` (the pods get what they can answer in time), `Hold` (metrics are missing, the last limit
    /// stays), `Fallback` (the limit moves to the fallback).
    pub state: String,
    /// Limit; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// What the Ready pods can answer in time, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Requests that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<f64>,
    /// Requests that limits refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shed: Option<f64>,
    /// Pods that share the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i64>,
    /// Limits of single pods that the law asks for, and that proxies cannot be given: they have the share of the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slow_pods: BTreeMap<String, f64>,
    /// What is to be known of the measurements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Time that a full bucket lasts, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_millis: Option<i64>,
    /// What the law remembers, so that a restart and another leader go on from it. Not for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}
