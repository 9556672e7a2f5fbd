//! One limiter in the engine.

mod adaptive;
mod outputs;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use trimtab_crds::limiter::{DescriptorStatus, LimiterStatus};
use trimtab_kit::sources::{Freshness, PodFacts, Sample, Sampler};
use trimtab_xds::Resource;
use xxhash_rust::xxh3::xxh3_64;

use super::view::Dot;
use crate::decide::defaults::Defaults;
use crate::decide::steady::Steady;
use crate::decide::{decide, metric_key, undefined};
use crate::index::{LimiterObject, Resolved};
use crate::input::{LimiterInput, Reading, ReadingState, ServicePort, Settings, TargetFacts};
use crate::owner::Owner;
use crate::validate::{Validated, validate_for};
pub(super) use adaptive::Brought;

/// Points kept for the status page.
const HISTORY: usize = 120;
/// How long the first sample may take: longer than the time limit of a query.
pub const FIRST_SAMPLE: Duration = Duration::from_secs(10);
/// How often moving values in a status are refreshed when nothing else changed: each status write costs the API server
/// an event to every watcher.
const STATUS_REFRESH: Duration = Duration::from_secs(30);
/// Over which time refreshes are spread.
const SPREAD_MILLIS: u64 = 15_000;

/// Changes of a limiter in the xDS cache.
pub(super) struct Outputs {
    pub set: Vec<Resource>,
    pub remove: Vec<String>,
}

pub(super) struct Entry {
    object: LimiterObject,
    pub input: LimiterInput,
    pub(super) validated: Validated,
    pub pods: BTreeMap<String, Arc<[PodFacts]>>,
    pub service: String,
    first_seen: Duration,
    pub(super) decisions: Vec<DescriptorStatus>,
    /// Which of them are in force, and since when.
    steady: Steady,
    /// What the default configurations of filters limit to; none: nobody has looked.
    defaults: Option<Defaults>,
    /// As JSON: a tenth of the memory of the objects, and read only when something is written.
    desired: Option<Box<str>>,
    /// Versions by name.
    resources: BTreeMap<String, String>,
    written: Option<Arc<LimiterStatus>>,
    written_at: Duration,
    /// How old moving values in the status may get; differs by limiter, so that not all are written at once.
    refresh_after: Duration,
    pub apply_error: Option<(&'static str, String)>,
    /// Paths of the rules whose metrics give no number, with since when.
    undefined: BTreeMap<String, Duration>,
    /// Sets that samples were taken for.
    pub sampled_sets: BTreeSet<String>,
    latest: Arc<LimiterStatus>,
    /// The status that is being written.
    writing: Option<Arc<LimiterStatus>>,
    history: VecDeque<Dot>,
    validated_for: Option<(i64, Arc<trimtab_crds::limiter::LimiterSpec>)>,
    /// Laws of strategy `adaptive` by set.
    laws: BTreeMap<String, adaptive::Law>,
    /// Ports that the rules are valid for; none until the target has been found.
    ports: Option<Vec<ServicePort>>,
}

/// What a sample changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moved {
    /// Nothing.
    Nothing,
    /// A value.
    Value,
    /// How far a metric can be relied on.
    State,
}

impl Entry {
    /// `restored`: proxies may have what the status says, so that what is decided now is a change.
    pub fn new(resolved: &Resolved, restored: bool, now: Duration) -> Self {
        let object = resolved.object.clone();
        let previous = object.previous();
        let seen = (object.status.observed_generation.is_some())
            .then(|| adaptive::without_memory((*object.status).clone()).into());
        let (laws, decided) = if restored {
            adaptive::restored(&object.status)
        } else {
            Default::default()
        };
        let input = LimiterInput {
            owner: object.owner.clone(),
            spec: (*object.spec).clone(),
            target: resolved.target.clone(),
            metrics: BTreeMap::new(),
            previous: previous.clone(),
            overdue: BTreeSet::new(),
            defaults: None,
            adaptive: decided,
            settings: Arc::default(),
        };
        let same = object.status.observed_generation == Some(object.owner.generation);
        Self {
            steady: if restored && same {
                Steady::restored(&input, now)
            } else {
                Steady::default()
            },
            input,
            object,
            validated: Validated::default(),
            pods: BTreeMap::new(),
            service: resolved.service.clone(),
            first_seen: now,
            decisions: previous,
            defaults: None,
            desired: None,
            resources: BTreeMap::new(),
            written: seen,
            written_at: now,
            refresh_after: refresh_after(&resolved.object.owner),
            apply_error: None,
            undefined: BTreeMap::new(),
            sampled_sets: BTreeSet::new(),
            latest: Arc::default(),
            writing: None,
            history: VecDeque::new(),
            validated_for: None,
            laws,
            ports: None,
        }
    }

