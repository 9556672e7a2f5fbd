//! What the JSON API and the status page show of a limiter.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use trimtab_crds::limiter::{DescriptorStatus, Target};
use trimtab_mesh::names::full_host;

use super::entry::Entry;
use crate::input::Reading;

/// One limiter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
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
    /// Whose requests it limits.
    pub target: TargetView,
    /// One for each descriptor.
    pub descriptors: Vec<DescriptorStatus>,
    /// One for each descriptor with a limit in force.
    pub limits: Vec<LimitView>,
    /// Values by `<set>.<metric>`.
    pub metrics: BTreeMap<String, Reading>,
    /// The newest points, oldest first; only where one limiter is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Point>,
}

/// Whose requests a limiter limits, as Istio's telemetry names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TargetView {
    /// Who reports the requests: `destination`, the proxy of the service, or `source`, a gateway or the proxy of the caller.
    pub reporters: BTreeSet<String>,
    /// Host of the Service or ServiceEntry; absent: the pods are those with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Workloads of the pods, as `namespace/workload`.
    pub workloads: BTreeSet<String>,
}

/// A limit in force.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitView {
    /// `_base` or the subset.
    pub set: String,
    /// Index of the descriptor in the set.
    pub index: i32,
    /// Requests per interval and pod.
    pub requests: i64,
    /// The interval, e.g. `60s`.
    pub interval: String,
    /// Requests per second and pod.
    pub per_second: f64,
}

impl LimiterView {
    /// Whether a rule of it is refused, or can be on no proxy.
    pub fn is_broken(&self) -> bool {
        ["Refused", "NoProxy"].contains(&self.state.as_str())
    }

    pub(super) fn fill_host(&mut self, domain: &str) {
        let namespace = &self.namespace;
        let host = self.target.host.as_mut();
        if let Some(host) = host {
            *host = full_host(host, namespace, domain);
        }
    }
}

impl Entry {
    /// Limits in force.
    pub(super) fn limits(&self) -> Vec<LimitView> {
        let limit = |d: &DescriptorStatus| {
            let rule = self.validated.rules.iter();
            let mut rule = rule
                .filter(|c| c.set == d.set && i32::try_from(c.index) == Ok(d.index))
                .filter_map(|c| c.in_force());
            let interval = d
                .interval
                .or(rule.next()?.descriptor.action.fill_interval)?;
            let seconds = interval.seconds as f64 + f64::from(interval.nanos) / 1e9;
            let requests = d.quota?;
            Some(LimitView {
                set: d.set.clone(),
                index: d.index,
                requests,
                interval: interval.to_proto_json(),
                per_second: requests as f64 / seconds,
            })
        };
        self.decisions.iter().filter_map(limit).collect()
    }

    pub(super) fn target(&self) -> TargetView {
        let spec = &self.input.spec;
        let descriptors = spec.sets.values().flatten();
        let targets = descriptors.map(|d| d.target.as_ref().or(spec.target.as_ref()));
        let reporter = |target: Option<&Target>| {
            let source = spec.gateway || target.is_some_and(Target::is_outbound);
            if source { "source" } else { "destination" }.to_owned()
        };
        let pods = self.pods.values().flat_map(|pods| pods.iter());
        let pods = pods.filter(|pod| !pod.workload.is_empty());
        let by_labels = spec.gateway || !spec.workload_selector.is_empty();
        TargetView {
            reporters: targets.map(reporter).collect(),
            host: (!by_labels)
                .then(|| spec.host.as_ref().unwrap_or(&self.input.owner.name).clone()),
            workloads: pods
                .map(|pod| format!("{}/{}", pod.namespace, pod.workload))
                .collect(),
        }
    }
}

/// A point as the engine keeps it: 12 bytes, since every limiter has a history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    at: u32,
    /// NaN = no limit.
    limit: f32,
    /// NaN = none.
    metric: f32,
}

impl Dot {
    #[allow(clippy::cast_possible_truncation)] // a plot needs no more digits
    pub fn new(at: i64, limit: Option<f64>, metric: Option<f64>) -> Self {
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            limit: limit.map_or(f32::NAN, |l| l as f32),
            metric: metric.map_or(f32::NAN, |m| m as f32),
        }
    }

    pub fn is_at(self, at: i64) -> bool {
        i64::from(self.at) == at
    }

    pub fn point(&self) -> Point {
        // Through text: 0.9 stays 0.9, where a cast gives 0.8999999761581421.
        let number = |value: f32| {
            let text = (!value.is_nan()).then(|| value.to_string());
            text.and_then(|text| text.parse().ok())
        };
        Point {
            at: i64::from(self.at),
            limit_per_second: number(self.limit),
            metric: number(self.metric),
        }
    }
}

/// One point of a limiter's history.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Unix time in seconds.
    pub at: i64,
    /// Smallest limit in force, in requests per second and pod; null: there is none.
    pub limit_per_second: Option<f64>,
    /// The first metric in use; null: there is no value.
    pub metric: Option<f64>,
}
