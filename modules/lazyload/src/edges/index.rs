//! The edges of all callers: flat maps of small numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::names::Names;
use super::rules::{Aged, EdgeState, EvidenceSet, Limits, Record, millis};
use super::{ObservedCall, Seen};
use crate::object::{Caller, Evidence};

/// An edge: caller and host.
type Key = (u32, u32);

/// Hosts of one caller that the mesh does not know, at most: whoever can send a request chooses their names.
const UNKNOWN: usize = 64;

/// Hosts of one caller.
#[derive(Debug, Default)]
struct Row {
    hosts: Vec<u32>,
    /// How many of them the mesh does not know.
    unknown: usize,
    /// Full, and no host can make room for another.
    stuck: bool,
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) limits: Limits,
    callers: Names<Caller>,
    hosts: Names<Arc<str>>,
    rows: Vec<Row>,
    edges: HashMap<Key, Record>,
    /// Edges in their grace, and when it ends; `None` until the next tick says what time it is.
    graces: BTreeMap<Key, Option<Duration>>,
    /// By caller, then by the host that calls are counted under: hosts that were called by another name.
    called: HashMap<u32, HashMap<Arc<str>, Vec<Arc<str>>>>,
    /// Callers whose calls until this second are forgotten.
    forgotten: HashMap<Caller, i64>,
    pub(super) changes: BTreeSet<Caller>,
    pub(super) refused: u64,
}

impl Index {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            callers: Names::default(),
            hosts: Names::default(),
            rows: Vec::new(),
            edges: HashMap::new(),
            graces: BTreeMap::new(),
            called: HashMap::new(),
            forgotten: HashMap::new(),
            changes: BTreeSet::new(),
            refused: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn callers(&self) -> Vec<Caller> {
        let mut callers: Vec<Caller> = self.callers.iter().map(|(c, _)| c.clone()).collect();
        callers.sort_unstable();
        callers
    }

    pub(super) fn caller(&self, caller: &Caller) -> Option<u32> {
        self.callers.id(caller)
    }

    /// Hosts and records of a caller, sorted by host.
    pub(super) fn of(&self, caller: &Caller) -> Vec<(Arc<str>, Record)> {
        let Some(id) = self.callers.id(caller) else {
            return Vec::new();
        };
        let mut edges: Vec<_> = self.rows[id as usize]
            .hosts
            .iter()
            .filter_map(|host| {
                let record = self.edges.get(&(id, *host))?;
                Some((self.hosts.name(*host)?.clone(), *record))
            })
            .collect();
        edges.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        edges
    }

    pub(super) fn get(&self, caller: &Caller, host: &str) -> Option<&Record> {
        let key = (self.callers.id(caller)?, self.hosts.id(host)?);
        self.edges.get(&key)
    }

    /// Under which hosts calls of a caller to others of its hosts are counted.
    pub(super) fn count(&mut self, caller: &Caller, counted: &BTreeMap<String, BTreeSet<String>>) {
        let Some(id) = self.callers.id(caller) else {
            return;
        };
        let mut by_count: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
        for (host, under) in counted {
            let Some(host) = self.hosts.id(host.as_str()) else {
                continue;
            };
            let Some(host) = self.hosts.name(host) else {
                continue;
            };
            for name in under {
                let hosts = by_count.entry(name.as_str().into()).or_default();
                hosts.push(host.clone());
            }
        }
        if by_count.is_empty() {
            self.called.remove(&id);
        } else {
            self.called.insert(id, by_count);
        }
    }

    /// A call that was counted under a host was one to any host that leads there, as far as anybody can tell. One that has
    /// expired stays so: it is out of scope, and its next call is seen as its own.
    fn see_called(&mut self, caller: u32, counted: &str, now: i64) {
        let hosts = self.called.get(&caller).and_then(|all| all.get(counted));
        for host in hosts.cloned().unwrap_or_default() {
            let Some(key) = self.hosts.id(&*host).map(|host| (caller, host)) else {
                continue;
            };
            let Some(record) = self.edges.get_mut(&key) else {
                continue;
            };
            if record.state == EdgeState::Expired {
                continue;
            }
            if record.call(EvidenceSet::default(), false, now, &self.limits) {
                self.mark(caller);
            }
            self.graces.remove(&key);
        }
    }

