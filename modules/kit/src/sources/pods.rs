//! Pod counts: the one metric that needs no query.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Demand, Harvest, MetricName, MetricSource, SourceHealth};

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

    async fn harvest(&self, demands: &[Demand]) -> Harvest {
        let mut values = BTreeMap::new();
        for demand in demands
            .iter()
            .filter(|d| d.metrics.iter().any(|m| m == POD))
        {
            let ready = demand.pods.iter().filter(|p| p.ready).count();
            values.insert((demand.id, POD.to_owned()), Ok(ready as f64));
        }
        Harvest {
            values,
            ..Harvest::default()
        }
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}
