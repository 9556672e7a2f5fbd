//! The pushed series: bounded, expiring, found by hash.

mod check;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use super::base;
use super::proto::series::Target;
use super::proto::{PushRequest, PushResponse, Rejected, Series};
use crate::clock::Clock;
use crate::sources::{
    Aggregate, Failure, MetricName, QueryCounts, Sample, SampleRequest, SourceHealth,
};
use check::checked;

/// How long an expired series is remembered, so that it reads as stale rather than as never pushed.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A sweep looks at every series, so it must not run with every push.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Bounds of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MdsConfig {
    /// Most series that are kept at a time. Default 200000.
    pub max_series: usize,
    /// Memory for them in bytes, about. A name of its own for each series costs far more than names that series share.
    /// Default 64 MiB.
    pub max_bytes: usize,
}

/// What the parts of a series cost in memory, about, besides their texts. A name is also listed with its five aggregates,
/// for all limiters.
const SERIES_COST: usize = 128;
const TARGET_COST: usize = 256;
const NAMESPACE_COST: usize = 512;
const NAME_COST: usize = 2048;
const NAME_COPIES: usize = 8;
/// Refused series that one answer names, at most.
const NAMED: usize = 1000;

impl Default for MdsConfig {
    fn default() -> Self {
        Self {
            max_series: 200_000,
            max_bytes: 64 << 20,
        }
    }
}

/// The pushed series. Clones share them.
#[derive(Clone)]
pub struct MdsStore {
    inner: Arc<RwLock<Inner>>,
    clock: Arc<dyn Clock>,
    config: MdsConfig,
}

/// For which namespaces somebody may push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    All,
    /// This one.
    Namespace(String),
}

impl Reach {
    fn check(&self, series: &Series) -> Result<(), String> {
        match self {
            Self::Namespace(own) if *own != series.namespace => Err(format!(
                "`namespace` is {}, and a workload of {own} may push for {own} only; push from there, or name {own} in metrics.mds.trustedNamespaces",
                series.namespace
            )),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy)]
struct Now {
    wall: Timestamp,
    monotonic: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    value: f64,
    /// When the pusher says that it measured. Not set on arrival, so that a step of the host's wall clock refuses nothing.
    at: Option<Timestamp>,
    /// On the monotonic clock.
    expires: Duration,
}

type Metrics = BTreeMap<Box<str>, Entry>;
type Targets = HashMap<Box<str>, Metrics>;

/// Nested, so that a lookup borrows its names instead of building a key.
#[derive(Default)]
struct Namespace {
    services: Targets,
    pods: Targets,
}

#[derive(Default)]
struct Inner {
    namespaces: HashMap<Box<str>, Namespace>,
    /// How many series of each name there are, to know which names are provided.
    names: BTreeMap<Box<str>, usize>,
    series: usize,
    /// Their cost.
    bytes: usize,
    swept: Duration,
    health: SourceHealth,
}

impl fmt::Debug for MdsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MdsStore")
            .field("series", &self.len())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MdsStore {
    /// An empty store.
    pub fn new(config: MdsConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::default(),
            clock,
            config,
        }
    }

    /// Stores the good series of a batch that are within reach and names the others, as long as they are not very many.
    pub fn put(&self, batch: PushRequest, reach: &Reach) -> PushResponse {
        let now = Now {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let mut response = PushResponse::default();
        let mut inner = self.inner.write();
        let all = batch.series.len() as u64;
        for (index, series) in (0u32..).zip(batch.series) {
            let put = reach
                .check(&series)
                .and_then(|()| inner.put(&series, now, &self.config));
            match put {
                Ok(()) => response.accepted += 1,
                Err(reason) if response.rejected.len() < NAMED => {
                    response.rejected.push(Rejected { index, reason });
                }
                Err(_) => {}
            }
        }
        let accepted = u64::from(response.accepted);
        let rejected = all - accepted;
        let error = response
            .rejected
            .first()
            .map(|r| format!("a pushed series was refused: {}", r.reason));
        inner.health.record(accepted + rejected, rejected, 0, error);
        response
    }

    /// How many series are kept, the expired ones that are still remembered included.
    pub fn len(&self) -> usize {
        self.inner.read().series
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names that are provided, derived names included, sorted.
    pub(super) fn names(&self) -> Vec<MetricName> {
        let inner = self.inner.read();
        let mut names = BTreeSet::new();
        for name in inner.names.keys() {
            names.insert(name.to_string());
            names.extend(
                Aggregate::ALL
                    .iter()
                    .map(|a| format!("{name}.{}", a.suffix())),
            );
        }
        names.into_iter().collect()
    }

    pub(super) fn health(&self) -> SourceHealth {
        self.inner.read().health.clone()
    }

    /// A view at the present time. Releases what expired long ago.
    pub(super) fn read(&self) -> View<'_> {
        let now = self.clock.monotonic();
        let due = now.saturating_sub(self.inner.read().swept) >= SWEEP_EVERY;
        if due {
            self.inner.write().sweep(now, REMEMBERED);
        }
        View {
            inner: self.inner.read(),
            now,
        }
    }
}

/// The store as of one moment.
pub(super) struct View<'a> {
    inner: RwLockReadGuard<'a, Inner>,
    now: Duration,
}

