//! Modes `Exclude` and `Auto`: what their fences leave out, and which step they are at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trimtab_crds::fence::{Mode, ScopeSize};
use trimtab_kit::istiod::Release;

use super::{Engine, Entry, Inner};
use crate::edges::Told;
use crate::exclude::{self, Needed};
use crate::object::{Caller, FenceKey};
use crate::scope::services::{Protocol, Services as _};
use crate::scope::{Claim, Role};
use crate::status::FallbackState;
use crate::tighten::Now;

fn host_of(entry: &str) -> &str {
    entry.split_once('/').map_or("", |(_, host)| host)
}

/// What is asked of the mesh for one Sidecar.
struct Asked {
    needed: Needed,
    mesh: ScopeSize,
    proven: Option<u64>,
    doubted: BTreeMap<String, u64>,
    /// No other fence shares the Sidecar.
    alone: bool,
}

/// What is asked when the Sidecar of this fence must have everything: its own mode says so, or that of a fence that shares
/// its pods.
fn asked(
    inner: &Inner,
    key: &FenceKey,
    role: &Role,
    others: &[Claim],
    min: Duration,
) -> Option<Asked> {
    let with: Vec<&FenceKey> = match role {
        Role::Writes { with, .. } => with.iter().collect(),
        Role::MergedInto(_) => others.iter().filter(|o| o.writes).map(|o| &o.key).collect(),
    };
    let members = std::iter::once(key).chain(with);
    let members: Vec<&Entry> = members.filter_map(|k| inner.fences.get(k)).collect();
    if !members.iter().any(|e| e.mode == Mode::Exclude) {
        return None;
    }
    let own = inner.fences.get(key).filter(|e| e.mode != Mode::Observe)?;
    let mut needed = Needed::default();
    needed.add(own.orphans.kept());
    let mut doubted: BTreeMap<String, u64> = BTreeMap::new();
    for member in &members {
        needed.add(member.scope.entries.keys());
        needed.add_imports(&member.scope.imports);
        for (entry, window) in &member.modes.doubted {
            let last = doubted.entry(entry.clone()).or_default();
            *last = (*last).max(*window);
        }
    }
    let proven = members.iter().map(|e| e.modes.watched.proven(min));
    Some(Asked {
        needed,
        mesh: own.union.size.clone(),
        proven: proven.min().flatten(),
        doubted,
        alone: members.len() == 1,
    })
}

impl Engine {
    fn proof(&self) -> Duration {
        *self.config().retention.min
    }

    /// Works out what the Sidecar of a fence leaves out, if it has everything else.
    pub(super) fn leave_out(&self, key: &FenceKey, role: &Role, others: &[Claim]) {
        let asked = asked(&self.inner.lock(), key, role, others, self.proof());
        let unused = asked.map(|asked| self.unused(&key.namespace, &asked));
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        entry.modes.excluded = unused.map(|(excluded, size)| {
            entry.union.size = size;
            excluded
        });
    }

    /// What is left out of a Sidecar with everything, and the size that is left.
    fn unused(&self, client: &str, asked: &Asked) -> (BTreeSet<String>, ScopeSize) {
        self.since.watch();
        let (old, counts) = {
            let istiod = self.istiod.lock();
            // Of several fences, those of another mode must not wait for an istiod that takes exclusions.
            let refuses = istiod.refuses() && !asked.alone;
            (istiod.is_old() || refuses, istiod.is_new())
        };
        let registry = self.index.services();
        let excluded = match asked.proven {
            Some(proven) if !old => {
                let mesh = exclude::Mesh {
                    services: &*registry,
                    all: registry.all().cloned().collect(),
                    catching: self.since.catching(),
                };
                exclude::unused(client, &mesh, &asked.needed, |entry| {
                    let name = format!("{}/{}", entry.namespace, entry.host);
                    let doubt = asked.doubted.get(&name);
                    self.since.of(entry).is_some_and(|since| since <= proven)
                        && doubt.is_none_or(|window| *window <= proven)
                })
            }
            _ => BTreeSet::new(),
        };
        // Whoever does not know exclusions gives everything.
        let none = BTreeSet::new();
        let counted = if counts { &excluded } else { &none };
        let routes = registry.all_routes();
        let size = exclude::size::size(client, &*registry, &routes, counted, &asked.mesh);
        (excluded, size)
    }

