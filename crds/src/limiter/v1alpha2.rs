//! `microservice.slime.io/v1alpha2` SmartLimiter.

// printcolumn is repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::{
    Delivery, Descriptor, Fallback, LimiterSpec, LimiterStatus, MetricQuery, Mode, Rollout,
    Stabilization, Target,
};

/// Limits the Service of the same name and namespace, unless `workloadSelector`, `host` or `gateway` says otherwise.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "microservice.slime.io",
    version = "v1alpha2",
    kind = "SmartLimiter",
    plural = "smartlimiters",
    shortname = "sml",
    category = "trimtab",
    namespaced,
    status = "LimiterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Limits requests to a Service, or through a gateway, by conditions on live metrics.",
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
    /// Descriptors by set: `_base` = all pods of the target, any other key = a subset of the host's DestinationRule.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    pub sets: BTreeMap<String, DescriptorSet>,
    /// Deprecated, not read: the address of the rate limit service is configuration of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rls: Option<String>,
    /// Pod labels for the EnvoyFilter; wins over the lookup of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workload_selector: BTreeMap<String, String>,
    /// True: the patches are for gateways.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// Host of a ServiceEntry; its workloadSelector selects the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host: Option<String>,
    /// Target of every descriptor that has none; default: inbound, all ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
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

/// Descriptors of one set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DescriptorSet {
    /// The rules, in order.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub descriptor: Vec<Descriptor>,
}

impl From<&SmartLimiterSpec> for LimiterSpec {
    fn from(spec: &SmartLimiterSpec) -> Self {
        Self {
            sets: spec
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), set.descriptor.clone()))
                .collect(),
            workload_selector: spec.workload_selector.clone(),
            gateway: spec.gateway,
            host: spec.host.clone().filter(|h| !h.is_empty()),
            target: spec.target.clone(),
            metrics: spec.metrics.clone(),
            hold_for: spec.hold_for.clone(),
            fallback: spec.fallback.clone(),
            stabilization: spec.stabilization.clone(),
            mode: spec.mode,
            delivery: spec.delivery,
            rollout: spec.rollout.clone(),
        }
    }
}