impl View<'_> {
    /// The sample of a name; `None` when nobody pushes such a name.
    pub(super) fn sample(&self, sample_request: &SampleRequest, name: &str) -> Option<Sample> {
        let (short, aggregate) = base(name);
        let exact = self.inner.names.contains_key(name);
        let derived = aggregate.is_some() && self.inner.names.contains_key(short);
        // A name that was pushed as it stands wins over one derived from a shorter name.
        match (exact, derived) {
            (true, false) => Some(self.service_or_pods(sample_request, name, Aggregate::Avg)),
            (true, true) => Some(
                self.service_or_pods(sample_request, name, Aggregate::Avg)
                    .or_else(|failure| match failure {
                        Failure::Empty => self.derived(sample_request, short, aggregate),
                        other => Err(other),
                    }),
            ),
            (false, true) => Some(self.derived(sample_request, short, aggregate)),
            (false, false) => None,
        }
    }

    fn derived(
        &self,
        sample_request: &SampleRequest,
        name: &str,
        aggregate: Option<Aggregate>,
    ) -> Sample {
        self.pods(sample_request, name, aggregate.unwrap_or_default())
    }

    fn service_or_pods(
        &self,
        sample_request: &SampleRequest,
        name: &str,
        aggregate: Aggregate,
    ) -> Sample {
        let service = self
            .inner
            .namespaces
            .get(sample_request.namespace.as_str())
            .and_then(|ns| ns.services.get(sample_request.service.as_str()))
            .and_then(|metrics| metrics.get(name));
        match service {
            Some(entry) if entry.expires > self.now => Ok(entry.value),
            Some(_) => match self.pods(sample_request, name, aggregate) {
                Err(Failure::Empty) => Err(Failure::Stale),
                other => other,
            },
            None => self.pods(sample_request, name, aggregate),
        }
    }

    /// The aggregate over the pods that have a live value; stale when only expired ones do.
    fn pods(&self, sample_request: &SampleRequest, name: &str, aggregate: Aggregate) -> Sample {
        let (mut tally, mut live, mut expired) = (QueryCounts::default(), false, false);
        for pod in sample_request.pods.iter() {
            let metrics = self
                .inner
                .namespaces
                .get(pod.namespace.as_ref())
                .and_then(|ns| ns.pods.get(pod.name.as_ref()));
            match metrics.and_then(|m| m.get(name)) {
                Some(entry) if entry.expires > self.now => {
                    live = true;
                    tally.add(entry.value);
                }
                Some(_) => expired = true,
                None => {}
            }
        }
        if !live && expired {
            Err(Failure::Stale)
        } else {
            tally.finish(aggregate)
        }
    }
}

impl Inner {
    fn put(&mut self, series: &Series, now: Now, config: &MdsConfig) -> Result<(), String> {
        let (entry, target) = checked(series, now)?;
        let known = self.entry(&series.namespace, target, &series.name).copied();
        match known {
            // Without both times the order of arrival decides.
            Some(old) if old.at.zip(entry.at).is_some_and(|(old, new)| old > new) => {
                return Err("`at` is older than the stored value of this series; push in the order of measurement".to_owned());
            }
            Some(_) => {}
            None => {
                self.make_room(now.monotonic, config, series, target)?;
                self.bytes += self.cost(series, target);
            }
        }
        let namespace = self
            .namespaces
            .entry(series.namespace.as_str().into())
            .or_default();
        let metrics = match target {
            Target::Service(name) => namespace.services.entry(name.as_str().into()).or_default(),
            Target::Pod(name) => namespace.pods.entry(name.as_str().into()).or_default(),
        };
        if known.is_none() {
            *self.names.entry(series.name.as_str().into()).or_default() += 1;
            self.series += 1;
        }
        metrics.insert(series.name.as_str().into(), entry);
        Ok(())
    }

