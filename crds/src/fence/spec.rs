//! What users write.

// printcolumn is repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FenceStatus;
use super::schema;

/// Scopes the workload of the Service of the same name, unless `workloadSelector` says otherwise.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "microservice.slime.io",
    version = "v1alpha1",
    kind = "ServiceFence",
    plural = "servicefences",
    shortname = "svf",
    category = "trimtab",
    namespaced,
    status = "FenceStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Narrows what the proxies of a workload know to the services that it calls.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(
        name = "Hosts",
        type_ = "integer",
        json_path = ".status.scope.services"
    ),
    printcolumn(
        name = "Mesh",
        type_ = "integer",
        json_path = ".status.scope.meshServices"
    ),
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
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].reason"
    ),
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
#[schemars(transform = schema::spec)]
pub struct ServiceFenceSpec {
    /// True: write a Sidecar. False: learn and report only; a Sidecar that was written is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable: bool,
    /// `Observe`, `Exclude`, `Enforce` or `Auto`; default: the operator's configuration. `enable: false` is always `Observe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Static dependencies by host, or `namespace/*` for all services of a namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1024))]
    pub host: BTreeMap<String, Strategy>,
    /// Namespaces whose services are all dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Vec<String>,
    /// Services that carry all labels of one of the selectors are dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub label_selector: Vec<LabelSelector>,
    /// Which pods; default: those with the label `app` (configurable) of the fence's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
}

/// How far a fence goes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Mode {
    /// Learn and report; write no Sidecar.
    Observe,
    /// Import everything but what is proven unused. Needs an Istio whose Sidecar knows exclusions: 1.31 or later.
    Exclude,
    /// Import only what is called.
    #[default]
    Enforce,
    /// `Exclude` first, `Enforce` once it is proven that nothing is missed, and back when calls out of scope rise.
    Auto,
}

impl Mode {
    /// The name as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "Observe",
            Self::Exclude => "Exclude",
            Self::Enforce => "Enforce",
            Self::Auto => "Auto",
        }
    }
}

/// For how long a static dependency holds. Nothing set: for ever.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::strategy)]
pub struct Strategy {
    /// The host stays in scope for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Stable>,
    /// Until a point in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// While it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoStrategy>,
    /// Deprecated: when the host was called last, for `auto`; the learned time counts when it is later.
    #[serde(
        default,
        rename = "RecentlyCalled",
        alias = "recentlyCalled",
        skip_serializing_if = "Option::is_none"
    )]
    pub recently_called: Option<ProtoTime>,
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stable {}

/// Holds until `expire`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deadline {
    /// Time at which the host leaves the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<ProtoTime>,
}

/// Holds while the last call is not older than `duration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AutoStrategy {
    /// How long the host stays in scope after its last call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<ProtoTime>,
}

/// A protobuf Timestamp or Duration as Go's JSON has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProtoTime {
    /// Seconds; of a point in time since 1970.
    #[serde(default)]
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 999_999_999))]
    pub nanos: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(nanos: &i32) -> bool {
    *nanos == 0
}

/// Labels that a Service must carry, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelSelector {
    /// Label keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1))]
    pub selector: BTreeMap<String, String>,
}

/// Which pods a fence is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Use the selector of the Service of the fence's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_service: bool,
    /// Labels that the pods must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
