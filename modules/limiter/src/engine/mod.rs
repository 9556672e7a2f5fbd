//! The engine: keeps one entry for each limiter, turns events and samples into decisions, and hands outputs to the
//! writers and the xDS cache. Synchronous and without I/O; the kit drives it.

mod contract;
mod defaults;
mod description;
mod entry;
mod findings;
mod leader;
mod sample_request;
mod samples;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_kit::answers::Answers;
use trimtab_kit::clock::Clock;
use trimtab_kit::events::Events;
use trimtab_kit::lease::WriteAdmission;
use trimtab_kit::module::Finding;
use trimtab_kit::queue::WorkQueue;
use trimtab_kit::sources::{MetricSource, Sampler};
use trimtab_xds::{Audience, ResourceCache, Scope, Scoped};

use crate::index::{Index, LimiterKey};
use crate::input::Settings;
use crate::translate::EXTENSION_CONFIG_TYPE;
use entry::{Entry, Moved};
pub use sample_request::SampleRequests;
pub use view::{LimitView, LimiterView, Point, TargetView};

/// Entries decided under one hold of the lock.
const BATCH: usize = 512;

/// The engine.
pub struct Engine {
    pub(crate) index: Arc<Index>,
    entries: Mutex<HashMap<LimiterKey, Entry>>,
    sampler: Mutex<Sampler>,
    /// Metric sources; the first that provides a name gives its value.
    pub sources: Vec<Arc<dyn MetricSource>>,
    settings: Mutex<Arc<Settings>>,
    /// What each source is asked for, until an entry or a name of a metric changes.
    requests: Mutex<HashMap<usize, Arc<SampleRequests>>>,
    /// Limiters that time alone will decide: no sample may ever come for them.
    unsettled: Mutex<BTreeSet<LimiterKey>>,
    /// Limiters whose defaults are not what is decided.
    outdated: Mutex<BTreeSet<LimiterKey>>,
    clock: Arc<dyn Clock>,
    xds: ResourceCache,
    /// What proxies say to the values.
    answers: Arc<Answers>,
    /// What is told of limiters.
    pub events: Arc<Events>,
    /// Limiters by the names of their values.
    owners: Mutex<HashMap<String, LimiterKey>>,
    /// Limiters with something to write.
    queue: WorkQueue<LimiterKey>,
    /// Sources whose newest tick got no answer.
    failing: Mutex<BTreeSet<usize>>,
    /// Some limiter waits for its first samples.
    wake_samplers: Notify,
    /// Monotonic time of the first pass.
    started: OnceLock<Duration>,
    admission: WriteAdmission,
    /// This replica decides; else it serves what the leader does.
    leads: AtomicBool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Why an entry is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// An event, or a deadline.
    Event,
    /// A limit that waits for time to pass may come into force.
    Time,
    /// Samples, with what they change.
    Samples(Moved),
}

/// What one step of an entry wants to push.
#[derive(Default)]
struct Pushes {
    set: Vec<Scoped>,
    remove: Vec<String>,
}

impl Engine {
    /// An engine without limiters, of the only replica.
    pub fn new(
        index: Arc<Index>,
        sources: Vec<Arc<dyn MetricSource>>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        xds: ResourceCache,
        answers: Arc<Answers>,
    ) -> Arc<Self> {
        let admission = WriteAdmission::always();
        Self::elected(index, sources, settings, clock, xds, (answers, admission))
    }

    /// An engine without limiters that decides while `admission` says so.
    pub fn elected(
        index: Arc<Index>,
        sources: Vec<Arc<dyn MetricSource>>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        xds: ResourceCache,
        (answers, admission): (Arc<Answers>, WriteAdmission),
    ) -> Arc<Self> {
        let leads = !admission.is_elected();
        index.follow_leader(!leads);
        Arc::new(Self {
            admission,
            leads: leads.into(),
            index,
            entries: Mutex::default(),
            sampler: Mutex::default(),
            sources,
            settings: Mutex::new(Arc::new(settings)),
            requests: Mutex::default(),
            unsettled: Mutex::default(),
            outdated: Mutex::default(),
            clock,
            xds,
            answers,
            events: Arc::default(),
            owners: Mutex::default(),
            queue: WorkQueue::default(),
            failing: Mutex::default(),
            wake_samplers: Notify::new(),
            started: OnceLock::new(),
        })
    }

