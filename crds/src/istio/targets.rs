//! Which workloads, Services and gateways Istio's policies are for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{open_items, open_object};

/// The fields that say what a policy or an extension is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargets {
    /// Labels of the workloads in `matchLabels`, as JSON; absent: all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub selector: Option<Value>,
    /// Gateways and Services that it is for, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_items")]
    pub target_refs: Vec<Value>,
    /// One such target, as older releases have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub target_ref: Option<Value>,
}

impl PolicyTargets {
    /// The gateways and Services, however they are written.
    pub fn references(&self) -> impl Iterator<Item = &Value> {
        self.target_refs.iter().chain(&self.target_ref)
    }

    /// The labels that select workloads; empty: all of the namespace.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.selector.as_ref().and_then(|s| s.get("matchLabels"));
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        labels.collect()
    }

    /// The labels of the sidecars that it is for; `None`: it is for gateways or Services, so for no sidecar.
    pub fn of_sidecars(&self) -> Option<BTreeMap<String, String>> {
        self.references().next().is_none().then(|| self.labels())
    }
}
