//! The pushed series: bounded, expiring, found by hash.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use super::base;
use super::proto::series::Target;
use super::proto::{PushRequest, PushResponse, Rejected, Series};
use super::well_known;
use crate::clock::Clock;
use crate::sources::{
    Aggregate, Failure, MetricName, QueryCounts, Sample, SampleRequest, SourceHealth,
};

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// How far a pusher's clock may run ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// How long an expired series is remembered, so that it reads as stale rather than as never pushed.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A sweep looks at every series, so it must not run with every push.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Kubernetes names end at 253 characters; nobody needs longer metric names either.
const LONGEST_NAME: usize = 253;

/// Bounds of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MdsConfig {
    /// Most series that are kept at a time. Default 200000.
    pub max_series: usize,
}

impl Default for MdsConfig {
    fn default() -> Self {
        Self {
            max_series: 200_000,
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

/// Nested, so that a lookup borrows its names instead of building a key.
#[derive(Default)]
struct Namespace {
    services: HashMap<Box<str>, Metrics>,
    pods: HashMap<Box<str>, Metrics>,
}

#[derive(Default)]
struct Inner {
    namespaces: HashMap<Box<str>, Namespace>,
    /// How many series of each name there are, to know which names are provided.
    names: BTreeMap<Box<str>, usize>,
    series: usize,
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

    /// Stores the good series of a batch and names the others.
    pub fn put(&self, batch: PushRequest) -> PushResponse {
        let now = Now {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let mut response = PushResponse::default();
        let mut inner = self.inner.write();
        for (index, series) in (0u32..).zip(batch.series) {
            match inner.put(&series, now, self.config.max_series) {
                Ok(()) => response.accepted += 1,
                Err(reason) => response.rejected.push(Rejected { index, reason }),
            }
        }
        let (accepted, rejected) = (u64::from(response.accepted), response.rejected.len() as u64);
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
    fn put(&mut self, series: &Series, now: Now, max_series: usize) -> Result<(), String> {
        let (entry, target) = checked(series, now)?;
        let known = self.entry(&series.namespace, target, &series.name).copied();
        match known {
            // Without both times the order of arrival decides.
            Some(old) if old.at.zip(entry.at).is_some_and(|(old, new)| old > new) => {
                return Err("`at` is older than the stored value of this series; push in the order of measurement".to_owned());
            }
            Some(_) => {}
            None => self.make_room(now.monotonic, max_series)?,
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

    fn make_room(&mut self, now: Duration, max_series: usize) -> Result<(), String> {
        if self.series >= max_series && now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.sweep(now, Duration::ZERO);
        }
        if self.series >= max_series {
            return Err(format!(
                "the store is full ({max_series} series); push fewer series, shorten their ttl, or raise maxSeries"
            ));
        }
        Ok(())
    }

    /// Releases what expired more than `grace` ago.
    fn sweep(&mut self, now: Duration, grace: Duration) {
        self.swept = now;
        let Self {
            namespaces,
            names,
            series,
            ..
        } = self;
        let mut release = |metrics: &mut Metrics| {
            metrics.retain(|name, entry| {
                let keep = entry.expires + grace > now;
                if !keep {
                    *series -= 1;
                    if let Some(count) = names.get_mut(name) {
                        *count -= 1;
                    }
                }
                keep
            });
            !metrics.is_empty()
        };
        namespaces.retain(|_, namespace| {
            namespace.services.retain(|_, metrics| release(metrics));
            namespace.pods.retain(|_, metrics| release(metrics));
            !(namespace.services.is_empty() && namespace.pods.is_empty())
        });
        names.retain(|_, count| *count > 0);
    }
}

/// The entry and the target of a series that may be stored.
fn checked(series: &Series, now: Now) -> Result<(Entry, &Target), String> {
    if !valid_name(&series.name) {
        return Err(format!(
            "name {:?} is not a metric name; use letters, digits, '_' and '.', and do not begin with a digit or '.'",
            clip(&series.name)
        ));
    }
    let Some(target) = &series.target else {
        return Err("target is missing; set service or pod".to_owned());
    };
    let (Target::Service(name) | Target::Pod(name)) = target;
    for (field, text) in [("namespace", &series.namespace), ("target", name)] {
        if text.is_empty() || text.len() > LONGEST_NAME {
            return Err(format!(
                "{field} {:?} is not a Kubernetes name; write 1 to {LONGEST_NAME} characters",
                clip(text)
            ));
        }
    }
    if !series.value.is_finite() {
        return Err("value is NaN or infinite; push a finite number, or nothing".to_owned());
    }
    let ttl = ttl(series.ttl.as_ref())?;
    let at = measured_at(series.at.as_ref(), now.wall)?;
    // A value from a clock that runs ahead must not outlive its ttl, so its age is at least zero.
    let age = at.map_or(Duration::ZERO, |at| {
        Duration::try_from(now.wall.duration_since(at)).unwrap_or_default()
    });
    let left = ttl.saturating_sub(age);
    if left.is_zero() {
        return Err(
            "the value has expired on arrival; push it sooner, raise ttl, or check the clocks"
                .to_owned(),
        );
    }
    Ok((
        Entry {
            value: series.value,
            at,
            expires: now.monotonic + left,
        },
        target,
    ))
}

fn ttl(given: Option<&well_known::Duration>) -> Result<Duration, String> {
    let Some(given) = given else {
        return Ok(DEFAULT_TTL);
    };
    to_duration(given.seconds, given.nanos)
        .filter(|ttl| (SHORTEST_TTL..=LONGEST_TTL).contains(ttl))
        .ok_or_else(|| format!("ttl {}s is out of range; write 1s to 1h", given.seconds))
}

fn measured_at(
    given: Option<&well_known::Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let Some(given) = given else { return Ok(None) };
    Timestamp::new(given.seconds, given.nanos)
        .ok()
        .filter(|at| at.duration_since(now) <= CLOCK_SKEW && given.nanos >= 0)
        .map(Some)
        .ok_or_else(|| {
            format!(
                "at {}s is not a past time; check the pusher's clock",
                given.seconds
            )
        })
}

fn to_duration(seconds: i64, nanos: i32) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn valid_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