    /// Takes over what events have changed. Returns whether some limiter waits for its first samples.
    fn absorb_events(&self) -> bool {
        let (dirty, gone) = self.index.drain_changes();
        if gone.is_empty() && dirty.is_empty() {
            return false;
        }
        for key in gone {
            self.forget(&key);
        }
        let mut pending = false;
        // Values that are given by hand are of a run without proxies.
        let restored = !self.sources.iter().any(|s| s.overrides_queries());
        for batch in dirty.chunks(BATCH) {
            let mut pushes = Pushes::default();
            let mut entries = self.entries.lock();
            let settings = self.settings.lock().clone();
            let now = self.clock.monotonic();
            for key in batch {
                let Some(resolved) = self.index.resolve(key) else {
                    continue;
                };
                let entry = entries
                    .entry(key.clone())
                    .or_insert_with(|| Entry::new(&resolved, restored, now));
                entry.update(resolved, settings.clone());
                self.trim_samples(key, entry);
                self.step(key, entry, Cause::Event, &mut pushes);
                pending |= entry.pending(now);
            }
            // Under the lock: a value that was computed later must not be overtaken by this one.
            self.push(pushes);
            drop(entries);
        }
        self.requests.lock().clear();
        pending
    }

    /// Whether any limiter waits for its first samples.
    pub fn any_pending(&self) -> bool {
        let now = self.clock.monotonic();
        self.entries.lock().values().any(|e| e.pending(now))
    }

    /// Decides the limiters whose wait for a first sample or for a push is over. Cheap when there are none.
    fn expire_waits(&self) {
        let waiting: Vec<LimiterKey> = self.unsettled.lock().iter().cloned().collect();
        let now = self.clock.monotonic();
        for key in waiting {
            let mut pushes = Pushes::default();
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(&key) else {
                self.unsettled.lock().remove(&key);
                continue;
            };
            let over = entry.expire_unsampled(now) || !(entry.pending(now) || entry.unsampled());
            if over {
                let cause = if entry.is_waiting() {
                    Cause::Time
                } else {
                    Cause::Event
                };
                self.step(&key, entry, cause, &mut pushes);
                self.push(pushes);
            }
        }
    }

    /// Forgets samples of metrics that are not in use any more.
    fn trim_samples(&self, key: &LimiterKey, entry: &mut Entry) {
        let wanted = entry.wanted();
        let mut sampler = self.sampler.lock();
        for set in &entry.sampled_sets {
            let names = wanted.get(set);
            let measured = entry.measures(set);
            sampler.retain_metrics(&sample_key(key, set), |n| {
                measured.contains(n) || names.is_some_and(|names| names.contains(n))
            });
        }
    }

