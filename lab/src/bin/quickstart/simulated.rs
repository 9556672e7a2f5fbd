//! The scenario without Envoy and Prometheus: metrics and answers are computed, decisions are real.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trimtab_kit::sources::{MetricName, MetricSource, SampleRequest, Samples, SourceHealth};

use crate::report::Traffic;
use crate::scenario::{CAPACITY, Scenario};

pub(super) struct Simulated {
    scenario: Scenario,
    cpu: Arc<Mutex<f64>>,
}

impl Simulated {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            cpu: Arc::default(),
        }
    }

    pub fn source(&self) -> Arc<dyn MetricSource> {
        Arc::new(SimulatedCpu(self.cpu.clone()))
    }

    /// Computes one second and sets the CPU that the next sample sees.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small positive counts
    pub fn second(&mut self, second: u64, pods: i64, quota: Option<i64>) -> Traffic {
        let offered = self.scenario.rate(Duration::from_secs(second));
        let pods = pods.max(1) as f64;
        let accepted = quota.map_or(offered, |q| offered.min(q as f64 * pods));
        *self.cpu.lock() = accepted / pods / CAPACITY;
        Traffic {
            offered: offered as u64,
            accepted: accepted as u64,
            limited: (offered - accepted) as u64,
            failed: 0,
        }
    }
}

struct SimulatedCpu(Arc<Mutex<f64>>);

#[async_trait::async_trait]
impl MetricSource for SimulatedCpu {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn provides(&self) -> Vec<MetricName> {
        vec!["cpu".to_owned()]
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let value = *self.0.lock();
        Samples {
            values: sample_requests
                .iter()
                .map(|d| ((d.id, "cpu".to_owned()), Ok(value)))
                .collect(),
            ..Samples::default()
        }
    }

    fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}