    /// Takes over what telemetry has told. Gives the fences whose Sidecar or step follows from it.
    pub(super) fn take_telemetry(&self, told: &Told) -> BTreeSet<FenceKey> {
        let mut dirty = self.take_windows(told);
        dirty.extend(self.doubt(told));
        dirty.extend(self.services_moved());
        dirty.extend(self.tighten(told));
        dirty
    }

    fn take_windows(&self, told: &Told) -> BTreeSet<FenceKey> {
        let min = self.proof();
        let mut inner = self.inner.lock();
        let mut dirty = BTreeSet::new();
        for (key, entry) in &mut inner.fences {
            let modes = &mut entry.modes;
            let wide = entry.mode == Mode::Exclude || modes.excluded.is_some();
            if told.unproven.iter().any(|c| modes.watched.has(c)) {
                modes.watched.restart();
                dirty.extend(wide.then(|| key.clone()));
            }
            let before = modes.watched.proven(min);
            for window in &told.windows {
                modes.watched.take(window, min);
            }
            let after = modes.watched.proven(min);
            let Some(proven) = after.filter(|_| wide && after > before) else {
                continue;
            };
            let doubts = modes.doubted.len();
            modes.doubted.retain(|_, window| *window > proven);
            if doubts != modes.doubted.len() || self.since.any(before, proven) {
                dirty.insert(key.clone());
            }
        }
        dirty
    }

    /// A TCP connection to an excluded service names no host, so that each of them may be meant.
    fn doubt(&self, told: &Told) -> BTreeSet<FenceKey> {
        let astray = told.strays.iter().filter(|(_, strays)| strays.tcp > 0);
        let astray: Vec<&Caller> = astray.map(|(caller, _)| caller).collect();
        if astray.is_empty() {
            return BTreeSet::new();
        }
        let named: BTreeSet<FenceKey> = {
            let inner = self.inner.lock();
            let has = |e: &Entry| astray.iter().any(|c| e.modes.watched.has(c));
            let fences = inner.fences.iter().filter(|(_, e)| has(e));
            fences.map(|(key, _)| key.clone()).collect()
        };
        // Another fence may write the Sidecar.
        let mut near = named.clone();
        for key in &named {
            let resolved = self.index.resolve(key);
            near.extend(resolved.into_iter().flat_map(|r| r.overlaps).map(|o| o.key));
        }
        let mut excluded: Vec<(FenceKey, String)> = Vec::new();
        {
            let inner = self.inner.lock();
            for key in near {
                let entry = inner.fences.get(&key);
                let all = entry.and_then(|e| e.modes.excluded.as_ref());
                excluded.extend(all.into_iter().flatten().map(|e| (key.clone(), e.clone())));
            }
        }
        {
            let registry = self.index.services();
            excluded.retain(|(_, entry)| {
                let entries = registry.host(host_of(entry));
                let mut ports = entries.iter().flat_map(|e| e.ports.to_vec());
                ports.any(|p| !matches!(p.protocol, Protocol::Http | Protocol::Http2))
            });
        }
        let window = self.since.window();
        let mut inner = self.inner.lock();
        let mut dirty = BTreeSet::new();
        for (key, excluded) in excluded {
            if let Some(entry) = inner.fences.get_mut(&key) {
                entry.modes.doubted.insert(excluded, window);
                dirty.insert(key);
            }
        }
        dirty
    }

