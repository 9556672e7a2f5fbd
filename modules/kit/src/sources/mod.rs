//! Metric sources: where the numbers of expressions come from.
//!
//! A tick samples every limiter at once. The caller describes what each limiter's set of pods needs as a [`SampleRequest`], hands all demands to
//! each [`MetricSource`], and gets a [`Samples`]: per demand and metric name either a finite number or a [`Failure`] that says why there is
//! none. A source answers only for the names that it provides, so the samples of several sources can be merged; the first source in the
//! caller's order wins. What a missing value means in the next tick is decided by the [`Sampler`], never by a source.

mod fixed;
mod mds;
mod metrics_server;
mod pods;
mod prometheus;
mod sampler;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::prometheus::KeyError;

pub use fixed::{FixedSource, NamesOf};
pub use mds::{
    MdsConfig, MdsSource, MdsStore, Pushers as MdsPushers, Reach as MdsReach, proto as mds_proto,
    serve as mds_serve, well_known as mds_well_known,
};
pub use metrics_server::{MetricsServerConfig, MetricsServerSource};
pub use pods::PodsSource;
pub use prometheus::{
    Aggregate, Handler, HandlerType, Labels, OwnQueries, PrometheusConfig, PrometheusSource,
};
pub use sampler::{Freshness, Reading, Sampler};
use trimtab_mesh::model::Pod;
pub use trimtab_mesh::quantity::{QuantityError, parse_quantity};

/// The name of a metric as written in an expression, for example `cpu.max`.
pub type MetricName = String;

/// Why a metric has no usable value now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The source answered and knows no such series.
    Empty,
    /// The source answered with this many series where one value is needed.
    Multiple(usize),
    /// The value is NaN or infinite.
    NotFinite,
    /// The source did not answer in time.
    Timeout,
    /// The newest value is older than allowed.
    Stale,
    /// The value is dated later than now.
    Future,
    /// The source refused or could not be asked; the text says what to change.
    Error(String),
}

impl Failure {
    /// A bounded PascalCase reason for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "MetricEmpty",
            Self::Multiple(_) => "MetricMultipleSeries",
            Self::NotFinite => "MetricNotFinite",
            Self::Timeout => "MetricTimeout",
            Self::Stale => "MetricStale",
            Self::Future => "MetricFromFuture",
            Self::Error(_) => "MetricError",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no series; check that the query or the pushed name matches this namespace, service and its pods"),
            Self::Multiple(n) => write!(
                f,
                "{n} series where one is needed; aggregate in the query, for example `sum(...)`, or declare an `aggregate`"
            ),
            Self::NotFinite => f.write_str("the value is NaN or infinite; guard the query, for example against a division by zero"),
            Self::Timeout => f.write_str("the metric source did not answer in time; check its load or raise `timeout`"),
            Self::Stale => f.write_str("the newest sample is too old; check the scrape or the pusher, or raise `maxAge` or the time to live"),
            Self::Future => f.write_str("the newest sample is dated more than a minute ahead; compare the clocks of the metric source and of this pod"),
            Self::Error(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// One sample: a finite number, or the reason why there is none.
pub type Sample = Result<f64, Failure>;

/// Makes a sample of a raw number: NaN and the infinities become [`Failure::NotFinite`].
pub fn finite(value: f64) -> Sample {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Failure::NotFinite)
    }
}

/// Names one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a source may know about a pod without asking anybody.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// Name of the pod.
    pub name: Arc<str>,
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// Its workload, as Istio's telemetry names it; empty: not known.
    pub workload: Arc<str>,
    /// Whether the pod has the Ready condition.
    pub ready: bool,
    /// Sum of the containers' CPU requests, in cores, the proxy left out.
    pub cpu_request: Option<f64>,
    /// The same of the limits.
    pub cpu_limit: Option<f64>,
    /// Sum of the containers' memory requests, in bytes, the proxy left out.
    pub memory_request: Option<f64>,
    /// The same of the limits.
    pub memory_limit: Option<f64>,
}