    fn entry(&self, namespace: &str, target: &Target, name: &str) -> Option<&Entry> {
        let namespace = self.namespaces.get(namespace)?;
        let metrics = match target {
            Target::Service(service) => namespace.services.get(service.as_str()),
            Target::Pod(pod) => namespace.pods.get(pod.as_str()),
        };
        metrics?.get(name)
    }

    fn targets<'n>(namespace: &'n Namespace, target: &'n Target) -> (&'n Targets, &'n str) {
        match target {
            Target::Service(name) => (&namespace.services, name),
            Target::Pod(name) => (&namespace.pods, name),
        }
    }

    /// What a new series adds.
    fn cost(&self, series: &Series, target: &Target) -> usize {
        let (Target::Service(of) | Target::Pod(of)) = target;
        let namespace = self.namespaces.get(series.namespace.as_str());
        let known = namespace.is_some_and(|namespace| {
            let (targets, name) = Self::targets(namespace, target);
            targets.contains_key(name)
        });
        let mut cost = SERIES_COST + series.name.len();
        if !known {
            cost += TARGET_COST + of.len();
        }
        if namespace.is_none() {
            cost += NAMESPACE_COST + series.namespace.len();
        }
        if !self.names.contains_key(series.name.as_str()) {
            cost += name_cost(&series.name);
        }
        cost
    }

    fn is_full(&self, config: &MdsConfig, series: &Series, target: &Target) -> Option<String> {
        if self.series >= config.max_series {
            let most = config.max_series;
            return Some(format!(
                "{most} series); push fewer series, shorten their ttl, or raise maxSeries"
            ));
        }
        let most = config.max_bytes;
        (self.bytes + self.cost(series, target) > most).then(|| {
            format!(
                "{most} bytes); push fewer series or names, shorten their ttl, or raise maxBytes"
            )
        })
    }

    fn make_room(
        &mut self,
        now: Duration,
        config: &MdsConfig,
        series: &Series,
        target: &Target,
    ) -> Result<(), String> {
        let mut full = self.is_full(config, series, target);
        if full.is_some() && now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.sweep(now, Duration::ZERO);
            full = self.is_full(config, series, target);
        }
        full.map_or(Ok(()), |why| Err(format!("the store is full ({why}")))
    }

    /// Releases what expired more than `grace` ago.
    fn sweep(&mut self, now: Duration, grace: Duration) {
        self.swept = now;
        let Self {
            namespaces,
            names,
            series,
            bytes,
            ..
        } = self;
        *bytes = 0;
        let mut release = |of: &str, metrics: &mut Metrics| {
            metrics.retain(|name, entry| {
                let keep = entry.expires + grace > now;
                if keep {
                    *bytes += SERIES_COST + name.len();
                } else {
                    *series -= 1;
                    if let Some(count) = names.get_mut(name) {
                        *count -= 1;
                    }
                }
                keep
            });
            if !metrics.is_empty() {
                *bytes += TARGET_COST + of.len();
            }
            !metrics.is_empty()
        };
        namespaces.retain(|_, namespace| {
            namespace
                .services
                .retain(|of, metrics| release(of, metrics));
            namespace.pods.retain(|of, metrics| release(of, metrics));
            !(namespace.services.is_empty() && namespace.pods.is_empty())
        });
        names.retain(|_, count| *count > 0);
        let of_names: usize = names.keys().map(|name| name_cost(name)).sum();
        let of_namespaces = namespaces.keys().map(|name| NAMESPACE_COST + name.len());
        self.bytes += of_names + of_namespaces.sum::<usize>();
    }
}

fn name_cost(name: &str) -> usize {
    NAME_COST + NAME_COPIES * name.len()
}

#[cfg(test)]
mod tests;