    /// Fences with an exclusion of a service that is another one now, or gone.
    fn services_moved(&self) -> BTreeSet<FenceKey> {
        let moved = self.since.drain_changes();
        if moved.is_empty() {
            return BTreeSet::new();
        }
        let inner = self.inner.lock();
        let touched = |entry: &Entry| {
            let mut excluded = entry.modes.excluded.iter().flatten();
            excluded.any(|e| moved.has(host_of(e)))
        };
        let fences = inner.fences.iter().filter(|(_, e)| touched(e));
        fences.map(|(key, _)| key.clone()).collect()
    }

    /// Takes the steps of mode `Auto`.
    fn tighten(&self, told: &Told) -> BTreeSet<FenceKey> {
        let config = self.config();
        let keys: Vec<FenceKey> = {
            let inner = self.inner.lock();
            let auto = inner.fences.iter();
            let auto = auto.filter(|(_, e)| e.modes.tighten.is_some());
            auto.map(|(key, _)| key.clone()).collect()
        };
        let now = Now {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let mut dirty = BTreeSet::new();
        for key in keys {
            let carried = self.is_carried(&key.namespace);
            let mut inner = self.inner.lock();
            let Some(entry) = inner.fences.get_mut(&key) else {
                continue;
            };
            let seen = entry.modes.seen(told, carried);
            let Some(tighten) = &mut entry.modes.tighten else {
                continue;
            };
            let before = tighten.to_status(&config.auto);
            let turn = tighten.step(&seen, &config.auto, now);
            let moved = before != tighten.to_status(&config.auto);
            if let Some(turn) = turn {
                let bound = tighten.bound(&config.auto);
                drop(inner);
                self.tell(&key, turn, bound);
                dirty.insert(key);
            } else if moved {
                drop(inner);
                self.queue.push(super::WorkItem::Fence(key));
            }
        }
        dirty
    }

    /// Whether calls out of scope reach their service.
    pub(super) fn is_carried(&self, namespace: &str) -> bool {
        !matches!(self.fallback_state(namespace), FallbackState::NotReady(_))
    }
}

impl Engine {
    /// Whether anybody wants to know what istiod is.
    pub fn asks_istiod(&self) -> bool {
        let inner = self.inner.lock();
        let mut fences = inner.fences.values();
        fences.any(|e| e.mode == Mode::Exclude || e.modes.tighten.is_some())
    }

    /// There is no istiod: exclusions are taken to be known.
    pub fn without_istiod(&self) {
        self.istiod.lock().assumed = true;
    }

    /// What istiod says of itself.
    pub fn note_release(&self, release: Release) {
        let changed = {
            let mut istiod = self.istiod.lock();
            let before = istiod.clone();
            istiod.says(release);
            before != *istiod
        };
        if changed {
            tracing::info!(%release, "istiod says its version");
            self.istiod_moved();
        }
    }

    /// The API server refused exclusions, or took them.
    pub(super) fn note_refusal(&self, refused: bool) {
        let changed = {
            let mut istiod = self.istiod.lock();
            let before = istiod.refuses();
            istiod.refused(refused.then(|| self.clock.monotonic()));
            before != refused
        };
        if changed {
            self.istiod_moved();
        }
    }

    /// Lets fences of mode `Auto` try again after a while.
    pub(super) fn retry_exclusions(&self) {
        let now = self.clock.monotonic();
        let mut istiod = self.istiod.lock();
        if istiod.retries(now) {
            drop(istiod);
            self.istiod_moved();
        }
    }

    fn istiod_moved(&self) {
        let mut inner = self.inner.lock();
        let wide = inner.fences.iter();
        let wide = wide.filter(|(_, e)| e.mode == Mode::Exclude || e.modes.excluded.is_some());
        let wide: Vec<_> = wide.map(|(key, _)| key.clone()).collect();
        inner.again.extend(wide);
        drop(inner);
        self.wake.notify_one();
    }
}
