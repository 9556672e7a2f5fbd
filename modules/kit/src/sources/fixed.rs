//! Sources without a network: values of the command line, and the names of sources that are not asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Failure, MetricName, MetricSource, SampleRequest, Samples, SourceHealth, finite};

/// Values by `NAME` or `SET.NAME`, e.g. `cpu` and `_base.cpu`; `pod` stands for the number of pods.
#[derive(Clone, Debug, Default)]
pub struct FixedSource(BTreeMap<String, f64>);

impl FixedSource {
    /// A source that always has these values.
    pub fn new(values: BTreeMap<String, f64>) -> Self {
        Self(values)
    }
}

#[async_trait]
impl MetricSource for FixedSource {
    fn name(&self) -> &'static str {
        "command line"
    }

    fn provides(&self) -> Vec<MetricName> {
        let mut names: Vec<MetricName> = self.0.keys().cloned().collect();
        let of_base = self.0.keys().filter_map(|n| n.strip_prefix("_base."));
        names.extend(of_base.map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    fn overrides_queries(&self) -> bool {
        true
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let mut out = Samples::default();
        for sample_request in sample_requests {
            for name in &sample_request.metrics {
                let of_set = self.0.get(&format!("{}.{name}", sample_request.set));
                if let Some(value) = of_set.or_else(|| self.0.get(name)) {
                    let sample = finite(*value);
                    out.values.insert((sample_request.id, name.clone()), sample);
                }
            }
        }
        out
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}

/// The names of a source, which is not asked: what it would know is a failure that says how to give the value.
pub struct NamesOf(pub Arc<dyn MetricSource>);

#[async_trait]
impl MetricSource for NamesOf {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn provides(&self) -> Vec<MetricName> {
        self.0.provides()
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let mut out = Samples::default();
        let provided = self.0.provides();
        for sample_request in sample_requests {
            let own = |name: &String| sample_request.custom.iter().any(|(own, _)| own == name);
            let grouped = |name: &String| sample_request.grouped.contains_key(name);
            let known = |name: &&String| provided.contains(*name) || own(name) || grouped(name);
            for name in sample_request.metrics.iter().filter(known) {
                let failure = Failure::Error(format!("no value: write --metric {name}=VALUE"));
                out.values
                    .insert((sample_request.id, name.clone()), Err(failure));
            }
        }
        out
    }

    fn health(&self) -> SourceHealth {
        self.0.health()
    }
}