    fn forget(&self, key: &LimiterKey) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.remove(key) else {
            return;
        };
        let mut sampler = self.sampler.lock();
        for set in &entry.sampled_sets {
            sampler.forget(&sample_key(key, set));
        }
        drop(sampler);
        let names = entry.resource_names();
        let mut owners = self.owners.lock();
        for name in &names {
            owners.remove(name);
        }
        drop(owners);
        self.xds.update(EXTENSION_CONFIG_TYPE, Vec::new(), &names);
        drop(entries);
        tracing::info!(limiter = %entry.input.owner, "limiter is gone");
    }

    /// Samples one source for all limiters and decides those that it concerns.
    pub(crate) async fn sample(&self, source: usize) {
        let Some(handle) = self.sources.get(source) else {
            return;
        };
        let book = self.sample_requests(source);
        if book.sample_requests.is_empty() {
            return;
        }
        let samples = handle.sample(&book.sample_requests).await;
        tracing::debug!(
            source = handle.name(),
            queries = samples.queries,
            elapsed_ms = samples.elapsed.as_millis(),
            "sampled"
        );
        self.report_health(source, handle.as_ref());
        self.apply_samples(&book, samples);
    }

    /// Says once that a source begins to fail, with the cause, and once that it is back.
    fn report_health(&self, source: usize, handle: &dyn MetricSource) {
        let health = handle.health();
        let mut failing = self.failing.lock();
        if !health.ok() && failing.insert(source) {
            let cause = health.last_error.unwrap_or_default();
            tracing::warn!(source = handle.name(), %cause, "the metric source does not answer: last values hold, then fallbacks");
        } else if health.ok() && failing.remove(&source) {
            tracing::info!(source = handle.name(), "the metric source answers again");
        }
    }

    /// Waits until some limiter waits for its first samples.
    pub(crate) async fn samples_wanted(&self) {
        self.wake_samplers.notified().await;
    }

    /// Demands for the source with number `source`.
    pub fn sample_requests(&self, source: usize) -> Arc<SampleRequests> {
        self.refresh_known_metrics();
        let entries = self.entries.lock();
        // Under the lock, so that requests of before a change do not come back after it.
        let mut requests = self.requests.lock();
        let known = requests.entry(source);
        let build = || Arc::new(sample_request::book(&self.sources, source, &entries));
        known.or_insert_with(build).clone()
    }

    /// Names that sources provide may grow while running (pushed metrics, grouped series).
    fn refresh_known_metrics(&self) {
        let known: BTreeSet<String> = self.sources.iter().flat_map(|s| s.provides()).collect();
        let mut settings = self.settings.lock();
        if settings.known_metrics != known {
            *settings = Arc::new(Settings {
                known_metrics: known,
                ..(**settings).clone()
            });
            self.requests.lock().clear();
        }
    }

    /// Decides one entry; queues a write and collects pushes when something changed. What the cause does not change is not
    /// worked out again: most ticks change values and no decision.
    fn step(&self, key: &LimiterKey, entry: &mut Entry, cause: Cause, pushes: &mut Pushes) {
        let now = self.clock.monotonic();
        if !self.leads.load(Ordering::Relaxed) {
            return self.follow(key, entry, cause, pushes);
        }
        let (dirty, pending) = (cause == Cause::Event, entry.pending(now));
        let waits = pending || entry.unsampled() || entry.is_waiting();
        let settled = !waits && !entry.is_undefined();
        let unmoved = cause == Cause::Samples(Moved::Nothing) && settled;
        let changed = !unmoved && !pending && entry.decide(now);
        let waits = pending || entry.unsampled() || entry.is_waiting();
        if !pending {
            entry.remember_point(self.clock.now().as_second());
        }
        if waits {
            self.unsettled.lock().insert(key.clone());
        } else if !unmoved {
            self.unsettled.lock().remove(key);
        }
        if changed || dirty {
            self.serve(key, entry, pending, pushes);
        }
        let only_values = matches!(
            cause,
            Cause::Time | Cause::Samples(Moved::Nothing | Moved::Value)
        );
        if changed || (waits && cause != Cause::Time) || !only_values || entry.is_due(now) {
            entry.refresh_status(&self.answers, self.clock.now());
        }
        if changed || dirty || (!pending && entry.should_write(now)) {
            self.queue.push(key.clone());
        }
    }

    /// Collects the pushes of what is decided.
    fn serve(&self, key: &LimiterKey, entry: &mut Entry, pending: bool, pushes: &mut Pushes) {
        let translation = entry.translate(self.clock.monotonic());
        self.note_defaults(key, entry);
        let Some(outputs) = entry.keep_outputs(&translation, pending) else {
            return;
        };
        let mut owners = self.owners.lock();
        for name in &outputs.remove {
            owners.remove(name);
        }
        owners.extend(outputs.set.iter().map(|r| (r.name.clone(), key.clone())));
        drop(owners);
        let scope = self.scope(key);
        let set = outputs.set.into_iter().map(|resource| Scoped {
            resource,
            scope: scope.clone(),
        });
        pushes.set.extend(set);
        pushes.remove.extend(outputs.remove);
    }

    fn push(&self, pushes: Pushes) {
        if !pushes.set.is_empty() || !pushes.remove.is_empty() {
            self.xds
                .update_scoped(EXTENSION_CONFIG_TYPE, pushes.set, &pushes.remove);
        }
    }

    /// Whose proxies may see the values of a limiter: those that Istio applies its EnvoyFilter to.
    fn scope(&self, key: &LimiterKey) -> Scope {
        let everybody = !self.settings.lock().xds.identified || self.index.is_root(&key.namespace);
        if everybody {
            Scope::All
        } else {
            Scope::only([Audience::Namespace(key.namespace.clone())])
        }
    }

    /// A limiter with its history; `None`: there is none.
    pub fn view(&self, namespace: &str, name: &str) -> Option<LimiterView> {
        let entries = self.entries.lock();
        let found = entries
            .iter()
            .filter(|(k, _)| k.namespace == namespace && k.name == name);
        let (_, entry) = found.min_by_key(|(k, _)| k.form)?;
        let mut view = entry.view(true);
        drop(entries);
        view.fill_host(&self.index.domain());
        Some(view)
    }

    /// Views of all limiters, sorted, without their histories.
    pub fn views(&self) -> Vec<LimiterView> {
        let entries = self.entries.lock();
        let mut out: Vec<LimiterView> = entries.values().map(|e| e.view(false)).collect();
        drop(entries);
        let domain = self.index.domain();
        for view in &mut out {
            view.fill_host(&domain);
        }
        out.sort_by(|a, b| {
            (&a.namespace, &a.name, &a.api_version).cmp(&(&b.namespace, &b.name, &b.api_version))
        });
        out
    }

    /// What is refused of the limiters, and what is decided, sorted by limiter.
    pub fn findings(&self) -> Vec<Finding> {
        let entries = self.entries.lock();
        let mut keys: Vec<&LimiterKey> = entries.keys().collect();
        keys.sort_unstable();
        let found = keys.into_iter().filter_map(|k| entries.get(k));
        found.flat_map(Entry::findings).collect()
    }

    /// The resolved inputs of a limiter: what a bug report attaches.
    pub fn input(&self, namespace: &str, name: &str) -> Option<crate::input::LimiterInput> {
        let entries = self.entries.lock();
        entries
            .iter()
            .filter(|(k, _)| k.namespace == namespace && k.name == name)
            .min_by_key(|(k, _)| k.form)
            .map(|(_, e)| e.input.clone())
    }
}

/// Stable key of a limiter's set in the sampler.
fn sample_key(key: &LimiterKey, set: &str) -> String {
    format!("{}/{}/{:?}/{set}", key.namespace, key.name, key.form)
}
