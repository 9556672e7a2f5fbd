//! Learning from Istio's telemetry in Prometheus.
//!
//! Two grouped queries for the mesh, one for HTTP and one for TCP, whatever its size. A counter that has moved is a call.
//! A caller whose own proxy's telemetry is there in two complete answers, one after the other, was watched in between:
//! only then do its other edges age.

mod counters;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::Clock;
use trimtab_kit::prometheus::{Answer, AnswerBudget, AskError, Client, KeyError};

use super::{Rules, SkipCounters, Skipped};
use crate::config::{PROMETHEUS, PrometheusLearning};
use crate::edges::EdgeStore;
use crate::object::Directory;
use counters::{Counters, Window};

/// Query for HTTP calls unless one is configured.
pub const REQUESTS: &str = "sum by (source_workload, source_workload_namespace, destination_service, \
     destination_service_namespace, reporter) (istio_requests_total)";
/// Query for TCP connections unless one is configured.
pub const CONNECTIONS: &str = "sum by (source_workload, source_workload_namespace, destination_service, \
     destination_service_namespace, reporter) (istio_tcp_connections_opened_total)";

const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// Label with the workload that calls.
const CALLER: &str = "source_workload";
/// How many characters of warnings are shown.
const SHOWN: usize = 300;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What was asked and learned since the start.
#[derive(Debug, Default)]
pub struct PrometheusStats {
    queries: AtomicU64,
    failures: AtomicU64,
    series: AtomicU64,
    observed_calls: AtomicU64,
    new_edges: AtomicU64,
    windows: AtomicU64,
    watched: AtomicU64,
    skipped: SkipCounters,
    error: Mutex<Option<String>>,
}

impl PrometheusStats {
    /// Queries sent.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Queries that got no answer that can be used.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Series of the last answers.
    pub fn series(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    /// Calls that were seen.
    pub fn observed_calls(&self) -> u64 {
        self.observed_calls.load(Ordering::Relaxed)
    }

    /// Edges that were new.
    pub fn new_edges(&self) -> u64 {
        self.new_edges.load(Ordering::Relaxed)
    }

    /// Pairs of complete answers, one after the other.
    pub fn windows(&self) -> u64 {
        self.windows.load(Ordering::Relaxed)
    }

    /// Callers that were watched in the last of them.
    pub fn watched(&self) -> u64 {
        self.watched.load(Ordering::Relaxed)
    }

    /// Series that told nothing, by reason.
    pub fn skipped(&self) -> Skipped {
        self.skipped.get()
    }

    /// What is wrong now.
    pub fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }

    fn report(&self, error: Option<String>) {
        let mut last = self.error.lock();
        if *last == error {
            return;
        }
        if let Some(error) = &error {
            tracing::warn!(
                error,
                "lazyload.learn.prometheus: nothing expires until this is repaired"
            );
        } else {
            tracing::info!("lazyload.learn.prometheus: answers are complete again");
        }
        *last = error;
    }
}

/// What the learner needs of its host.
#[derive(Clone)]
pub struct Backend {
    /// Who is who in the mesh.
    pub directory: Arc<dyn Directory>,
    /// What is not a dependency although it is called.
    pub rules: Rules,
    /// Where calls are kept.
    pub store: Arc<EdgeStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Memory for answers.
    pub answers: AnswerBudget,
    /// What the learner counts.
    pub stats: Arc<PrometheusStats>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

/// Asks until `shutdown`. Fails at once if the configuration is wrong; an address that does not answer is only reported.
pub async fn run(
    config: &PrometheusLearning,
    backend: &Backend,
    shutdown: CancellationToken,
) -> Result<(), KeyError> {
    let mut learner = Learner::new(config, backend.clone())?;
    loop {
        let interval = learner.interval;
        let round = async {
            learner.round().await;
            tokio::time::sleep(interval).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = round => {}
        }
    }
}

struct Learner {
    backend: Backend,
    client: Client,
    queries: [String; 2],
    interval: Duration,
    counters: Counters,
}

impl Learner {
    fn new(config: &PrometheusLearning, backend: Backend) -> Result<Self, KeyError> {
        let query = |own: &str, default: &str| {
            if !own.is_empty() {
                return own.to_owned();
            }
            match config.namespace_label.as_str() {
                "" => default.to_owned(),
                label => default.replacen("reporter)", &format!("reporter, {label})"), 1),
            }
        };
        let client = Client::new(config.access(), PROMETHEUS)?;
        Ok(Self {
            client: client.with_budget(backend.answers.clone()),
            backend,
            queries: [
                query(&config.requests, REQUESTS),
                query(&config.connections, CONNECTIONS),
            ],
            interval: (*config.interval).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL),
            counters: Counters::default(),
        })
    }