    /// Goes on as a new process would, from the decisions that are known.
    pub fn restart(&mut self, now: Duration) {
        let same = self.object.latest.observed_generation == Some(self.object.owner.generation);
        self.steady = if same {
            Steady::restored(&self.input, now)
        } else {
            Steady::default()
        };
        (self.laws, self.input.adaptive) = adaptive::restored(&self.object.latest);
        self.input.metrics.clear();
        self.input.overdue.clear();
        self.defaults = None;
        self.undefined.clear();
        (self.first_seen, self.written_at) = (now, now);
    }

    /// Takes the decisions over that the leader has written. False: it has not decided on this spec yet.
    pub fn follow(&mut self) -> bool {
        let Some(decisions) = self.object.led() else {
            return false;
        };
        let written = adaptive::without_memory((*self.object.latest).clone());
        self.written = Some(written.into());
        self.input.previous.clone_from(&decisions);
        self.decisions = decisions;
        true
    }

    /// Takes over a newly resolved object. Control state (decisions, samples) stays.
    pub fn update(&mut self, resolved: Resolved, settings: Arc<Settings>) {
        let Resolved {
            object,
            target,
            pods,
            service,
            defaults,
        } = resolved;
        self.check(&object, &target);
        self.input.owner = object.owner.clone();
        self.input.target = target;
        self.input.settings = settings;
        self.pods = pods;
        self.service = service;
        self.object = object;
        self.restore_defaults(defaults);
        self.keep_laws();
        let wanted = self.wanted();
        let measured = self.adaptive_sets().into_iter().map(|set| {
            let names = self.measures(&set);
            (set, names)
        });
        let measured: Vec<(String, BTreeSet<String>)> = measured.collect();
        let keep: BTreeSet<String> = wanted
            .iter()
            .chain(measured.iter().map(|(set, names)| (set, names)))
            .flat_map(|(set, names)| names.iter().map(move |n| format!("{set}.{n}")))
            .collect();
        self.input.metrics.retain(|key, _| keep.contains(key));
        self.wait_for_measured_before(&wanted);
        if self.input.settings.known_metrics.contains("pod") {
            return;
        }
        for (set, facts) in &self.input.target.sets {
            self.input
                .metrics
                .insert(format!("{set}.pod"), Reading::fresh(facts.pods as f64));
        }
    }

    /// Validates again when the spec or the Service's ports have changed.
    fn check(&mut self, object: &LimiterObject, target: &TargetFacts) {
        let found = target.problem.is_none();
        let ports_changed = found && self.ports.as_ref() != Some(&target.ports);
        let same = |(g, s): &(i64, Arc<_>)| *g == object.owner.generation && *s == object.spec;
        if !ports_changed && self.validated_for.as_ref().is_some_and(same) {
            return;
        }
        // Rules of before the target was found were never in force, and their ports may be wrong.
        let first_found = found && self.ports.is_none();
        if found {
            self.ports = Some(target.ports.clone());
        }
        let ports = self.ports.as_deref().unwrap_or_default();
        let mut validated = validate_for(&object.owner, &object.spec, ports);
        if !first_found {
            validated.keep_from(&self.validated);
        }
        self.validated = validated;
        self.validated_for = Some((object.owner.generation, object.spec.clone()));
        self.input.spec = (*object.spec).clone();
    }

