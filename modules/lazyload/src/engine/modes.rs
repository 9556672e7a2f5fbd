//! What a fence needs for modes `Exclude` and `Auto`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use trimtab_crds::fence::{DependencyState, Mode};

use crate::edges::Told;
use crate::exclude::{Needed, Watched};
use crate::mesh::ResolvedFence;
use crate::object::{Caller, Evidence, FenceKey};
use crate::scope::{Learned, Scope};
use crate::tighten::{Seen, Tighten};

/// What a fence needs for these modes. All fences have it: a change of mode finds what was watched before.
#[derive(Debug, Default)]
pub(super) struct Modes {
    pub(super) watched: Watched,
    /// Entries that the Sidecar leaves out; `None`: it names what it imports.
    pub(super) excluded: Option<BTreeSet<String>>,
    /// Entries that may have been called though no call can be told, by the window.
    pub(super) doubted: BTreeMap<String, u64>,
    /// Of mode `Auto`.
    pub(super) tighten: Option<Tighten>,
    /// Hosts that are learned, as far as they were called.
    called: BTreeSet<Arc<str>>,
    /// How many of them came in since the last window that the scope did not have.
    outside: u64,
}

impl Modes {
    /// The mode in force.
    pub(super) fn mode(&mut self, resolved: &ResolvedFence, now: Timestamp) -> Mode {
        if resolved.mode != Mode::Auto {
            self.tighten = None;
            return resolved.mode;
        }
        let begin = || match &resolved.status.auto {
            Some(stored) => Tighten::from_status(stored, now),
            None => Tighten::new(now),
        };
        self.tighten.get_or_insert_with(begin).mode()
    }

    /// The workloads whose telemetry counts.
    pub(super) fn watch(&mut self, key: &FenceKey, callers: &BTreeSet<Caller>) {
        if callers.is_empty() {
            let by_name = Caller::new(&key.namespace, &key.name);
            self.watched.of(&BTreeSet::from([by_name]));
        } else {
            self.watched.of(callers);
        }
    }

    /// Looks which learned hosts are new. `before` is the scope that they were called under; `None`: it is the first.
    pub(super) fn learned(&mut self, before: Option<&Scope>, learned: &[Learned]) {
        if self.tighten.is_none() {
            return;
        }
        let seen = [Evidence::AccessLog, Evidence::Prometheus];
        let called = learned.iter().filter(|l| {
            l.state == DependencyState::Active && seen.iter().any(|e| l.evidence.contains(e))
        });
        let called: BTreeSet<Arc<str>> = called.map(|l| l.host.clone()).collect();
        let known = std::mem::replace(&mut self.called, called);
        let Some(before) = before else {
            return;
        };
        let mut needed = Needed::default();
        needed.add(before.entries.keys());
        needed.add_imports(&before.imports);
        let new = self.called.difference(&known);
        let new = new.filter(|host| !needed.has_host(host)).count();
        self.outside += u64::try_from(new).unwrap_or(u64::MAX);
    }

    /// What telemetry has told of its workloads.
    pub(super) fn seen(&mut self, told: &Told, carried: bool) -> Seen {
        let windows = told.windows.iter();
        let watched = windows.filter(|w| self.watched.is_in(&w.callers));
        let watched: Option<Duration> = watched.map(|w| w.by).reduce(|a, b| a + b);
        let strays = told.strays.iter().filter(|(c, _)| self.watched.has(c));
        Seen {
            watched,
            strays: strays.map(|(_, s)| s.http + s.tcp).sum(),
            new_hosts: std::mem::take(&mut self.outside),
            carried,
        }
    }
}