impl PodFacts {
    /// Of a pod of the mesh.
    pub fn of(pod: &Pod) -> Self {
        let resources = pod.resources;
        Self {
            name: pod.name.clone(),
            namespace: pod.group.workload.namespace.clone(),
            workload: pod.group.workload.workload.clone(),
            ready: pod.ready,
            cpu_request: resources.cpu_request,
            cpu_limit: resources.cpu_limit,
            memory_request: resources.memory_request,
            memory_limit: resources.memory_limit,
        }
    }

    /// A pod of which only the name and readiness are known.
    pub fn new(namespace: &str, name: &str, ready: bool) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            workload: "".into(),
            ready,
            cpu_request: None,
            cpu_limit: None,
            memory_request: None,
            memory_limit: None,
        }
    }
}

/// Names a demand inside one tick. Chosen by the caller, opaque here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleRequestId(pub u32);

/// What one limiter's set of pods needs in this tick.
#[derive(Clone, Debug, Default)]
pub struct SampleRequest {
    /// Returned with each value.
    pub id: SampleRequestId,
    /// Name of the limiter.
    pub limiter: String,
    /// The limiter's set of pods.
    pub set: String,
    /// Namespace of the service and its pods.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// The pods of the set.
    pub pods: Arc<[PodFacts]>,
    /// The names that the limiter's expressions use. Names that a source does not provide are left to other sources.
    pub metrics: Vec<MetricName>,
    /// Queries declared by the limiter itself. A name here wins over a handler of the same name in the module configuration.
    pub custom: Vec<(MetricName, Handler)>,
    /// Queries of the module, the same for all demands that share this map, so that each is sent once. A configured handler of
    /// the same name wins.
    pub grouped: Arc<BTreeMap<MetricName, Handler>>,
    /// Whether the series behind each value are wanted too: [`Samples::rows`].
    pub rows: bool,
}

/// One series behind a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The pod that it is of; empty: it is of the service.
    pub pod: Arc<str>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// A finite number.
    pub value: f64,
}

impl SampleRequest {
    /// The limiter, for messages.
    pub(crate) fn limiter(&self) -> String {
        format!("SmartLimiter {}/{}", self.namespace, self.limiter)
    }
}

/// Result of one tick of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// One sample per demand and name that this source provides.
    pub values: BTreeMap<(SampleRequestId, MetricName), Sample>,
    /// The series behind the values of the demands that want them.
    pub rows: BTreeMap<(SampleRequestId, MetricName), Vec<Row>>,
    /// How many requests were made.
    pub queries: usize,
    /// How long the tick took.
    pub elapsed: Duration,
}

impl Samples {
    /// The sample of one demand and name; `None` when this source does not provide the name.
    pub fn get(&self, id: SampleRequestId, name: &str) -> Option<&Sample> {
        self.values.get(&(id, name.to_owned()))
    }

    /// How the names were answered, sorted by name.
    pub fn by_name(&self) -> Vec<Answered> {
        let mut out: BTreeMap<&str, Answered> = BTreeMap::new();
        for ((_, name), sample) in &self.values {
            let answered = out.entry(name).or_default();
            match sample {
                Ok(_) => answered.values += 1,
                // Services without series are many, also where one has another fault.
                Err(failure)
                    if answered
                        .failure
                        .as_ref()
                        .is_none_or(|f| *f == Failure::Empty) =>
                {
                    answered.failure = Some(failure.clone());
                }
                Err(_) => {}
            }
        }
        let named = out.into_iter();
        named
            .map(|(name, answered)| Answered {
                name: name.to_owned(),
                ..answered
            })
            .collect()
    }

