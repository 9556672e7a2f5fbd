//! CPU and memory from the resource metrics API (`metrics.k8s.io/v1beta1`).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::AsyncReadExt as _;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Request;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use trimtab_mesh::model::PROXY;

use super::{
    Aggregate, Failure, MetricName, MetricSource, PodFacts, QueryCounts, Sample, SampleRequest,
    Samples, SourceError, SourceHealth, finite, parse_quantity,
};
use crate::prometheus::{AnswerBudget, Held};

const PATH: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const PAGE: u32 = 5000;
/// A server that hands out continue tokens for ever must not hold the tick for ever.
const MOST_PAGES: usize = 1000;
/// What is read at once, and what a pod costs in memory, about, both in bytes.
const CHUNK: usize = 16 << 10;
const POD_COST: usize = 192;
/// How far the clock of metrics-server may be ahead.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
const NAMES: [&str; 6] = [
    "cpu",
    "cpu.cores",
    "cpu.max",
    "memory",
    "memory.bytes",
    "memory.max",
];

/// How to ask the resource metrics API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricsServerConfig {
    /// Time limit of one page. Default 5s.
    pub timeout: trimtab_crds::Duration,
    /// Pod metrics older than this are not used. Default 3m.
    pub max_age: trimtab_crds::Duration,
    /// The largest page that is read, in bytes. Default 16 MiB, some 30,000 pods.
    pub max_bytes: usize,
}

impl Default for MetricsServerConfig {
    fn default() -> Self {
        Self {
            timeout: trimtab_crds::Duration::from_secs(5),
            max_age: trimtab_crds::Duration::from_secs(180),
            max_bytes: 16 << 20,
        }
    }
}

/// Provides `cpu`, `cpu.cores`, `cpu.max`, `memory`, `memory.bytes` and `memory.max` over the Ready pods of a demand.
///
/// `cpu` and `memory` are the used share of what the pods asked for: of the request, or of the limit of a pod without a
/// request. The container of the proxy counts neither as used nor as asked for.
pub struct MetricsServerSource {
    client: kube::Client,
    config: MetricsServerConfig,
    budget: AnswerBudget,
    health: Mutex<SourceHealth>,
}

#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: ObjectName,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct ObjectName {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: Usage,
}

#[derive(Default, Deserialize)]
struct Usage {
    cpu: Option<String>,
    memory: Option<String>,
}

/// What one pod uses now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Used {
    cores: Option<f64>,
    bytes: Option<f64>,
    at: Option<Timestamp>,
}

/// By namespace, then by name, so that a lookup borrows.
type UsedByPod = HashMap<String, HashMap<String, Used>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Cpu,
    Memory,
}

impl MetricsServerSource {
    /// A source that asks through `client`.
    pub fn new(client: kube::Client, config: MetricsServerConfig) -> Result<Self, SourceError> {
        for (name, value) in [("timeout", config.timeout), ("maxAge", config.max_age)] {
            if value.is_zero() {
                return Err(SourceError::Field {
                    source_name: "metrics-server",
                    field: name.to_owned(),
                    problem: "is 0s".to_owned(),
                    fix: "write a duration above 0s".to_owned(),
                });
            }
        }
        Ok(Self {
            client,
            config,
            budget: AnswerBudget::default(),
            health: Mutex::new(SourceHealth::default()),
        })
    }

    /// The same with a budget for answers that others use, too.
    #[must_use]
    pub fn with_budget(mut self, budget: AnswerBudget) -> Self {
        self.budget = budget;
        self
    }

