//! Pod counts: the one metric that needs no query.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{MetricName, MetricSource, SampleRequest, Samples, SourceHealth};

const POD: &str = "pod";

/// Provides `pod`, the number of Ready pods of the demand. Zero is a value, so a service scaled to nothing is seen as such.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodsSource;

#[async_trait]
impl MetricSource for PodsSource {
    fn name(&self) -> &'static str {
        "pods"
    }

    fn provides(&self) -> Vec<MetricName> {
        vec![POD.to_owned()]
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let mut values = BTreeMap::new();
        for sample_request in sample_requests
            .iter()
            .filter(|d| d.metrics.iter().any(|m| m == POD))
        {
            let ready = sample_request.pods.iter().filter(|p| p.ready).count();
            values.insert((sample_request.id, POD.to_owned()), Ok(ready as f64));
        }
        Samples {
            values,
            ..Samples::default()
        }
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}
