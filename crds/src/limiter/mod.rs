//! SmartLimiter: both published forms, one shared descriptor, one status.
//!
//! * [`v1alpha2`]: `microservice.slime.io/v1alpha2`, Slime's current form, with additive fields.
//! * [`first_form`]: `microservice.netease.com/v1alpha1`, the first published form.
//!
//! Field rules follow Slime's documentation; every field that Slime's API decoder accepts in
//! snake_case and lowerCamelCase is declared in both spellings, so that an API server prunes neither.

mod adaptive;
mod descriptor;
mod policy;
mod schema;
mod status;

pub mod first_form;
pub mod v1alpha2;

pub use adaptive::{Adaptive, AdaptiveStatus};
pub use descriptor::{
    Action, Descriptor, FillInterval, GrpcStatus, HeaderToAdd, MatchSource, Matcher, Response,
    Target,
};
pub use policy::{
    Delivery, Fallback, FallbackAction, MetricQuery, Mode, QueryType, Rollout, Stabilization,
};
pub use status::{
    DescriptorState, DescriptorStatus, LimiterStatus, RatelimitSet, StatusAction, StatusDescriptor,
};

use std::collections::BTreeMap;

/// Key of the set that covers all pods of the target.
pub const BASE_SET: &str = "_base";

/// Kind of both forms.
pub const KIND: &str = "SmartLimiter";

/// What both forms say, in one shape: the input of validation and translation.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimiterSpec {
    /// Descriptors by set: [`BASE_SET`] or the name of a DestinationRule subset.
    #[serde(default)]
    pub sets: BTreeMap<String, Vec<Descriptor>>,
    /// Pod labels that replace the lookup of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workload_selector: BTreeMap<String, String>,
    /// True: the patches are for gateways.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// Host of a ServiceEntry that stands for the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Default target of descriptors without their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Per-limiter queries by metric name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, MetricQuery>,
    /// How long the last good value of a metric stands in for a missing one; `None` = the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_for: Option<String>,
    /// What holds after `hold_for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// When a limit in force gives way to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stabilization: Option<Stabilization>,
    /// Enforce or only count.
    #[serde(default)]
    pub mode: Mode,
    /// How values reach the proxies; `None` = the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The roll-out ladder, declared for later and refused until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}