    /// Reads one page within bounds.
    async fn page(&self, request: axum::http::Request<Vec<u8>>) -> Result<PodMetricsList, Failure> {
        let most = self.config.max_bytes;
        let body = self.client.request_stream(request).await;
        let mut body = body.map_err(|e| explain(&e))?.take(most as u64 + 1);
        let mut text = Vec::new();
        let mut held = self.budget.open(None);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = body.read(&mut chunk).await;
            let read = read.map_err(|e| Failure::Error(format!("{PATH} broke off: {e}")))?;
            if text.len() + read > most {
                return Err(Failure::Error(format!(
                    "a page of {PATH} has more than {most} bytes; raise metrics.metricsServer.maxBytes"
                )));
            }
            if !held.grow(read) {
                return Err(full());
            }
            text.extend_from_slice(&chunk[..read]);
            if read == 0 {
                break;
            }
        }
        serde_json::from_slice(&text).map_err(|e| {
            Failure::Error(format!(
                "{PATH} cannot be read: {e}; check metrics-server and its APIService"
            ))
        })
    }

    async fn list(&self, queries: &mut usize, held: &mut Held) -> Result<UsedByPod, Failure> {
        let mut used = UsedByPod::new();
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut params = ListParams::default().limit(PAGE);
            params.continue_token.clone_from(&token);
            let request = Request::new(PATH)
                .list(&params)
                .map_err(|e| Failure::Error(format!("{PATH}: {e}")))?;
            *queries += 1;
            let page = tokio::time::timeout(*self.config.timeout, self.page(request))
                .await
                .map_err(|_| Failure::Timeout)??;
            let texts = page.items.iter().map(|pod| pod.metadata.name.len());
            if !held.grow(texts.map(|text| POD_COST + text).sum()) {
                return Err(full());
            }
            for pod in page.items {
                let value = pod.used();
                used.entry(pod.metadata.namespace)
                    .or_default()
                    .insert(pod.metadata.name, value);
            }
            token = page.metadata.token.filter(|t| !t.is_empty());
            if token.is_none() {
                return Ok(used);
            }
        }
        Err(Failure::Error(format!(
            "{PATH} gave more than {MOST_PAGES} pages; check the metrics API server"
        )))
    }
}

impl PodMetrics {
    fn used(&self) -> Used {
        Used {
            cores: self.total(|u| u.cpu.as_deref()),
            bytes: self.total(|u| u.memory.as_deref()),
            at: self.timestamp,
        }
    }

    /// The sum over the containers, the proxy left out unless there is nothing else, as in a gateway's pods; none when a
    /// container's usage is missing or unreadable, because a part is not the whole.
    fn total(&self, pick: impl Fn(&Usage) -> Option<&str>) -> Option<f64> {
        if self.containers.is_empty() {
            return None;
        }
        let only = self.containers.len() == 1;
        let counted = self.containers.iter();
        counted
            .filter(|c| only || c.name != PROXY)
            .map(|c| pick(&c.usage).and_then(|text| parse_quantity(text).ok()))
            .sum()
    }
}

fn full() -> Failure {
    Failure::Error(format!(
        "{PATH} gives more than the memory for all answers under way has room for"
    ))
}

fn explain(error: &kube::Error) -> Failure {
    let text = match error {
        kube::Error::Api(status) if status.code == 404 || status.code == 503 => format!(
            "the resource metrics API is not served ({} {}); install metrics-server or remove the metrics-server source",
            status.code, status.message
        ),
        kube::Error::Api(status) if status.code == 403 || status.code == 401 => format!(
            "reading {PATH} is forbidden ({}); grant list on pods.metrics.k8s.io to the service account",
            status.message
        ),
        other => format!("{PATH} cannot be read: {other}; check metrics-server and its APIService"),
    };
    Failure::Error(text)
}

/// Why usage of a time does not count.
fn dated(at: Timestamp, now: Timestamp, max_age: Duration) -> Option<Failure> {
    let age = now.duration_since(at);
    if age.is_positive() && age.unsigned_abs() > max_age {
        return Some(Failure::Stale);
    }
    (age < -AHEAD).then_some(Failure::Future)
}

