//! What the operator knows of its own state, for `trimtab check`: one answer of the JSON API.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_kit::lease::{Standing, StandingView};
use trimtab_kit::module::Installed;
use trimtab_kit::readiness::Readiness;
use trimtab_kit::sources::MetricSource;
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

fn source(source: &dyn MetricSource) -> Option<Source> {
    let health = source.health();
    let answers = health.ok();
    let error = health.last_error.filter(|error| !error.is_empty());
    let key = match source.name() {
        "metrics-server" => "metricsServer",
        name => name,
    };
    (!answers || error.is_some()).then(|| Source {
        key: format!("metrics.{key}"),
        answers,
        error: error.unwrap_or_default(),
    })
}