    /// An observed call whose caller has the number `caller`, if it has one.
    pub(super) fn see(&mut self, caller: Option<u32>, seen: &ObservedCall<'_>, now: i64) -> Seen {
        if let Some(caller) = caller {
            self.see_called(caller, seen.host.as_str(), now);
        }
        let evidence_set = EvidenceSet::of(seen.evidence);
        let host = seen.host.as_str();
        if let (Some(caller), Some(host)) = (caller, self.hosts.id(host))
            && let Some(record) = self.edges.get_mut(&(caller, host))
        {
            if record.state == EdgeState::Expired && !seen.revives {
                return Seen::Known;
            }
            let grace = record.state == EdgeState::Expiring;
            if seen.known && !record.known {
                self.rows[caller as usize].unknown -= 1;
            }
            if record.call(evidence_set, seen.known, now, &self.limits) {
                self.mark(caller);
            }
            if grace {
                self.graces.remove(&(caller, host));
            }
            return Seen::Known;
        }
        if !self.room(caller, seen.known) {
            self.refused += 1;
            return Seen::Refused;
        }
        let record = Record::new(evidence_set, seen.known, now);
        if self.insert(&seen.caller, &seen.host.to_shared(), record) {
            Seen::New
        } else {
            Seen::Refused
        }
    }

    /// Whether the caller may have one host more. A known host takes the place of an unknown one or of a tombstone.
    fn room(&mut self, caller: Option<u32>, known: bool) -> bool {
        let Some(caller) = caller else {
            return self.limits.hosts_per_caller > 0;
        };
        let row = &mut self.rows[caller as usize];
        if !known && row.unknown >= UNKNOWN {
            return false;
        }
        if row.hosts.len() < self.limits.hosts_per_caller {
            return true;
        }
        if !known || row.stuck {
            return false;
        }
        let edges = &self.edges;
        let least = row
            .hosts
            .iter()
            .filter_map(|host| edges.get(&(caller, *host)).map(|r| (*host, r)))
            .filter(|(_, r)| !r.known || r.state == EdgeState::Expired)
            .min_by_key(|(host, r)| (r.known, r.last, *host));
        let Some((host, _)) = least else {
            row.stuck = true;
            return false;
        };
        self.remove((caller, host));
        true
    }

    fn insert(&mut self, caller: &Caller, host: &Arc<str>, record: Record) -> bool {
        let id = match self.callers.id(caller) {
            Some(id) => id,
            None => match self.callers.take(caller) {
                Some(id) => id,
                None => return false,
            },
        };
        let Some(host) = self.hosts.take(host) else {
            return false;
        };
        if self.rows.len() <= id as usize {
            self.rows.resize_with(id as usize + 1, Row::default);
        }
        self.rows[id as usize].hosts.push(host);
        self.rows[id as usize].unknown += usize::from(!record.known);
        if record.state == EdgeState::Expiring {
            self.graces.insert((id, host), None);
        }
        self.edges.insert((id, host), record);
        self.mark(id);
        true
    }

    fn remove(&mut self, key: Key) {
        let (caller, host) = key;
        let Some(record) = self.edges.remove(&key) else {
            return;
        };
        self.mark(caller);
        self.graces.remove(&key);
        self.hosts.drop_user(host);
        let row = &mut self.rows[caller as usize];
        row.hosts.retain(|h| *h != host);
        row.unknown -= usize::from(!record.known);
        row.stuck = false;
        if row.hosts.is_empty() {
            *row = Row::default();
            self.called.remove(&caller);
            self.callers.drop_user(caller);
        }
    }

    fn mark(&mut self, caller: u32) {
        if let Some(caller) = self.callers.name(caller)
            && !self.changes.contains(caller)
        {
            self.changes.insert(caller.clone());
        }
    }

    pub(super) fn watched(&mut self, caller: &Caller, by: Duration) {
        let Some(id) = self.callers.id(caller) else {
            return;
        };
        let by = millis(by);
        let mut gone = Vec::new();
        let mut changed = false;
        for host in &self.rows[id as usize].hosts {
            let key = (id, *host);
            let Some(record) = self.edges.get_mut(&key) else {
                continue;
            };
            match record.age(by, &self.limits) {
                Aged::Nothing => continue,
                Aged::Changed => {}
                Aged::Expiring => {
                    self.graces.insert(key, None);
                }
                Aged::Gone => gone.push(key),
            }
            changed = true;
        }
        if changed {
            self.rows[id as usize].stuck = false;
            self.mark(id);
        }
        for key in gone {
            self.remove(key);
        }
    }