/// The value of one name for one demand. Pure.
fn value(
    name: &str,
    used: &UsedByPod,
    sample_request: &SampleRequest,
    now: Timestamp,
    max_age: Duration,
) -> Sample {
    let resource = if name.starts_with("cpu") {
        Resource::Cpu
    } else {
        Resource::Memory
    };
    let (mut usage, mut bound, mut fractions) = (
        QueryCounts::default(),
        QueryCounts::default(),
        QueryCounts::default(),
    );
    let (mut misdated, mut fresh) = (Vec::new(), 0usize);
    for pod in sample_request.pods.iter().filter(|p| p.ready) {
        // A pod that just started is not measured yet, and counts on neither side of the fraction.
        let Some(metrics) = used
            .get(pod.namespace.as_ref())
            .and_then(|pods| pods.get(pod.name.as_ref()))
        else {
            continue;
        };
        let Some(amount) = resource.of(metrics) else {
            continue;
        };
        if let Some(failure) = metrics.at.and_then(|at| dated(at, now, max_age)) {
            misdated.push(failure);
            continue;
        }
        fresh += 1;
        if let Some(limit) = resource.bound(pod) {
            usage.add(amount);
            bound.add(limit);
            fractions.add(amount / limit);
        } else if matches!(name, "cpu.cores" | "memory.bytes") {
            usage.add(amount);
        }
    }
    if fresh == 0 {
        return Err(misdated.into_iter().next().unwrap_or(Failure::Empty));
    }
    match name {
        "cpu.cores" | "memory.bytes" => usage.finish(Aggregate::Sum),
        _ if fractions.finish(Aggregate::Count) == Ok(0.0) => {
            Err(no_bound(name, resource, sample_request))
        }
        "cpu.max" | "memory.max" => fractions.finish(Aggregate::Max),
        _ => usage
            .finish(Aggregate::Sum)
            .and_then(|u| bound.finish(Aggregate::Sum).and_then(|b| finite(u / b))),
    }
}

fn no_bound(name: &str, resource: Resource, sample_request: &SampleRequest) -> Failure {
    let (word, absolute) = match resource {
        Resource::Cpu => ("cpu", "cpu.cores"),
        Resource::Memory => ("memory", "memory.bytes"),
    };
    Failure::Error(format!(
        "{name} is a fraction, but no measured pod of {}/{} has a {word} request or limit; set resources.requests.{word} on its containers, or use {absolute}",
        sample_request.namespace, sample_request.service
    ))
}

impl Resource {
    fn of(self, used: &Used) -> Option<f64> {
        match self {
            Self::Cpu => used.cores,
            Self::Memory => used.bytes,
        }
    }

    fn bound(self, pod: &PodFacts) -> Option<f64> {
        let (request, limit) = match self {
            Self::Cpu => (pod.cpu_request, pod.cpu_limit),
            Self::Memory => (pod.memory_request, pod.memory_limit),
        };
        let positive = |v: &f64| v.is_finite() && *v > 0.0;
        request.filter(positive).or(limit.filter(positive))
    }
}

#[async_trait]
impl MetricSource for MetricsServerSource {
    fn name(&self) -> &'static str {
        "metrics-server"
    }

    fn provides(&self) -> Vec<MetricName> {
        NAMES.map(str::to_owned).to_vec()
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let start = Instant::now();
        let mut wants: Vec<(&SampleRequest, &str)> = Vec::new();
        for sample_request in sample_requests {
            wants.extend(
                sample_request
                    .metrics
                    .iter()
                    .filter(|m| NAMES.contains(&m.as_str()))
                    .map(|m| (sample_request, m.as_str())),
            );
        }
        if wants.is_empty() {
            return Samples {
                elapsed: start.elapsed(),
                ..Samples::default()
            };
        }
        let mut queries = 0;
        let mut held = self.budget.open(None);
        let used = self.list(&mut queries, &mut held).await;
        let error = used.as_ref().err().map(ToString::to_string);
        let failed = u64::from(error.is_some());
        // A tick is one list, however many pages it has: a broken page fails the tick.
        self.health.lock().record(1, failed, 0, error);
        let now = Timestamp::now();
        let mut values = BTreeMap::new();
        for (sample_request, name) in wants {
            let sample = match &used {
                Ok(used) => value(name, used, sample_request, now, *self.config.max_age),
                Err(failure) => Err(failure.clone()),
            };
            values.insert((sample_request.id, name.to_owned()), sample);
        }
        Samples {
            values,
            queries,
            elapsed: start.elapsed(),
            ..Samples::default()
        }
    }

    fn health(&self) -> SourceHealth {
        self.health.lock().clone()
    }
}

#[cfg(test)]
mod tests;
