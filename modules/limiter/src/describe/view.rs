//! What is told of a limiter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_crds::limiter::{AdaptiveStatus, DescriptorState};
use trimtab_kit::describe::{ConditionView, Holder, Verdict};

use crate::input::{Opaque, ReadingState, ServicePort};

/// All that is known of a limiter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// API version of the object.
    pub api_version: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether it limits now, and why not.
    pub verdict: Verdict,
    /// `Enforce` or `Shadow`.
    pub mode: String,
    /// `EnvoyFilter` or `ECDS`.
    pub delivery: String,
    /// Another replica decides; what it decides is in the status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
    /// Whose requests it limits.
    pub target: TargetDescription,
    /// In the order of the object.
    pub rules: Vec<RuleDescription>,
    /// What Trimtab makes of it: objects, and resources of the xDS server.
    pub outputs: Vec<String>,
    /// Who else limits the same requests, or changes how they are limited.
    pub others: Vec<OtherLimit>,
    /// The proxies of its pods.
    pub proxies: Vec<Holder>,
    /// Of its status.
    pub conditions: Vec<ConditionView>,
}

/// Whose requests a limiter limits.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetDescription {
    /// The Service, the host or the selector that the limiter names.
    pub what: String,
    /// Labels of the pods.
    pub selector: String,
    /// Ports of the Service, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortDescription>,
    /// Sets of pods.
    pub sets: Vec<SetDescription>,
}

/// A port of the Service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortDescription {
    /// The Service's port.
    pub port: u16,
    /// The workload's port; absent: it is a named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u16>,
    /// What it carries in place of HTTP, so that proxies see no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<String>,
}

impl PortDescription {
    pub(crate) fn of(port: ServicePort) -> Self {
        Self {
            port: port.port,
            target: port.target,
            carries: port.opaque.map(Opaque::title).map(str::to_owned),
        }
    }
}

/// A set of pods.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetDescription {
    /// `_base` or the subset.
    pub name: String,
    /// Ready pods.
    pub pods: i64,
    /// Those whose proxy can hold a limit; absent: nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<i64>,
}

/// A rule, and what is decided for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleDescription {
    /// Path of the descriptor in the object.
    pub path: String,
    /// `_base` or the subset.
    pub set: String,
    /// State, as in the status.
    pub state: DescriptorState,
    /// The expression, as written.
    pub condition: String,
    /// The expression, as written.
    pub quota: String,
    /// `single`, `average` or `adaptive`.
    pub strategy: String,
    /// What each proxy may let pass, e.g. `10/60s`; absent: there is no limit in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each_proxy: Option<String>,
    /// The same in requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// What all proxies may let pass together, with strategy `average`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_proxies: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// With strategy `adaptive`: what was decided for all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveStatus>,
    /// For a refused one: the reason of the condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Values in use.
    pub values: Vec<ValueDescription>,
    /// Which requests, as written; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
    /// Where in the proxies.
    pub places: Vec<String>,
}

/// A value that an expression uses.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueDescription {
    /// Its name in the expression.
    pub name: String,
    /// The value in use; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// How far it can be relied on; absent: it was never asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ReadingState>,
    /// Seconds since it was last sampled well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Where it comes from.
    pub source: String,
    /// Why there is no fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// A name that is known and near to this one, which is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
}

/// Somebody else who limits the same requests, or changes how they are limited.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherLimit {
    /// The object, as `Kind namespace/name`.
    pub object: String,
    /// What it does.
    pub does: String,
    /// Requests per second and proxy that it lets pass, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
}
