//! Who calls what: every edge with its evidence, and how long it lives.
//!
//! Time is an argument. An edge ages by *watched* time only: time in which the telemetry of its caller was there and complete
//! and showed no call. Wall time, lost metrics and wrong clocks never narrow a scope.
//!
//! ```text
//!           life without a call           grace, and watched again
//!  Active ─────────────────────> Expiring ────────────────────────> Expired ── remember ──> forgotten
//!    ^──────────── a call ──────────┴────────────── a call ────────────┘
//! ```

mod index;
#[cfg(test)]
mod laws;
mod names;
mod persist;
mod rules;
mod telemetry;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_crds::fence::Dependency;

use crate::object::{Caller, Evidence};
use index::Index;
pub use persist::{host_of_metric, metric_key};
pub use rules::{EdgeState, Limits};
use telemetry::Telemetry;
pub use telemetry::{Strays, Told, Window};

/// A host name that was seen: shared already, or a piece of a message. Full, in lower case, without a port.
#[derive(Clone, Debug)]
pub enum HostName<'a> {
    /// A name that the mesh knows.
    Shared(Arc<str>),
    /// Text of a message.
    Text(Cow<'a, str>),
}

impl HostName<'_> {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Shared(name) => name,
            Self::Text(name) => name,
        }
    }

    /// The name, allocated only if it is not yet shared.
    pub(crate) fn to_shared(&self) -> Arc<str> {
        match self {
            Self::Shared(name) => name.clone(),
            Self::Text(name) => (**name).into(),
        }
    }
}

/// One call that was seen.
#[derive(Clone, Debug)]
pub struct ObservedCall<'a> {
    /// Who called.
    pub caller: Caller,
    /// What was called.
    pub host: HostName<'a>,
    /// Whether the host is a service of the mesh. Others are kept as long as there is room.
    pub known: bool,
    /// How it was seen.
    pub evidence: Evidence,
    /// Whether it brings back an edge that has expired. False for a counter that stands at an unknown time's value.
    pub revives: bool,
}

impl<'a> ObservedCall<'a> {
    /// An observed call of a call that has just been made.
    pub fn new(caller: Caller, host: HostName<'a>, known: bool, evidence: Evidence) -> Self {
        Self {
            caller,
            host,
            known,
            evidence,
            revives: true,
        }
    }
}

/// What became of an observed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A new edge.
    New,
    /// The edge was there.
    Known,
    /// The caller has as many hosts as it may have.
    Refused,
}

/// What became of the observed calls of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// New edges.
    pub new: u64,
    /// Edges that were there.
    pub known: u64,
    /// Observed calls that were not kept.
    pub refused: u64,
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What is called.
    pub host: Arc<str>,
    /// How it is known, sorted.
    pub evidence: Vec<Evidence>,
    /// First call, to the second.
    pub first_seen: Timestamp,
    /// Last call, to the second.
    pub last_seen: Timestamp,
    /// Watched time since the last call.
    pub idle: Duration,
    /// Longest pause between two calls, if it makes the edge live longer; else 0.
    pub longest_gap: Duration,
    /// Where it stands.
    pub state: EdgeState,
    /// Whether the host was a service of the mesh when it was seen.
    pub known: bool,
}

impl Edge {
    /// Whether the edge belongs to the scope.
    pub fn in_scope(&self) -> bool {
        self.state != EdgeState::Expired
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    /// Callers with edges.
    pub callers: usize,
    /// Different hosts.
    pub hosts: usize,
    /// Edges, remembered ones included.
    pub edges: usize,
    /// Observed calls and written edges that were refused because their caller had too many hosts, since the start.
    pub refused: u64,
}

/// The edges of all callers. Every call takes one lock for a short time.
#[derive(Debug)]
pub struct EdgeStore {
    index: Mutex<Index>,
    telemetry: Mutex<Telemetry>,
    notify: Notify,
}

impl EdgeStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            index: Mutex::new(Index::new(limits)),
            telemetry: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// A call to a known service, seen now.
    pub fn see(&self, caller: &Caller, host: &str, evidence: Evidence, now: Timestamp) -> Seen {
        let host = HostName::Text(Cow::Borrowed(host));
        let observed_call = ObservedCall::new(caller.clone(), host, true, evidence);
        self.change(|index| index.see(index.caller(caller), &observed_call, now.as_second()))
    }

