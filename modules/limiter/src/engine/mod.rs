//! The engine: keeps one entry for each limiter, turns events and samples into decisions, and hands outputs to the
//! writers and the xDS cache. Synchronous and without I/O; [`crate::controller`] drives it.

mod demand;
mod entry;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::LimiterStatus;
use trimtab_kit::clock::Clock;
use trimtab_kit::queue::LatestQueue;
use trimtab_kit::sources::{Harvest, MetricSource, Sampler};
use trimtab_xds::{Resource, SnapshotCache, content_version};

use crate::index::{Index, LimiterKey};
use crate::input::Settings;
use crate::translate::{EXTENSION_CONFIG_TYPE, ExtensionConfig};
pub use demand::DemandBook;
use entry::Entry;
pub use view::{LimiterView, Point};

/// What the writers do for one limiter.
#[derive(Clone, Debug)]
pub struct Job {
    /// Objects that must exist, all of them; `None` = leave the objects as they are.
    pub desired: Option<Arc<Vec<EnvoyFilter>>>,
    /// Status to write, when it changed.
    pub status: Option<LimiterStatus>,
    /// Failed attempts before this one.
    pub attempt: u32,
}

/// How often moving values in a status are refreshed when nothing else changed: each status write costs the API server
/// an event to every watcher.
const STATUS_REFRESH: Duration = Duration::from_secs(30);
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
    clock: Arc<dyn Clock>,
    xds: SnapshotCache,
    /// Work for the writers.
    pub queue: LatestQueue<LimiterKey, Job>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What one step of an entry wants to push.
#[derive(Default)]
struct Pushes {
    set: Vec<Resource>,
    remove: Vec<String>,
}

