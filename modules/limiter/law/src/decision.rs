//! What the law answers at one tick.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits, in requests per second. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outputs {
    /// Limit of the service, shared equally by its ready pods.
    pub limit: Option<f64>,
    /// Limits of single pods, in place of their share of `limit`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_pod: BTreeMap<String, f64>,
    /// Further limits of single APIs, over all pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_api: BTreeMap<String, f64>,
    /// Time that a full bucket lasts at its rate, in seconds: how many tokens it holds.
    pub bucket_s: Option<f64>,
}

/// The decision of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Time of the tick that was answered.
    pub t: f64,
    /// The limits that should be in force from now on.
    #[serde(flatten)]
    pub outputs: Outputs,
    /// What the law is doing: one word.
    pub state: String,
    /// Why, with the values that led to it.
    pub reason: String,
}