    /// All calls of one message, under one hold of the lock.
    pub fn see_all(&self, observed_calls: &[ObservedCall<'_>], now: Timestamp) -> Tally {
        let now = now.as_second();
        self.change(|index| {
            let mut tally = Tally::default();
            let mut last: Option<(&Caller, u32)> = None;
            for observed_call in observed_calls {
                // A message mostly speaks of one caller.
                let id = match last {
                    Some((caller, id)) if *caller == observed_call.caller => Some(id),
                    _ => index.caller(&observed_call.caller),
                };
                last = id.map(|id| (&observed_call.caller, id));
                match index.see(id, observed_call, now) {
                    Seen::New => tally.new += 1,
                    Seen::Known => tally.known += 1,
                    Seen::Refused => tally.refused += 1,
                }
            }
            tally
        })
    }

    /// These callers' telemetry was complete and present for a time of `by`: their edges that were not called age.
    ///
    /// Report what was seen in that time after this, not before, so that it counts as called.
    pub fn watched<'a>(&self, callers: impl IntoIterator<Item = &'a Caller>, by: Duration) {
        for caller in callers {
            self.change(|index| index.watched(caller, by));
        }
    }

    /// A window is over in which these callers' telemetry was complete; what was seen in it is reported before.
    pub fn window(&self, callers: BTreeSet<Caller>, by: Duration) {
        self.telemetry.lock().window(callers, by);
        self.notify.notify_waiters();
    }

    /// Calls that went astray.
    pub fn strays(&self, strays: BTreeMap<Caller, Strays>) {
        if !strays.is_empty() {
            self.telemetry.lock().strays(strays);
            self.notify.notify_waiters();
        }
    }

    /// How many windows are over.
    pub fn windows(&self) -> Arc<AtomicU64> {
        self.telemetry.lock().number()
    }

    /// What telemetry has told since the last time. Take it before [`Self::drain_changes`]: what was seen in its windows
    /// must be among those.
    pub fn drain_telemetry(&self) -> Told {
        let mut told = self.telemetry.lock().drain();
        let refused = std::mem::take(&mut self.index.lock().not_kept);
        told.unproven.extend(refused);
        told
    }

    /// Ends graces. `monotonic` is a clock that never goes back; the answer is its value when the next grace may end.
    ///
    /// A grace begins at the first tick after the expiry, and does not end before the caller was watched once more.
    pub fn tick(&self, monotonic: Duration) -> Option<Duration> {
        self.change(|index| index.tick(monotonic))
    }

    /// Makes `hints` the declared dependencies of a caller, with evidence [`Evidence::Template`] or [`Evidence::Policy`].
    ///
    /// Earlier ones that are not among them any more lose that evidence, and go if they have no other. Declared edges do not
    /// age. Call it for every caller after a start, also with no hints: written hints were restored.
    pub fn set_hints(
        &self,
        caller: &Caller,
        hints: &BTreeMap<Arc<str>, BTreeSet<Evidence>>,
        now: Timestamp,
    ) {
        self.change(|index| index.hints(caller, hints, now.as_second()));
    }

    /// Under which hosts calls of a caller to each of these hosts are counted besides: where routes lead, and what an
    /// ExternalName stands for. Telemetry tells of those, and the dependency is what was called.
    pub fn count_under(&self, caller: &Caller, counted: &BTreeMap<String, BTreeSet<String>>) {
        self.change(|index| index.count(caller, counted));
    }

    /// Forgets all edges of a caller, which are to be learned anew. What was written of calls until `now` is not taken back
    /// by [`Self::restore`]: an older status may still be on its way here.
    pub fn forget(&self, caller: &Caller, now: Timestamp) {
        self.change(|index| index.forget(caller, now.as_second()));
        self.telemetry.lock().unproven([caller.clone()]);
    }