impl Engine {
    /// An engine without limiters.
    pub fn new(
        index: Arc<Index>,
        sources: Vec<Arc<dyn MetricSource>>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        xds: SnapshotCache,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            entries: Mutex::default(),
            sampler: Mutex::default(),
            sources,
            settings: Mutex::new(Arc::new(settings)),
            clock,
            xds,
            queue: LatestQueue::default(),
        })
    }

    /// Takes over what events have changed. Returns whether demands may have changed.
    pub fn absorb_events(&self) -> bool {
        let (dirty, gone) = self.index.take_changes();
        let any = !dirty.is_empty() || !gone.is_empty();
        for key in gone {
            self.forget(&key);
        }
        for batch in dirty.chunks(BATCH) {
            let mut pushes = Pushes::default();
            for key in batch {
                let Some(resolved) = self.index.resolve(key) else {
                    continue;
                };
                let mut entries = self.entries.lock();
                let settings = self.settings.lock().clone();
                let now = self.clock.monotonic();
                let entry = entries
                    .entry(key.clone())
                    .or_insert_with(|| Entry::new(&resolved, now));
                entry.update(resolved, settings);
                self.step(key, entry, true, &mut pushes);
            }
            self.push(pushes);
        }
        any
    }

    fn forget(&self, key: &LimiterKey) {
        let Some(entry) = self.entries.lock().remove(key) else {
            return;
        };
        let mut sampler = self.sampler.lock();
        for set in entry.sets() {
            sampler.forget(&sample_key(key, &set));
        }
        drop(sampler);
        self.xds
            .update(EXTENSION_CONFIG_TYPE, Vec::new(), &entry.resource_names());
        tracing::info!(limiter = %entry.input.owner, "limiter is gone");
    }

    /// Demands for the source with number `source`.
    pub fn demands(&self, source: usize) -> DemandBook {
        self.refresh_known_metrics();
        let entries = self.entries.lock();
        demand::book(&self.sources, source, &entries)
    }

    /// Names that sources provide may grow while running (pushed metrics, grouped series).
    fn refresh_known_metrics(&self) {
        let known: std::collections::BTreeSet<String> =
            self.sources.iter().flat_map(|s| s.provides()).collect();
        let mut settings = self.settings.lock();
        if settings.known_metrics != known {
            *settings = Arc::new(Settings {
                known_metrics: known,
                ..(**settings).clone()
            });
        }
    }

    /// Takes over the samples of one tick of one source and decides the limiters that they concern.
    pub fn absorb_harvest(&self, book: &DemandBook, harvest: Harvest) {
        let now = self.clock.monotonic();
        let mut by_owner: BTreeMap<usize, Vec<(String, trimtab_kit::sources::Sample)>> =
            BTreeMap::new();
        for ((id, name), sample) in harvest.values {
            by_owner
                .entry(id.0 as usize)
                .or_default()
                .push((name, sample));
        }
        let touched: Vec<(usize, Vec<_>)> = by_owner.into_iter().collect();
        for batch in touched.chunks(BATCH) {
            let mut pushes = Pushes::default();
            let mut entries = self.entries.lock();
            let settings = self.settings.lock().clone();
            let mut waiting: Vec<&LimiterKey> = Vec::new();
            for (id, samples) in batch {
                let Some((key, set)) = book.owners.get(*id) else {
                    continue;
                };
                let Some(entry) = entries.get_mut(key) else {
                    continue;
                };
                entry.input.settings = settings.clone();
                let mut sampler = self.sampler.lock();
                for (name, sample) in samples {
                    entry.observe(
                        &mut sampler,
                        &sample_key(key, set),
                        set,
                        name,
                        sample.clone(),
                        now,
                    );
                }
                if waiting.last() != Some(&key) {
                    waiting.push(key);
                }
            }
            for key in waiting {
                if let Some(entry) = entries.get_mut(key) {
                    self.step(key, entry, false, &mut pushes);
                }
            }
            drop(entries);
            self.push(pushes);
        }
    }

    /// Decides one entry; queues writes and collects pushes when something changed.
    fn step(&self, key: &LimiterKey, entry: &mut Entry, dirty: bool, pushes: &mut Pushes) {
        let now = self.clock.monotonic();
        let pending = entry.pending(now);
        let changed = !pending && entry.decide(self.clock.now().as_second());
        if changed || dirty {
            let translation = entry.translate();
            for config in &translation.extension_configs {
                pushes.set.push(resource(config, entry));
            }
            pushes.remove.extend(entry.keep_outputs(translation));
        }
        let status = entry.status(self.clock.now());
        let write_status = !pending && entry.should_write(&status, now, STATUS_REFRESH);
        if changed || dirty || write_status {
            self.queue.push(
                key.clone(),
                Job {
                    desired: entry.desired(),
                    status: write_status.then(|| status.clone()),
                    attempt: 0,
                },
            );
        }
        if write_status {
            entry.note_status(status, now);
        }
    }

    fn push(&self, pushes: Pushes) {
        if !pushes.set.is_empty() || !pushes.remove.is_empty() {
            self.xds
                .update(EXTENSION_CONFIG_TYPE, pushes.set, &pushes.remove);
        }
    }

    /// Notes how a write went; a failure shows in the status.
    pub fn written(&self, key: &LimiterKey, error: Option<(&'static str, String)>) {
        self.annotate(key, |entry| {
            let changed = entry.apply_error != error;
            entry.apply_error = error;
            changed
        });
    }

    /// Notes that a proxy refused (`Some`) or took (`None`) a value of the limiter `origin` (`namespace/name`).
    pub fn delivered(&self, origin: &str, rejection: Option<&str>) {
        let Some((namespace, name)) = origin.split_once('/') else {
            return;
        };
        for form in [crate::index::Form::V1alpha2, crate::index::Form::First] {
            let key = LimiterKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                form,
            };
            self.annotate(&key, |entry| {
                let changed = entry.rejected.as_deref() != rejection;
                entry.rejected = rejection.map(str::to_owned);
                changed
            });
        }
    }

    fn annotate(&self, key: &LimiterKey, f: impl FnOnce(&mut Entry) -> bool) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        if f(entry) {
            let now = self.clock.monotonic();
            let status = entry.status(self.clock.now());
            entry.note_status(status.clone(), now);
            self.queue.push(
                key.clone(),
                Job {
                    desired: entry.desired(),
                    status: Some(status),
                    attempt: 0,
                },
            );
        }
    }

    /// A status write was lost: the next decision writes it again.
    pub fn status_lost(&self, key: &LimiterKey) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.forget_status();
        }
    }

    /// Views of all limiters, sorted.
    pub fn views(&self) -> Vec<LimiterView> {
        let entries = self.entries.lock();
        let mut out: Vec<LimiterView> = entries.values().map(Entry::view).collect();
        drop(entries);
        out.sort_by(|a, b| {
            (&a.namespace, &a.name, &a.api_version).cmp(&(&b.namespace, &b.name, &b.api_version))
        });
        out
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

fn resource(config: &ExtensionConfig, entry: &Entry) -> Resource {
    let owner = &entry.input.owner;
    Resource {
        name: config.name.clone(),
        version: content_version(config.canonical.as_bytes()),
        body: config.body.clone().into(),
        origin: format!("{}/{}", owner.namespace, owner.name),
    }
}

#[cfg(test)]
mod tests;