    /// Ends graces; the answer is when the next one ends.
    pub(super) fn tick(&mut self, monotonic: Duration) -> Option<Duration> {
        let mut over = Vec::new();
        for (key, end) in &mut self.graces {
            let end = *end.get_or_insert_with(|| monotonic.saturating_add(self.limits.grace));
            let confirmed = self.edges.get(key).is_some_and(|r| r.confirmed);
            if end <= monotonic && confirmed {
                over.push(*key);
            }
        }
        for key in over {
            self.graces.remove(&key);
            if let Some(record) = self.edges.get_mut(&key) {
                record.state = EdgeState::Expired;
                record.confirmed = false;
            }
            self.rows[key.0 as usize].stuck = false;
            self.mark(key.0);
        }
        let ends = self.graces.values().flatten();
        ends.filter(|end| **end > monotonic).min().copied()
    }

    /// Joins what was written of an edge. Whether there is room for it.
    pub(super) fn merge(&mut self, caller: &Caller, host: &Arc<str>, other: Record) -> bool {
        let id = self.callers.id(caller);
        let key = id.zip(self.hosts.id(&**host));
        let Some((key, mine)) = key.and_then(|key| Some((key, self.edges.get_mut(&key)?))) else {
            if self.room(id, other.known) && self.insert(caller, host, other) {
                return true;
            }
            self.refused += 1;
            return false;
        };
        let joined = mine.join(&other, &self.limits);
        let changed = !joined.written_alike(mine, &self.limits);
        if joined.known && !mine.known {
            self.rows[key.0 as usize].unknown -= 1;
        }
        *mine = joined;
        match joined.state {
            EdgeState::Expiring => {
                self.graces.entry(key).or_insert(None);
            }
            EdgeState::Active | EdgeState::Expired => {
                self.graces.remove(&key);
            }
        }
        if changed {
            self.mark(key.0);
        }
        true
    }

    /// Makes these the hints of a caller.
    pub(super) fn hints(
        &mut self,
        caller: &Caller,
        hints: &BTreeMap<Arc<str>, BTreeSet<Evidence>>,
        now: i64,
    ) {
        let proofs_of = |evidence: &BTreeSet<Evidence>| {
            let all = evidence.iter().map(|e| EvidenceSet::of(*e));
            all.fold(EvidenceSet::default(), EvidenceSet::with)
        };
        for (host, old) in self.of(caller) {
            let new = hints.get(&host).map(proofs_of).unwrap_or_default();
            self.rehint(caller, &host, old.evidence_set, new, now);
        }
        for (host, evidence) in hints {
            if self.get(caller, host).is_none() {
                let record = Record::new(proofs_of(evidence), true, now);
                let id = self.callers.id(caller);
                if !self.room(id, true) || !self.insert(caller, host, record) {
                    self.refused += 1;
                }
            }
        }
    }

    fn rehint(
        &mut self,
        caller: &Caller,
        host: &str,
        old: EvidenceSet,
        new: EvidenceSet,
        now: i64,
    ) {
        let evidence_set = old.without(EvidenceSet::hints()).with(new);
        let Some(key) = self.callers.id(caller).zip(self.hosts.id(host)) else {
            return;
        };
        if evidence_set.is_empty() {
            self.remove(key);
            return;
        }
        let Some(record) = self.edges.get_mut(&key) else {
            return;
        };
        let revived = !new.is_empty() && record.state != EdgeState::Active;
        if evidence_set == old && !revived {
            return;
        }
        record.evidence_set = evidence_set;
        if !new.is_empty() {
            if !record.known {
                self.rows[key.0 as usize].unknown -= 1;
            }
            record.idle = 0;
            record.known = true;
            record.state = EdgeState::Active;
            record.confirmed = false;
            record.written = record.last.min(now);
            self.graces.remove(&key);
        }
        self.mark(key.0);
    }

    /// Forgets what a caller called until `now`.
    pub(super) fn forget(&mut self, caller: &Caller, now: i64) {
        self.forgotten.insert(caller.clone(), now);
        if let Some(id) = self.callers.id(caller) {
            for host in self.rows[id as usize].hosts.clone() {
                self.remove((id, host));
            }
        }
    }

    /// Until when calls of a caller are forgotten. A clock that went back since makes that time void.
    pub(super) fn forgotten(&self, caller: &Caller, now: i64) -> Option<i64> {
        self.forgotten
            .get(caller)
            .copied()
            .filter(|until| *until <= now)
    }

    /// Callers, and hosts that some caller has.
    pub(super) fn name_counts(&self) -> (usize, usize) {
        (self.callers.len(), self.hosts.len())
    }
}
