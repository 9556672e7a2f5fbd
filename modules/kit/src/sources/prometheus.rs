//! Metrics by PromQL.
//!
//! A tick is planned (which distinct queries the demands need), asked (in parallel, each query with its own time limit), and joined back to the
//! demands. A query without placeholders is sent once for the mesh, whatever the number of limiters.

mod ages;
mod config;
mod join;
mod plan;
mod restrict;
mod series;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;

pub use config::{Aggregate, Handler, HandlerType, Labels, OwnQueries, PrometheusConfig};

use self::config::SECTION;
use self::plan::{Plan, Query};
use self::series::Answer;
use super::{
    Answered, Failure, MetricName, MetricSource, SampleRequest, Samples, SourceError, SourceHealth,
};
use crate::prometheus::{AnswerBudget, AskError, Bounds, Client, Connection, Held};

/// Enough to hide latency; few enough not to trip Prometheus' own limit of 20 concurrent queries.
const CONCURRENCY: usize = 16;

/// Provides the configured handlers, the names derived from them, and the queries that limiters declare themselves.
pub struct PrometheusSource {
    config: PrometheusConfig,
    client: Client,
    health: Mutex<SourceHealth>,
    answered: Mutex<Vec<Answered>>,
}

/// Without the configuration, in whose address a password may be.
impl fmt::Debug for PrometheusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrometheusSource")
            .field(&self.client)
            .finish()
    }
}

/// What one query of a tick gave.
#[derive(Debug)]
struct Outcome {
    answer: Answer,
    warnings: u64,
    requests: u64,
    /// The answer's part of the budget.
    held: Vec<Held>,
}

impl PrometheusSource {
    /// Checks the configuration; asks nothing yet, so that a Prometheus that is down does not stop a start.
    pub fn new(config: PrometheusConfig) -> Result<Self, SourceError> {
        config.validate()?;
        let client = Client::new(config.access(), SECTION)?;
        Ok(Self {
            config,
            client,
            health: Mutex::new(SourceHealth::default()),
            answered: Mutex::default(),
        })
    }

    /// The same with a budget for answers that others use, too.
    #[must_use]
    pub fn with_budget(mut self, budget: AnswerBudget) -> Self {
        self.client = self.client.with_budget(budget);
        self
    }

    /// Bounds of the answer to a query.
    fn bounds(&self, query: &Query) -> Bounds {
        let own = &self.config.own_queries;
        match &query.owner {
            None => self.client.bounds(),
            Some(namespace) => Bounds {
                bytes: own.max_bytes,
                series: own.max_series,
                keys: "ownQueries.",
                owner: Some(namespace.clone()),
            },
        }
    }

