//! The state of each resource at the client, for the admin API and for statuses.

use std::collections::HashSet;
use std::sync::Arc;

use super::baseline::Initial;
use super::message::Item;
use super::resource::{Acked, ResourceState};
use super::state::Session;
use crate::entry::Entry;
use crate::info::{Awaits, Clock, Refusal, ResourceInfo, Stamp};
use crate::table::Table;

/// Most names of the response in flight that are reported as what others wait for.
const NAMED: usize = 3;

/// What all resources of one report share.
struct Report<'a> {
    table: &'a Table,
    clock: &'a Clock,
    /// Names in the response in flight.
    in_flight: HashSet<&'a str>,
    /// The first of them.
    ahead: Vec<String>,
}

impl Session {
    /// Every resource that the client subscribes to or has, sorted by name: O(n log n) in their number.
    pub(crate) fn report(&self, table: &Table, clock: &Clock) -> Vec<ResourceInfo> {
        let names = self.in_flight.iter().flat_map(|in_flight| {
            let changes = in_flight.push.items.iter().filter(|item| item.is_change());
            let removed = in_flight.push.removed.iter().map(|name| &**name);
            changes.map(Item::name).chain(removed)
        });
        let report = Report {
            table,
            clock,
            ahead: names.clone().take(NAMED).map(str::to_owned).collect(),
            in_flight: names.collect(),
        };
        let mut infos: Vec<ResourceInfo> = self
            .resources
            .iter()
            .map(|(name, state)| self.info(name, state, &report))
            .collect();
        let baseline = self.baseline.entries(&self.view);
        infos.extend(
            baseline
                .filter(|(entry, _)| !self.resources.contains_key(entry.name()))
                .map(|(entry, place)| {
                    self.info(entry.name(), &self.initial_state(entry, place), &report)
                }),
        );
        infos.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A name that several audiences see comes more than once.
        infos.dedup_by(|a, b| a.name == b.name);
        infos
    }

    fn initial_state(&self, entry: &Arc<Entry>, place: Initial) -> ResourceState {
        match place {
            Initial::Acked => self.baseline_state(entry),
            Initial::Sent => ResourceState {
                sent: self.pending_since().map(|at| (Arc::clone(entry), at)),
                ..ResourceState::new(false, self.started)
            },
            Initial::Unsent => ResourceState::new(false, self.started),
        }
    }

    fn info(&self, name: &str, state: &ResourceState, report: &Report<'_>) -> ResourceInfo {
        let clock = report.clock;
        let current = report.table.get(name, &self.view);
        let acked_at = match &state.acked {
            Acked::Response(_) => state.acked_at.map(|at| clock.time(at)),
            Acked::Nothing | Acked::Initial(_) => None,
        };
        // An ACK that proves nothing is none.
        let doubtful = state.refusal.as_ref().is_some_and(|r| r.acked_since);
        let acked = state.acked.version().filter(|_| !doubtful);
        let mut info = ResourceInfo {
            name: name.to_owned(),
            current: current.map(|entry| entry.version().to_owned()),
            sent: state.sent.as_ref().map(|(entry, at)| Stamp {
                version: entry.version().to_owned(),
                at: Some(clock.time(*at)),
            }),
            acked: acked.map(|version| Stamp {
                version: version.to_owned(),
                at: acked_at,
            }),
            refused: state.refusal.as_ref().map(|refusal| Refusal {
                version: refusal.version.clone(),
                message: refusal.message.to_string(),
                at: clock.time(refusal.at),
                culprit: refusal.culprit,
            }),
            awaits: None,
        };
        if !info.is_synced() && info.refusal().is_none() {
            info.awaits = Some(awaits(name, state, &info, report));
        }
        info
    }
}

fn awaits(name: &str, state: &ResourceState, info: &ResourceInfo, report: &Report<'_>) -> Awaits {
    let sent = info.sent.as_ref().map(|sent| &sent.version);
    let newest = info.current.is_none() || sent == info.current.as_ref();
    if report.in_flight.contains(name) && newest {
        Awaits::Answer
    } else if !report.ahead.is_empty() {
        Awaits::Other(report.ahead.clone())
    } else if state.held {
        Awaits::Clusters
    } else {
        Awaits::Turn
    }
}