    /// Adds what `other` has and `self` lacks, so that merging in the order of the sources lets the first one win.
    pub fn merge(&mut self, other: Self) {
        for (key, sample) in other.values {
            self.values.entry(key).or_insert(sample);
        }
        for (key, rows) in other.rows {
            self.rows.entry(key).or_insert(rows);
        }
        self.queries += other.queries;
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// How one name was answered in a tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answered {
    /// The name.
    pub name: MetricName,
    /// How many demands have a value.
    pub values: usize,
    /// Why another has none.
    pub failure: Option<Failure>,
}

/// How a source is doing, for the status page and readiness.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceHealth {
    /// Ticks in a row in which no request succeeded although some were made.
    pub consecutive_failures: u32,
    /// The newest error, kept until a tick without errors.
    pub last_error: Option<String>,
    /// When a request last succeeded.
    pub last_success: Option<SystemTime>,
    /// Requests made since the start.
    pub queries: u64,
    /// Requests that failed since the start.
    pub failed: u64,
    /// Warnings that came with usable answers since the start.
    pub warnings: u64,
}

impl SourceHealth {
    /// Whether the newest tick that asked anything got an answer.
    pub fn ok(&self) -> bool {
        self.consecutive_failures == 0
    }

    /// Accounts one tick.
    pub(crate) fn record(
        &mut self,
        queries: u64,
        failed: u64,
        warnings: u64,
        error: Option<String>,
    ) {
        self.queries += queries;
        self.failed += failed;
        self.warnings += warnings;
        if queries == 0 {
            return;
        }
        if failed < queries {
            self.consecutive_failures = 0;
            self.last_success = Some(SystemTime::now());
        } else {
            self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        }
        self.last_error = error;
    }
}

/// A place that numbers come from.
#[async_trait]
pub trait MetricSource: Send + Sync {
    /// Stable name for logs, metrics and status.
    fn name(&self) -> &str;
    /// The names that can be used in expressions, sorted, derived names included.
    fn provides(&self) -> Vec<MetricName>;
    /// Samples everything that the demands name and this source provides. Never fails as a whole and always ends within the time-outs of the
    /// source.
    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples;
    /// Whether its values stand for queries that limiters declare themselves, too.
    fn overrides_queries(&self) -> bool {
        false
    }
    /// Where the value of a name comes from, for people.
    fn origin(&self, _name: &str) -> String {
        self.name().to_owned()
    }
    /// How the source is doing.
    fn health(&self) -> SourceHealth;
    /// How the names were answered in the newest tick, where the source keeps it.
    fn answered(&self) -> Vec<Answered> {
        Vec::new()
    }
}

/// A source that cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A key of the section of Prometheus cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A field has a value out of its range.
    #[error("metric source {source_name}: {field} {problem}; {fix}")]
    Field {
        /// The source.
        source_name: &'static str,
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        fix: String,
    },
}

/// How the numbers of several pods become one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct QueryCounts {
    count: usize,
    sum: f64,
    min: f64,
    max: f64,
    infinite: bool,
    nan: usize,
}

impl QueryCounts {
    /// Adds one number. NaN is what an idle pod's ratio is, so it counts as no data for that pod; an infinity is a broken value that must not be
    /// hidden by the other pods.
    pub(crate) fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.nan += 1;
            return;
        }
        if value.is_infinite() {
            self.infinite = true;
            return;
        }
        if self.count == 0 {
            self.min = value;
            self.max = value;
        } else {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
        self.count += 1;
        self.sum += value;
    }

    /// The aggregate, or why there is none.
    pub(crate) fn finish(&self, aggregate: Aggregate) -> Sample {
        if self.infinite {
            return Err(Failure::NotFinite);
        }
        if aggregate == Aggregate::Count {
            return Ok(self.count as f64);
        }
        if self.count == 0 {
            return Err(if self.nan > 0 {
                Failure::NotFinite
            } else {
                Failure::Empty
            });
        }
        finite(match aggregate {
            Aggregate::Avg => self.sum / self.count as f64,
            Aggregate::Sum => self.sum,
            Aggregate::Max => self.max,
            Aggregate::Min => self.min,
            Aggregate::Count => self.count as f64,
        })
    }
}
