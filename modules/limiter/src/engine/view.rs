//! What the JSON API and the status page show of a limiter.

use std::collections::BTreeMap;

use serde::Serialize;
use trimtab_crds::limiter::DescriptorStatus;

use crate::input::Reading;

/// One limiter.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimiterView {
    /// API version of the object.
    pub api_version: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The value in force, e.g. `10/1s per pod`.
    pub limit: String,
    /// Strategies in use.
    pub strategy: String,
    /// Summary state.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Ready pods of the target.
    pub pods: i64,
    /// One for each descriptor.
    pub descriptors: Vec<DescriptorStatus>,
    /// Values by `<set>.<metric>`.
    pub metrics: BTreeMap<String, Reading>,
    /// The newest points, oldest first.
    pub history: Vec<Point>,
}

/// One point of a limiter's history.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Unix time in seconds.
    pub at: i64,
    /// Smallest quota in force, per pod.
    pub limit: Option<i64>,
    /// The first metric in use.
    pub metric: Option<f64>,
}
