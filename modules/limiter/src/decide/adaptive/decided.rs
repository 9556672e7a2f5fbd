//! What the law has decided, as it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trimtab_crds::limiter::{AdaptiveStatus, DescriptorState, DescriptorStatus};
use trimtab_law::Decision;

/// What the law has decided for one set of pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decided {
    /// For all requests of the set.
    pub status: AdaptiveStatus,
    /// Limits of tiers by the index of their descriptor, in requests per second over all pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, f64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Nothing has been measured yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
}

impl Decided {
    /// A decision of the law for `pods` Ready pods.
    pub fn of(decision: &Decision, pods: i64) -> Self {
        let outputs = &decision.outputs;
        #[allow(clippy::cast_possible_truncation)] // seconds
        let millis = outputs.bucket_s.map(|s| (s * 1000.0).round() as i64);
        Self {
            status: AdaptiveStatus {
                state: decision.state.clone(),
                limit: outputs.limit,
                pods: Some(pods),
                slow_pods: outputs.per_pod.clone(),
                bucket_millis: millis,
                ..AdaptiveStatus::default()
            },
            tiers: outputs.per_api.clone(),
            reason: decision.reason.clone(),
            unmeasured: false,
        }
    }

    /// What an earlier run decided for a set, by its statuses; none: nothing.
    pub fn restored(set: &str, decisions: &[DescriptorStatus]) -> Option<Self> {
        let of_set = || decisions.iter().filter(|d| d.set == set);
        let main = of_set().find(|d| d.adaptive.as_ref().is_some_and(|a| a.pods.is_some()))?;
        let tiers = of_set()
            .filter(|d| d.index != main.index)
            .filter_map(|d| Some((d.index.to_string(), d.adaptive.as_ref()?.limit?)));
        Some(Self {
            status: main.adaptive.clone()?,
            tiers: tiers.collect(),
            reason: main.reason.clone(),
            unmeasured: main.state == DescriptorState::Unknown,
        })
    }
}

/// Whether a state of the law refuses what is above the capacity.
pub(crate) fn sheds(status: &AdaptiveStatus) -> bool {
    matches!(status.state.as_str(), "Draining" | "Limiting")
}
