//! What a wildcard client holds and nothing is to be said about, in a few bytes a name.
//!
//! Nearly all names of such a client are in this state nearly all the time, and a full [`Known`] for each of them on each
//! stream would be most of the memory of the server. A name that is in the map of known names besides is what the map says:
//! its place here is kept only to be filled again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Held, Known, Session};
use crate::table::{Entry, Table};

/// Instead of a time: there was none.
const NEVER: u32 = u32::MAX;

/// One name; times are milliseconds after the start of the session.
#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    sent: u32,
    acked: u32,
}

impl Slot {
    fn name(&self) -> &str {
        &self.entry.resource.name
    }
}

/// The calm names, sorted. A lookup is O(log n); a change of what exists moves nothing.
#[derive(Debug, Default)]
pub(super) struct Calm(Vec<Slot>);

impl Calm {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|slot| slot.name().cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        let slot = self.0.get(self.place(name).ok()?)?;
        Some(&slot.entry)
    }

    pub(super) fn forget(&mut self, name: &str) {
        if let Ok(place) = self.place(name) {
            self.0.remove(place);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Slot::name)
    }

    /// Fills places again and makes new ones: O(m log n), and O(n) more if there is a new one.
    fn put(&mut self, slots: Vec<Slot>) {
        let mut new = Vec::new();
        for slot in slots {
            match self.place(slot.name()) {
                Ok(place) => self.0[place] = slot,
                Err(_) => new.push(slot),
            }
        }
        if !new.is_empty() {
            self.0.reserve_exact(new.len());
            self.0.append(&mut new);
            self.0.sort_by(|a, b| a.name().cmp(b.name()));
        }
    }
}

impl Session {
    fn after(&self, at: Option<Instant>) -> u32 {
        at.map_or(NEVER, |at| {
            let after = at.saturating_duration_since(self.started).as_millis();
            u32::try_from(after).unwrap_or(NEVER).min(NEVER - 1)
        })
    }

    fn at(&self, after: u32) -> Option<Instant> {
        (after != NEVER).then(|| self.started + Duration::from_millis(after.into()))
    }

    /// A calm name with all that is known of it.
    pub(super) fn recall(&self, name: &str) -> Option<Known> {
        let slot = self.calm.0.get(self.calm.place(name).ok()?)?;
        let sent = self.at(slot.sent);
        Some(Known {
            held: Held::Has(Arc::clone(&slot.entry)),
            sent: sent.map(|at| (Arc::clone(&slot.entry), at)),
            acked: self.at(slot.acked),
            ..Known::new(false, self.started)
        })
    }

    /// Called when nothing is left to say and no answer is awaited: puts away the names that were in motion.
    pub(super) fn calm_down(&mut self, table: &Table) {
        if self.restless.is_empty() {
            return;
        }
        let restless = std::mem::take(&mut self.restless);
        let mut slots = Vec::with_capacity(restless.len());
        for name in restless {
            let Some(known) = self.known.get(&name) else {
                continue;
            };
            let entry = match &known.held {
                Held::Has(entry) => Some(entry),
                // What the client announced is what the table has, or there would be something to say.
                Held::Announced(version) => table
                    .get(&name, &self.view)
                    .filter(|entry| entry.version() == version),
                Held::Nothing => None,
            };
            if let Some(entry) = entry.filter(|_| known.is_plain()) {
                slots.push(Slot {
                    entry: Arc::clone(entry),
                    sent: self.after(known.sent.as_ref().map(|(_, at)| *at)),
                    acked: self.after(known.acked),
                });
                self.known.remove(&name);
            }
        }
        self.calm.put(slots);
        // Much more room than names: the time of a first answer.
        if self.known.capacity() > 64 + 4 * self.known.len() {
            self.known.shrink_to_fit();
            self.queue.shrink_to_fit();
        }
    }
}
