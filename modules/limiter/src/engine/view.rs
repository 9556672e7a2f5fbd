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
    /// `True`, `False` or `Unknown`: the condition Ready.
    pub ready: String,
    /// The same of the condition Programmed.
    pub programmed: String,
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

impl LimiterView {
    /// Whether a rule of it is refused, or can be on no proxy.
    pub fn is_broken(&self) -> bool {
        ["Refused", "NoProxy"].contains(&self.state.as_str())
    }
}

/// A point as the engine keeps it: 12 bytes, since every limiter has a history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    at: u32,
    /// `u32::MAX` = no limit; a quota of that size is shown one smaller.
    limit: u32,
    /// NaN = none.
    metric: f32,
}

impl Dot {
    #[allow(clippy::cast_possible_truncation)] // a plot needs no more digits
    pub fn new(at: i64, limit: Option<i64>, metric: Option<f64>) -> Self {
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            limit: limit.map_or(u32::MAX, |l| u32::try_from(l).unwrap_or(u32::MAX - 1)),
            metric: metric.map_or(f32::NAN, |m| m as f32),
        }
    }

    pub fn is_at(self, at: i64) -> bool {
        i64::from(self.at) == at
    }

    pub fn point(&self) -> Point {
        // Through text: 0.9 stays 0.9, where a cast gives 0.8999999761581421.
        let metric = (!self.metric.is_nan())
            .then(|| self.metric.to_string().parse().ok())
            .flatten();
        Point {
            at: i64::from(self.at),
            limit: (self.limit != u32::MAX).then_some(i64::from(self.limit)),
            metric,
        }
    }
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