    /// The edges of a caller, remembered ones included, sorted by host.
    pub fn of(&self, caller: &Caller) -> Vec<Edge> {
        let edges = self.index.lock().of(caller);
        edges.into_iter().map(persist::edge).collect()
    }

    /// Callers with edges, sorted.
    pub fn callers(&self) -> Vec<Caller> {
        self.index.lock().callers()
    }

    /// How much it holds.
    pub fn counts(&self) -> EdgeCounts {
        let index = self.index.lock();
        let (callers, hosts) = index.name_counts();
        EdgeCounts {
            callers,
            hosts,
            edges: index.len(),
            refused: index.refused,
        }
    }

    /// Callers whose scope or written form has changed since the last time, sorted.
    pub fn drain_changes(&self) -> BTreeSet<Caller> {
        std::mem::take(&mut self.index.lock().changes)
    }

    /// Waits until [`Self::drain_changes`] or [`Self::drain_telemetry`] has something to give.
    pub async fn changed(&self) {
        loop {
            let notified = self.notify.notified();
            let news = !self.telemetry.lock().is_empty();
            if news || !self.index.lock().changes.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// What is written of a caller, sorted by host. Calls that are no change do not change it.
    pub fn to_dependencies(&self, caller: &Caller) -> Vec<Dependency> {
        let index = self.index.lock();
        let edges = index.of(caller);
        edges
            .into_iter()
            .map(|(host, record)| persist::dependency(caller, &host, &record, &index.limits))
            .collect()
    }

    /// Joins what was written of a caller, by this replica or another, now or earlier: the order and the number of joins do
    /// not matter. The answer is how many could not be read or found no room.
    ///
    /// `Dependency::caller` is not read. Times after `now` become `now`.
    pub fn restore(&self, caller: &Caller, written: &[Dependency], now: Timestamp) -> usize {
        let now = now.as_second();
        self.change(|index| {
            let since = index.forgotten(caller, now);
            let merged = written.iter().filter(|dependency| {
                let record = persist::record(dependency, now, &index.limits);
                record.is_some_and(|(host, record)| {
                    since.is_some_and(|since| record.last <= since)
                        || index.merge(caller, &host, record)
                })
            });
            written.len() - merged.count()
        })
    }

    /// Takes Slime's `status.metricStatus`, or what [`Self::metric_status`] wrote. Edges that are there already stay as they
    /// are: restore `status.dependencies` first. The answer is how many keys were refused.
    pub fn restore_metric_status(
        &self,
        caller: &Caller,
        status: &BTreeMap<String, String>,
        known: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> usize {
        let restored = |host: &str| {
            let host = HostName::Text(Cow::Owned(host.to_owned()));
            let known = known(host.as_str());
            ObservedCall::new(caller.clone(), host, known, Evidence::Restored)
        };
        let observed_calls: Vec<_> = status
            .keys()
            .map(|key| host_of_metric(key).map(restored))
            .collect();
        self.change(|index| {
            // It has no times; whatever it says was known before.
            if index.forgotten(caller, now.as_second()).is_some() {
                return 0;
            }
            let mut refused = 0;
            for observed_call in &observed_calls {
                let kept = observed_call.as_ref().is_some_and(|s| {
                    let id = index.caller(caller);
                    index.get(caller, s.host.as_str()).is_some()
                        || index.see(id, s, now.as_second()) != Seen::Refused
                });
                refused += usize::from(!kept);
            }
            refused
        })
    }

    /// What these callers call, in the form of Slime's `status.metricStatus`. The count is always `1`: it says nothing, and
    /// a count that grows would be a write for each call.
    pub fn metric_status<'a>(
        &self,
        callers: impl IntoIterator<Item = &'a Caller>,
    ) -> BTreeMap<String, String> {
        let index = self.index.lock();
        callers
            .into_iter()
            .flat_map(|caller| index.of(caller))
            .filter(|(_, record)| persist::is_call(record))
            .map(|(host, _)| (metric_key(&host), "1".to_owned()))
            .collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.index.lock();
        let before = index.changes.len();
        let answer = change(&mut index);
        let more = index.changes.len() > before;
        drop(index);
        if more {
            self.notify.notify_waiters();
        }
        answer
    }
}
