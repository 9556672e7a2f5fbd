//! Status of both forms: Slime's two maps, plus conditions and one entry per descriptor.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::adaptive::AdaptiveStatus;
use super::descriptor::{FillInterval, Matcher, Target};

/// Observed state of a SmartLimiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_rules)]
pub struct LimiterStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The value in force, for people: e.g. `10/1s per pod`, `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Strategies in use, e.g. `single`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Summary state, the most broken one of all descriptors: `Refused`, `NoProxy`, `Unknown`, `Fallback`, `Held`, `Limiting`,
    /// `Idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why: e.g. `{cpu}>0.8 with cpu=0.85, pod=3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// metav1 conditions: Accepted, Resolved, MetricsAvailable, Applied, Programmed, Ready. What was not looked at is Unknown
    /// with reason NotEvaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = crate::schema::conditions)]
    pub conditions: Vec<Condition>,
    /// One entry per descriptor, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<DescriptorStatus>,
    /// Slime's field: sets with live descriptors, quota replaced by its number. Any content is accepted: Slime's releases
    /// wrote it differently, and Trimtab never reads it.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "written_only"
    )]
    #[schemars(with = "BTreeMap<String, Value>", transform = super::schema::open_values)]
    pub ratelimit_status: BTreeMap<String, RatelimitSet>,
    /// Slime's field: metric values by `<set>.<metric>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_status: BTreeMap<String, String>,
}

/// What another program wrote in the field does not make the object unreadable.
fn written_only<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, RatelimitSet>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// State of one descriptor.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum DescriptorState {
    /// The limit is on.
    Limiting,
    /// The condition does not hold: no limit.
    Idle,
    /// A metric is missing: the last value or decision stands in.
    Held,
    /// A metric has been missing too long: the declared fallback is in force.
    Fallback,
    /// A metric is missing and there never was a value: no limit yet.
    #[default]
    Unknown,
    /// A limit is decided, and no proxy can hold it: see the condition Programmed.
    NoProxy,
    /// The descriptor is refused; the others go on.
    Refused,
}

impl DescriptorState {
    /// As it is in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limiting => "Limiting",
            Self::Idle => "Idle",
            Self::Held => "Held",
            Self::Fallback => "Fallback",
            Self::Unknown => "Unknown",
            Self::NoProxy => "NoProxy",
            Self::Refused => "Refused",
        }
    }
}

/// What became of one descriptor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DescriptorStatus {
    /// `_base` or the subset.
    pub set: String,
    /// Index in the set.
    pub index: i32,
    /// What became of it.
    pub state: DescriptorState,
    /// What was decided, where `state` is `NoProxy`: a restart goes on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<DescriptorState>,
    /// Requests per fill interval and pod, when a limit is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// Requests per fill interval of the whole service, with strategy `average`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// The interval of `quota`, when it is not the rule's: a quota below 1, or one that rounds by more than a tenth, is written
    /// over a longer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<FillInterval>,
    /// For a refused descriptor: the PascalCase reason, as in the condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// With strategy `adaptive`: what was decided for all pods, and what it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveStatus>,
    /// Why, in one sentence; for a refused descriptor what to change.
    pub reason: String,
}

/// Slime's status of one set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatelimitSet {
    /// Live descriptors.
    pub descriptor: Vec<StatusDescriptor>,
}

/// Slime's status of one descriptor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusDescriptor {
    /// With the computed quota.
    pub action: StatusAction,
    /// As in the spec.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Matcher>,
    /// As in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Slime's status of an action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusAction {
    /// The number, as text.
    pub quota: String,
    /// As in the spec.
    #[serde(
        default,
        alias = "fill_interval",
        skip_serializing_if = "Option::is_none"
    )]
    pub fill_interval: Option<FillInterval>,
    /// As in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
}
