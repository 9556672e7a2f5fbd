//! What the operator knows of its own state, for `trimtab check`: one answer of the JSON API.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_kit::lease::{Standing, StandingView};
use trimtab_kit::module::Installed;
use trimtab_kit::readiness::Readiness;
use trimtab_kit::sources::{Answered, Failure, MetricSource};
use trimtab_kit::watch::{Watch, WatchState};

use crate::version::Version;

/// The state of an operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Its version.
    pub version: Version,
    /// What its clock says.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub now: Option<Timestamp>,
    /// What it waits for before it decides; empty: it is ready.
    pub waits_for: Vec<String>,
    /// What cannot be had for now.
    pub degraded: Vec<Trouble>,
    /// Watches that do not follow changes.
    pub watches: Vec<Trouble>,
    /// Who leads.
    pub leader: StandingView,
    /// Metric sources with an error.
    pub sources: Vec<Source>,
    /// Names of metrics that no limiter that asks for them has a value of.
    #[serde(default)]
    pub queries: Vec<Query>,
    /// Modules whose writes wait for their budget.
    pub throttled: Vec<String>,
    /// Objects of users that are refused, in whole or in part: object, field, fix.
    pub refused: Vec<String>,
}

/// Something that is wrong.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Trouble {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A metric source with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Path of the key of the configuration that names it.
    pub key: String,
    /// Whether the newest round of questions had an answer.
    pub answers: bool,
    /// The newest error.
    pub error: String,
}

/// How the name of a metric is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Query {
    /// Path of the key of the configuration that names the source.
    pub key: String,
    /// The name that expressions use.
    pub name: String,
    /// How many services have a value.
    pub values: usize,
    /// PascalCase reason where none has one.
    #[serde(default)]
    pub reason: String,
    /// The same in words.
    #[serde(default)]
    pub error: String,
}

impl Query {
    /// Of an answer.
    pub fn of(key: &str, answered: Answered) -> Self {
        let failure = answered.failure.filter(|_| answered.values == 0);
        Self {
            key: key.to_owned(),
            name: answered.name,
            values: answered.values,
            reason: failure.as_ref().map_or("", Failure::reason).to_owned(),
            error: failure.map_or_else(String::new, |failure| failure.to_string()),
        }
    }
}

/// What there is to look at; filled when the modules are set up.
#[derive(Clone, Default)]
pub struct Watched(Arc<Parts>);

#[derive(Default)]
struct Parts {
    sources: Vec<Arc<dyn MetricSource>>,
    watches: Vec<Arc<Watch>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Watched {
    /// These sources and watches.
    pub fn new(sources: Vec<Arc<dyn MetricSource>>, watches: Vec<Arc<Watch>>) -> Self {
        Self(Arc::new(Parts { sources, watches }))
    }

    /// The state at `now`.
    pub fn health(
        &self,
        now: Timestamp,
        readiness: &Readiness,
        standing: &Standing,
        modules: &[Arc<Installed>],
    ) -> Health {
        let parts = &self.0;
        let degraded = readiness.degraded().into_iter();
        let findings = modules.iter().flat_map(|m| m.findings());
        let mut refused: Vec<String> = findings.filter(|f| f.refused).map(|f| f.message).collect();
        refused.sort();
        refused.dedup();
        let throttled = modules.iter().filter(|m| m.is_throttled());
        let mut watches: Vec<Trouble> = parts.watches.iter().filter_map(|w| trouble(w)).collect();
        watches.sort();
        watches.dedup();
        Health {
            version: Version::own(),
            now: Some(now),
            waits_for: readiness.missing(),
            degraded: degraded.map(|(what, why)| Trouble { what, why }).collect(),
            watches,
            leader: standing.view(),
            sources: sources(&parts.sources, modules),
            queries: queries(&parts.sources),
            throttled: throttled.map(|m| m.name.to_owned()).collect(),
            refused,
        }
    }
}

/// A watch that follows no changes. One whose right or API is missing is told as degraded, where modules need it.
fn trouble(watch: &Watch) -> Option<Trouble> {
    match watch.state() {
        WatchState::Failing(why) => Some(Trouble {
            what: watch.resource.clone(),
            why,
        }),
        _ => None,
    }
}

fn sources(own: &[Arc<dyn MetricSource>], modules: &[Arc<Installed>]) -> Vec<Source> {
    let own = own.iter().filter_map(|s| source(s.as_ref()));
    let of_modules = modules.iter().flat_map(|module| &module.dependencies);
    let of_modules = of_modules.filter_map(|dependency| {
        Some(Source {
            key: dependency.key.to_owned(),
            answers: false,
            error: dependency.problem()?,
        })
    });
    own.chain(of_modules).collect()
}

/// Path of the key of a source.
fn key_of(source: &dyn MetricSource) -> String {
    let key = match source.name() {
        "metrics-server" => "metricsServer",
        name => name,
    };
    format!("metrics.{key}")
}

/// Names without a value. Those of a source that does not answer at all have the cause there.
fn queries(own: &[Arc<dyn MetricSource>]) -> Vec<Query> {
    let answering = own.iter().filter(|source| source.health().ok());
    let queries = answering.flat_map(|source| {
        let key = key_of(source.as_ref());
        let answered = source.answered().into_iter();
        answered.map(move |answered| Query::of(&key, answered))
    });
    queries.filter(|query| query.values == 0).collect()
}

fn source(source: &dyn MetricSource) -> Option<Source> {
    let health = source.health();
    let answers = health.ok();
    let error = health.last_error.filter(|error| !error.is_empty());
    (!answers || error.is_some()).then(|| Source {
        key: key_of(source),
        answers,
        error: error.unwrap_or_default(),
    })
}