    /// A name that an earlier run has measured and that no source knows yet, as with pushed metrics, is not unknown: its
    /// decision holds until it is pushed again.
    fn wait_for_measured_before(&mut self, wanted: &BTreeMap<String, BTreeSet<String>>) {
        let input = &mut self.input;
        for (set, names) in wanted {
            for name in names {
                let sampled_soon = input.settings.known_metrics.contains(name)
                    || input.spec.metrics.contains_key(name);
                let key = format!("{set}.{name}");
                if !sampled_soon && self.object.status.metric_status.contains_key(&key) {
                    input.metrics.entry(key).or_insert(Reading {
                        state: ReadingState::Waiting,
                        ..Reading::default()
                    });
                }
            }
        }
    }

    /// Whether a metric waits to be pushed again, with nobody to ask.
    pub fn unsampled(&self) -> bool {
        let waits = |r: &Reading| r.state == ReadingState::Waiting && r.failure.is_none();
        self.input.metrics.values().any(waits)
    }

    /// Ends that wait after `holdFor`. Returns whether it ended.
    pub fn expire_unsampled(&mut self, now: Duration) -> bool {
        let over = self.unsampled() && now.saturating_sub(self.first_seen) > *self.input.hold_for();
        if over {
            for reading in self.input.metrics.values_mut() {
                if reading.state == ReadingState::Waiting && reading.failure.is_none() {
                    reading.state = ReadingState::Expired;
                    reading.failure = Some("not pushed since the operator started".to_owned());
                }
            }
        }
        over
    }

    /// Metric names by set, without pod counts, which need no source.
    pub fn wanted(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        if self.input.target.problem.is_some() {
            return out;
        }
        for rule in self.validated.good() {
            for name in rule.condition.names().iter().chain(rule.quota.names()) {
                let key = metric_key(&self.input, &rule.set, name);
                // A set's name has no dot in it, so the first dot ends it.
                let (set, bare) = match self.input.target.sets.keys().find(|s| {
                    key.strip_prefix(s.as_str())
                        .is_some_and(|r| r.starts_with('.'))
                }) {
                    Some(set) => (
                        set.clone(),
                        key.get(set.len() + 1..).unwrap_or_default().to_owned(),
                    ),
                    None => continue,
                };
                // Pods are counted by the index unless a source has their number.
                if bare != "pod" || self.input.settings.known_metrics.contains("pod") {
                    out.entry(set).or_default().insert(bare);
                }
            }
        }
        out
    }

    /// Takes over one sample. Says what it changes.
    pub fn observe(
        &mut self,
        sampler: &mut Sampler,
        sample_key: &str,
        set: &str,
        name: &str,
        sample: Sample,
        now: Duration,
    ) -> Moved {
        let hold = *self.input.hold_for();
        if !self.sampled_sets.contains(set) {
            self.sampled_sets.insert(set.to_owned());
        }
        let reading = sampler.observe(sample_key, name, sample, now, hold);
        let state = match reading.freshness {
            Freshness::Fresh => ReadingState::Fresh,
            Freshness::Held { .. } => ReadingState::Held,
            // Nothing measured since the start of the process: an earlier decision is held for as long.
            Freshness::Never if now.saturating_sub(reading.since) <= hold => ReadingState::Waiting,
            Freshness::Never | Freshness::Expired { .. } => ReadingState::Expired,
        };
        let new = Reading {
            value: reading.value,
            state,
            failure: reading.failure.map(|f| f.to_string()),
        };
        let key = format!("{set}.{name}");
        let moved = match self.input.metrics.get(&key) {
            Some(old) if *old == new => return Moved::Nothing,
            Some(old) if (old.state, &old.failure) == (new.state, &new.failure) => Moved::Value,
            _ => Moved::State,
        };
        self.input.metrics.insert(key, new);
        moved
    }

