//! Which resources differ from what the client has, and what to send of each.

use std::sync::Arc;
use std::time::Instant;

use super::resource::Acked;
use super::state::Session;
use crate::entry::Entry;
use crate::table::Table;

/// What to do about one name.
pub(super) enum Decision {
    Skip,
    Send {
        entry: Arc<Entry>,
        fallback: bool,
        must_send: bool,
    },
    Remove,
}

impl Session {
    /// Reads the change log from the cursor on, or compares the whole subscription where that is less work.
    pub(super) fn catch_up(&mut self, table: &Table, now: Instant) {
        self.read_changes(table, now);
        self.note_resumed(table, now);
    }

    /// Notes what the client has from before the stream, and looks at it again when more is known of it.
    fn note_resumed(&mut self, table: &Table, now: Instant) {
        if self.resumed && !self.full {
            self.resumed = false;
            let unsent = self.resources.values_mut().filter(|s| s.sent.is_none());
            if table.holds.any() {
                unsent.for_each(|state| state.acked = Acked::Initial(String::new()));
            }
        }
        let released = table.holds.released();
        if std::mem::replace(&mut self.released, released) == released {
            return;
        }
        let initial = self.resources.iter();
        let initial = initial.filter(|(_, state)| matches!(state.acked, Acked::Initial(_)));
        let names: Vec<Arc<str>> = initial.map(|(name, _)| Arc::clone(name)).collect();
        for name in names {
            self.examine(&name, table, now);
        }
    }

    /// Whether the client keeps what it has from before the stream, since it is not known what it should have. A delta
    /// client that asks for a name does not have it.
    fn keeps(&self, name: &str, table: &Table, current: Option<&Entry>) -> bool {
        let before = self.resources.get(name).is_some_and(|state| {
            matches!(state.acked, Acked::Initial(_)) && !(self.delta && state.must_send)
        });
        before && table.holds.keeps(name, current)
    }

    fn read_changes(&mut self, table: &Table, now: Instant) {
        let head = table.head();
        let cursor = self.cursor.replace(head).unwrap_or(head);
        if !self.rescan && cursor == head {
            return;
        }
        let behind = usize::try_from(head - cursor).unwrap_or(usize::MAX);
        let visible = if self.wildcard { table.len() } else { 0 };
        let short = behind <= self.resources.len() + visible;
        match table.since(cursor) {
            Some(changes) if short && !self.rescan => {
                for name in changes {
                    self.examine(name, table, now);
                }
            }
            _ => self.compare_all(table, now),
        }
        self.rescan = false;
    }

    fn compare_all(&mut self, table: &Table, now: Instant) {
        let delta_wildcard = self.wildcard && self.delta;
        let mut names = Vec::new();
        if delta_wildcard && self.rescan {
            self.start_wildcard(table, now);
        } else if delta_wildcard {
            names = self.baseline.differing(table, &self.view);
        } else if self.wildcard {
            let snapshot = table.snapshot(&self.view);
            let new = snapshot
                .names()
                .filter(|name| !self.resources.contains_key(*name));
            names = new.map(Arc::from).collect();
        }
        names.extend(self.resources.keys().cloned());
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.examine(&name, table, now);
        }
    }

    /// Queues a name if there may be something to send about it.
    fn examine(&mut self, name: &Arc<str>, table: &Table, now: Instant) {
        let current = table.get(name, &self.view);
        if !self.resources.contains_key(name) {
            let acked = self.baseline.get(name, &self.view);
            let entry = acked.or_else(|| self.baseline.get_unacked(name, &self.view));
            if let Some(entry) = entry {
                // The client has the current content, or will get it.
                if current.is_some_and(|current| current.version() == entry.version()) {
                    return;
                }
                self.track(Arc::clone(name), false, now);
            }
        }
        let Some(state) = self.resources.get(name) else {
            if self.wildcard && current.is_some() {
                self.track(Arc::clone(name), false, now);
                self.enqueue(name);
            }
            return;
        };
        let differs = match current {
            None if self.delta || self.full => state.acked.version().is_some() || state.must_send,
            None => !state.explicit,
            Some(entry) => {
                let version = Some(entry.version());
                let changed =
                    state.acked.version() != version && state.rejected.as_deref() != version;
                changed || state.must_send
            }
        };
        if differs {
            self.enqueue(name);
        }
    }

    pub(super) fn decide(&mut self, name: &Arc<str>, table: &Table) -> Decision {
        let current = table.get(name, &self.view);
        if self.keeps(name, table, current.map(AsRef::as_ref)) {
            if let Some(state) = self.resources.get_mut(name) {
                state.queued = false;
                self.may_be_baseline(name);
            }
            return Decision::Skip;
        }
        let Some(entry) = current else {
            return self.decide_missing(name, table);
        };
        let Some(state) = self.resources.get_mut(name) else {
            return Decision::Skip;
        };
        state.queued = false;
        let must_send = std::mem::take(&mut state.must_send);
        let rejection = table.rejection_of(name, &self.node);
        state.rejection_stored = rejection.is_some();
        if state.rejected.as_deref() != Some(entry.version()) {
            let same = state.acked.version() == Some(entry.version());
            state.fallback_rejected = false;
            return if same && !must_send {
                self.may_be_baseline(name);
                Decision::Skip
            } else {
                Decision::Send {
                    entry: Arc::clone(entry),
                    fallback: false,
                    must_send,
                }
            };
        }
        let last_good = match &state.acked {
            Acked::Response(entry) => Some(Arc::clone(entry)),
            // Another stream of the node has accepted it.
            _ => rejection.and_then(|rejection| rejection.last_good.clone()),
        };
        match last_good {
            _ if state.fallback_rejected => {
                state.must_send = must_send;
                Decision::Skip
            }
            Some(entry) if must_send || state.acked.version() != Some(entry.version()) => {
                Decision::Send {
                    entry,
                    fallback: true,
                    must_send,
                }
            }
            _ => {
                state.must_send = must_send;
                Decision::Skip
            }
        }
    }

    /// A change that was taken back before it was sent, or a refusal that was explained by another one, left a state that says
    /// nothing more than the baseline.
    pub(super) fn may_be_baseline(&mut self, name: &Arc<str>) {
        if self.delta && self.wildcard {
            self.baseline_candidates.push(Arc::clone(name));
        }
    }

    /// For a name that does not exist, or not for this client.
    fn decide_missing(&mut self, name: &Arc<str>, table: &Table) -> Decision {
        let can_remove = self.delta || self.full;
        let Some(state) = self.resources.get_mut(name) else {
            return Decision::Skip;
        };
        state.queued = false;
        let must_send = std::mem::take(&mut state.must_send);
        if must_send && !table.variants(name).is_empty() {
            self.denied += 1;
        }
        let remove = can_remove && (must_send || state.acked.version().is_some());
        if can_remove {
            state.acked = Acked::Nothing;
            state.rejected = None;
        } else {
            // This mode has no removals, so the client waits until the name exists.
            state.must_send = must_send;
        }
        if !state.explicit {
            if self.baseline.contains(name, &self.view) {
                // Without its state the snapshot would count; it goes when the snapshot is replaced.
                self.baseline_candidates.push(Arc::clone(name));
            } else {
                self.resources.remove(name);
            }
        }
        if remove {
            Decision::Remove
        } else {
            Decision::Skip
        }
    }
}
