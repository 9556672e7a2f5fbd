//! A metric source that notes what its ticks cost.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use trimtab_kit::sources::{MetricName, MetricSource, SampleRequest, Samples, SourceHealth};

use crate::usage;

/// One tick.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// When the source was asked.
    pub at: Instant,
    /// CPU time of the process until then.
    pub cpu: Duration,
    /// How long the source took.
    pub wall: Duration,
    /// Queries to Prometheus.
    pub queries: usize,
    /// Demands in the tick.
    pub sample_requests: usize,
}

/// Wraps a source.
pub struct Probe<S> {
    inner: S,
    ticks: Mutex<Vec<Tick>>,
}

impl<S> std::fmt::Debug for Probe<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("ticks", &self.ticks.lock().len())
            .finish_non_exhaustive()
    }
}

impl<S> Probe<S> {
    /// Notes the ticks of `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            ticks: Mutex::default(),
        }
    }

    /// The ticks so far.
    pub fn ticks(&self) -> Vec<Tick> {
        self.ticks.lock().clone()
    }
}

#[async_trait]
impl<S: MetricSource> MetricSource for Probe<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn provides(&self) -> Vec<MetricName> {
        self.inner.provides()
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let (at, cpu) = (Instant::now(), usage::process_cpu());
        let samples = self.inner.sample(sample_requests).await;
        self.ticks.lock().push(Tick {
            at,
            cpu,
            wall: at.elapsed(),
            queries: samples.queries,
            sample_requests: sample_requests.len(),
        });
        samples
    }

    fn health(&self) -> SourceHealth {
        self.inner.health()
    }
}

/// CPU time of each whole period between two of the last `count` + 1 ticks: sampling, deciding, and whatever else went on.
pub fn cpu_per_period(ticks: &[Tick], count: usize) -> Vec<Duration> {
    let tail = ticks
        .get(ticks.len().saturating_sub(count + 1)..)
        .unwrap_or_default();
    tail.windows(2)
        .map(|pair| pair[1].cpu.saturating_sub(pair[0].cpu))
        .collect()
}