    /// Asks both queries and tells the store what they say.
    async fn round(&mut self) {
        let answers = self.ask().await;
        let stats = self.backend.stats.clone();
        stats.queries.fetch_add(2, Ordering::Relaxed);
        let mut errors = Vec::new();
        let answers = answers.map(|answer| match answer {
            Ok(answer) => {
                errors.extend(warning(&answer));
                Some(answer)
            }
            Err(error) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                errors.push(error.to_string());
                None
            }
        });
        let series = answers.iter().flatten().map(|a| a.rows.len() as u64).sum();
        if series == 0 && errors.is_empty() {
            errors.push(
                "Prometheus has no series of Istio's telemetry: check that it scrapes the proxies, or set \
                 lazyload.learn.prometheus.requests"
                    .to_owned(),
            );
        }
        errors.dedup();
        stats.report((!errors.is_empty()).then(|| errors.join("; ")));
        stats.series.store(series, Ordering::Relaxed);
        let window = Window {
            at: self.backend.clock.monotonic(),
            longest: self.interval * 2 + self.client.timeout(),
        };
        self.absorb(&answers, &window);
    }

    async fn ask(&self) -> [Result<Answer, AskError>; 2] {
        let connection = match self.client.open().await {
            Ok(connection) => connection,
            Err(error) => return [Err(error.clone()), Err(error)],
        };
        let ask = async |query: &str| {
            let answer = connection.ask(query, self.client.timeout(), None).await?;
            with_callers(answer)
        };
        let [requests, connections] = &self.queries;
        tokio::join!(ask(requests), ask(connections)).into()
    }

    fn absorb(&mut self, answers: &[Option<Answer>; 2], window: &Window) {
        let Backend {
            directory,
            rules,
            store,
            clock,
            stats,
            ..
        } = &self.backend;
        let mut status_update = self.counters.absorb(answers, window, &**directory, rules);
        if let Some((callers, by)) = &status_update.watched {
            store.watched(callers, *by);
            stats.windows.fetch_add(1, Ordering::Relaxed);
            stats.watched.store(callers.len() as u64, Ordering::Relaxed);
        } else {
            stats.watched.store(0, Ordering::Relaxed);
        }
        // After the time in which they were called, so that they are called and not idle.
        let tally = store.see_all(&status_update.observed_calls, clock.now());
        status_update.skipped.add(super::Skip::Limit, tally.refused);
        stats.skipped.add(&status_update.skipped);
        let seen = status_update.observed_calls.len() as u64;
        stats.observed_calls.fetch_add(seen, Ordering::Relaxed);
        stats.new_edges.fetch_add(tally.new, Ordering::Relaxed);
        store.strays(status_update.strays);
        if let Some((callers, by)) = status_update.watched {
            store.window(callers.into_iter().collect(), by);
        }
    }
}

/// Refuses an answer that says nothing of callers: it teaches nothing, and nobody would know why.
fn with_callers(answer: Answer) -> Result<Answer, AskError> {
    let mut rows = answer.rows.iter();
    if answer.rows.is_empty() || rows.any(|row| row.labels.contains_key(CALLER)) {
        return Ok(answer);
    }
    Err(AskError::Failed(format!(
        "no series of the answer has the label {CALLER}; correct the query in {}: sum a counter by caller and host",
        PROMETHEUS.name
    )))
}

/// What may be wrong with an answer that can be used.
fn warning(answer: &Answer) -> Option<String> {
    (!answer.warnings.is_empty()).then(|| {
        let text: String = answer.warnings.join("; ").chars().take(SHOWN).collect();
        format!("the answer may lack series: {text}")
    })
}

#[cfg(test)]
mod tests;