    /// Asks all queries; outcomes are parallel to `queries`.
    async fn ask_all(&self, queries: &[Query]) -> Vec<Outcome> {
        let connection = match self.client.open().await {
            Ok(connection) => connection,
            Err(error) => {
                let failure = Failure::from(error);
                return queries
                    .iter()
                    .map(|_| Outcome::refused(failure.clone()))
                    .collect();
            }
        };
        let connection = &connection;
        let mut asked = Vec::with_capacity(queries.len());
        for (index, query) in queries.iter().enumerate() {
            let bounds = self.bounds(query);
            asked.push(async move { (index, ask(connection, query, &bounds).await) });
        }
        let mut outcomes: Vec<_> = futures::stream::iter(asked)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn account(&self, plan: &Plan<'_>, requests: &[SampleRequest], outcomes: &[Outcome]) {
        let failed = outcomes.iter().filter(|o| o.failed()).count() as u64;
        let warnings = outcomes.iter().map(|o| o.warnings).sum();
        let mut of_queries = plan.queries.iter().zip(outcomes).enumerate();
        let error = of_queries.find_map(|(index, (query, outcome))| match &outcome.answer {
            Err(failure) if outcome.failed() => {
                let mut wants = plan.wants.iter();
                let own = wants.find(|want| want.own && want.query == Ok(index));
                let of = own.map_or_else(String::new, |want| {
                    format!(" of {}", requests[want.sample_request].limiter())
                });
                Some(format!("query {:?}{of}: {failure}", query.text))
            }
            _ => None,
        });
        self.health
            .lock()
            .record(outcomes.len() as u64, failed, warnings, error);
    }
}

async fn ask(connection: &Connection<'_>, query: &Query, bounds: &Bounds) -> Outcome {
    if let Some(max_age) = query.max_age {
        return ask_with_ages(connection, query, max_age, bounds).await;
    }
    let asked = connection.ask_within(&query.text, query.timeout, None, bounds);
    match asked.await {
        Err(error) => Outcome::refused(error.into()),
        Ok(mut answer) => Outcome {
            held: answer.held.take().into_iter().collect(),
            warnings: answer.warnings.len() as u64,
            answer: ages::series(answer),
            requests: 1,
        },
    }
}

/// The timestamps of an answer are those of the evaluation, so ages need a query of their own. It is not limited in
/// age, so that it also shows what a limited evaluation leaves out.
async fn ask_with_ages(
    connection: &Connection<'_>,
    query: &Query,
    max_age: Duration,
    bounds: &Bounds,
) -> Outcome {
    // On a line of its own, the bracket is safe from a comment at the end of the query.
    let ages = format!("timestamp({}\n)", query.text);
    let (mut values, ages) = tokio::join!(
        connection.ask_within(&query.text, query.timeout, Some(max_age), bounds),
        connection.ask_within(&ages, query.timeout, None, bounds),
    );
    let held = values.as_mut().ok().and_then(|values| values.held.take());
    let (answer, warnings) = match (values, ages) {
        (Err(error), _) | (Ok(_), Err(error @ AskError::Timeout { .. })) => (Err(error.into()), 0),
        (Ok(values), Ok(ages)) => {
            let warnings = values.warnings.len() + ages.warnings.len();
            (ages::with_ages(values, &ages, max_age), warnings as u64)
        }
        // Not every query has ages; a scalar has none.
        (Ok(values), Err(_)) => (ages::series(values), 1),
    };
    Outcome {
        answer,
        warnings,
        requests: 2,
        held: held.into_iter().collect(),
    }
}

impl Outcome {
    fn refused(failure: Failure) -> Self {
        Self {
            answer: Err(failure),
            warnings: 0,
            requests: 1,
            held: Vec::new(),
        }
    }

    /// A stale answer is an answer: Prometheus works, the scrape does not.
    fn failed(&self) -> bool {
        matches!(self.answer, Err(Failure::Timeout | Failure::Error(_)))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout { .. } => Self::Timeout,
            AskError::Failed(text) => Self::Error(text),
        }
    }
}

#[async_trait]
impl MetricSource for PrometheusSource {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn provides(&self) -> Vec<MetricName> {
        let mut names = BTreeSet::new();
        for (name, handler) in &self.config.handlers {
            names.insert(name.clone());
            if matches!(handler.kind, HandlerType::PerPod | HandlerType::PerService) {
                names.extend(
                    Aggregate::ALL
                        .iter()
                        .map(|a| format!("{name}.{}", a.suffix())),
                );
            }
        }
        names.into_iter().collect()
    }

    fn origin(&self, name: &str) -> String {
        let handlers = &self.config.handlers;
        let base = name.rsplit_once('.').map_or(name, |(base, _)| base);
        let handler = handlers.get(name).or_else(|| handlers.get(base));
        handler.map_or_else(
            || self.name().to_owned(),
            |handler| {
                let words: Vec<&str> = handler.query.split_whitespace().collect();
                format!("prometheus, query {}", words.join(" "))
            },
        )
    }

    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let start = Instant::now();
        let plan = plan::plan(&self.config, sample_requests);
        let outcomes = self.ask_all(&plan.queries).await;
        self.account(&plan, sample_requests, &outcomes);
        let queries = outcomes.iter().map(|o| o.requests).sum::<u64>();
        let (answers, held): (Vec<Answer>, Vec<_>) =
            outcomes.into_iter().map(|o| (o.answer, o.held)).unzip();
        let (values, rows) = join::evaluate(&plan, &answers, sample_requests);
        // Their memory is in use until here.
        drop((answers, held));
        let samples = Samples {
            values,
            rows,
            queries: usize::try_from(queries).unwrap_or(usize::MAX),
            elapsed: start.elapsed(),
        };
        *self.answered.lock() = samples.by_name();
        samples
    }

    fn health(&self) -> SourceHealth {
        self.health.lock().clone()
    }

    fn answered(&self) -> Vec<Answered> {
        self.answered.lock().clone()
    }
}
