//! `microservice.netease.com/v1alpha1` SmartLimiter, the first published form: one flat list of descriptors
//! for the Service of the same name, expressions with single braces (`{cpu}`, `{pod}`).

// printcolumn is repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::{
    BASE_SET, Delivery, Descriptor, Fallback, LimiterSpec, LimiterStatus, MetricQuery, Mode,
    Rollout, Stabilization,
};

/// Limits the Service of the same name and namespace.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "microservice.netease.com",
    version = "v1alpha1",
    kind = "SmartLimiter",
    plural = "smartlimiters",
    category = "trimtab",
    namespaced,
    status = "LimiterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Limits requests to the Service of its name, by conditions on live metrics.",
    printcolumn(name = "Limit", type_ = "string", json_path = ".status.limit"),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".status.strategy"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(
        name = "Cause",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SmartLimiterSpec {
    /// The rules, in order.
    #[schemars(length(min = 1, max = 512))]
    pub descriptors: Vec<Descriptor>,
    /// Queries of this limiter only, by metric name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub metrics: BTreeMap<String, MetricQuery>,
    /// How long the last good value of a metric stands in for a missing one, e.g. `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::duration)]
    pub hold_for: Option<String>,
    /// What holds after `holdFor`; default: the last decision stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// When a limit in force gives way to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stabilization: Option<Stabilization>,
    /// `Enforce` (default) or `Shadow`: count, never refuse.
    #[serde(default)]
    pub mode: Mode,
    /// `EnvoyFilter` or `ECDS`; default: the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The roll-out ladder; not available yet, a limiter that sets it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

impl From<&SmartLimiterSpec> for LimiterSpec {
    fn from(spec: &SmartLimiterSpec) -> Self {
        Self {
            sets: BTreeMap::from([(BASE_SET.to_owned(), spec.descriptors.clone())]),
            metrics: spec.metrics.clone(),
            hold_for: spec.hold_for.clone(),
            fallback: spec.fallback.clone(),
            stabilization: spec.stabilization.clone(),
            mode: spec.mode,
            delivery: spec.delivery,
            rollout: spec.rollout.clone(),
            ..Self::default()
        }
    }
}