    /// Whether a metric in use has not been sampled yet, so that a decision would rest on nothing: right after the start of
    /// the process or of the limiter. The decisions of before stay until then, so a restart changes nothing.
    pub fn pending(&self, now: Duration) -> bool {
        let own = |name: &String| {
            let custom = &self.input.spec.metrics;
            let derived = name.rsplit_once('.').map(|(base, _)| base);
            custom.contains_key(name) || derived.is_some_and(|base| custom.contains_key(base))
        };
        let sampled_soon = |name: &String| {
            let series = name.starts_with('{') && self.input.settings.prometheus;
            series || self.input.settings.known_metrics.contains(name) || own(name)
        };
        now.saturating_sub(self.first_seen) < FIRST_SAMPLE
            && (self.lacks_measures()
                || self.wanted().iter().any(|(set, names)| {
                    names.iter().any(|n| {
                        sampled_soon(n) && !self.input.metrics.contains_key(&format!("{set}.{n}"))
                    })
                }))
    }

    /// Whether time alone may change a limit.
    pub fn is_waiting(&self) -> bool {
        self.steady.is_waiting()
    }

    /// Whether a rule waits for its metrics to give a number.
    pub fn is_undefined(&self) -> bool {
        self.undefined.len() > self.input.overdue.len()
    }

    fn time_undefined(&mut self, now: Duration) {
        let paths = undefined(&self.input, &self.validated);
        self.undefined.retain(|path, _| paths.contains(path));
        for path in paths {
            self.undefined.entry(path).or_insert(now);
        }
        let hold = *self.input.hold_for();
        let long = |since: &Duration| now.saturating_sub(*since) > hold;
        let overdue = self.undefined.iter().filter(|(_, since)| long(since));
        self.input.overdue = overdue.map(|(path, _)| path.clone()).collect();
    }

    /// Decides. Returns whether a quota or state changed.
    pub fn decide(&mut self, now: Duration) -> bool {
        self.time_undefined(now);
        let right = decide(&self.input, &self.validated);
        let decisions = self.steady.settle(&self.input, &self.validated, right, now);
        let before = self.decisions.iter().map(core);
        let changed = !decisions.iter().map(core).eq(before);
        if changed {
            let told = |d: &DescriptorStatus| self.decisions.iter().any(|b| core(b) == core(d));
            for d in decisions.iter().filter(|d| !told(d)) {
                tracing::info!(limiter = %self.input.owner, set = %d.set, index = d.index, state = d.state.as_str(), quota = ?d.quota, reason = %d.reason, "decided");
            }
        }
        self.decisions = decisions;
        self.input.previous = self
            .decisions
            .iter()
            .map(|d| {
                // A descriptor that cannot be decided now does not erase what was decided before.
                let undecided = matches!(
                    d.state,
                    trimtab_crds::limiter::DescriptorState::Refused
                        | trimtab_crds::limiter::DescriptorState::Unknown
                );
                let before = self
                    .input
                    .previous
                    .iter()
                    .find(|p| p.set == d.set && p.index == d.index);
                if undecided {
                    before.cloned().unwrap_or_else(|| d.clone())
                } else {
                    d.clone()
                }
            })
            .collect();
        changed
    }

    /// Adds the present value and limit to the history.
    pub fn remember_point(&mut self, unix_seconds: i64) {
        let metric = self
            .input
            .metrics
            .iter()
            .find(|(k, r)| !k.ends_with(".pod") && r.value.is_some())
            .and_then(|(_, r)| r.value);
        let limits = self.limits().into_iter().map(|l| l.per_second);
        let limit = limits.min_by(f64::total_cmp);
        let dot = Dot::new(unix_seconds, limit, metric);
        if self.history.back().is_some_and(|d| d.is_at(unix_seconds)) {
            self.history.pop_back();
        }
        self.history.push_back(dot);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}

/// What of a decision matters to proxies and in the status.
fn core(d: &DescriptorStatus) -> impl PartialEq + '_ {
    (&d.set, d.index, d.state, d.quota, d.total, d.interval)
}

fn refresh_after(owner: &Owner) -> Duration {
    let hash = xxh3_64(owner.to_string().as_bytes());
    STATUS_REFRESH + Duration::from_millis(hash % SPREAD_MILLIS)
}
