//! Which names may concern the client, and what to tell it about each.

use std::sync::Arc;
use std::time::Instant;

use super::{Held, Session};
use crate::entry::Entry;
use crate::table::Table;

/// What to do about one name.
pub(super) enum Verdict {
    Skip,
    Send {
        entry: Arc<Entry>,
        fallback: bool,
        owed: bool,
    },
    Remove,
}

impl Session {
    /// Reads what changed since the last look, or compares the whole subscription where that is less work.
    pub(super) fn catch_up(&mut self, table: &Table, now: Instant) {
        let head = table.head();
        let cursor = self.cursor.replace(head).unwrap_or(head);
        if !self.rescan && cursor == head {
            return;
        }
        let behind = usize::try_from(head - cursor).unwrap_or(usize::MAX);
        let seen = if self.wildcard { table.len() } else { 0 };
        let short = behind <= self.known.len() + seen;
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
        let covers = self.wildcard && self.delta;
        let mut names = Vec::new();
        if covers && self.rescan {
            self.begin(table, now);
        } else if covers {
            names = self.calm.differing(table, &self.view);
        } else if self.wildcard {
            let seen = table.seen(&self.view);
            let new = seen.names().filter(|name| !self.known.contains_key(*name));
            names = new.map(Arc::from).collect();
        }
        names.extend(self.known.keys().cloned());
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.examine(&name, table, now);
        }
    }

    /// Queues a name if the client may have to hear about it.
    fn examine(&mut self, name: &Arc<str>, table: &Table, now: Instant) {
        let current = table.get(name, &self.view);
        if !self.known.contains_key(name) {
            let calm = self.calm.get(name, &self.view);
            let remembered = calm.or_else(|| self.calm.ahead(name, &self.view));
            if let Some(entry) = remembered {
                // What the client holds, or will get, is what it should hold.
                if current.is_some_and(|current| current.version() == entry.version()) {
                    return;
                }
                self.learn(Arc::clone(name), false, now);
            }
        }
        let Some(known) = self.known.get(name) else {
            if self.wildcard && current.is_some() {
                self.learn(Arc::clone(name), false, now);
                self.enqueue(name);
            }
            return;
        };
        let differs = match current {
            None if self.delta || self.full => known.held.version().is_some() || known.owed,
            None => !known.explicit,
            Some(entry) => {
                let version = Some(entry.version());
                let news = known.held.version() != version && known.rejected.as_deref() != version;
                news || known.owed
            }
        };
        if differs {
            self.enqueue(name);
        }
    }

    pub(super) fn decide(&mut self, name: &Arc<str>, table: &Table) -> Verdict {
        let Some(entry) = table.get(name, &self.view) else {
            return self.decide_missing(name, table);
        };
        let Some(known) = self.known.get_mut(name) else {
            return Verdict::Skip;
        };
        known.queued = false;
        let owed = std::mem::take(&mut known.owed);
        let pin = table.pin_of(name, &self.node);
        known.pinned = pin.is_some();
        // A new stream of a node that refused this content before: it gets what it had accepted, if that is known.
        // If not, it gets the content once more, since it waits for an answer of some kind; a full message is one.
        if let Some(pin) = pin
            && pin.bad == entry.version()
            && (pin.good.is_some() || self.full)
            && known.held.version() != Some(entry.version())
        {
            known.rejected = Some(pin.bad.clone());
        }
        if known.rejected.as_deref() != Some(entry.version()) {
            let same = known.held.version() == Some(entry.version());
            known.hopeless = false;
            return if same && !owed {
                Verdict::Skip
            } else {
                Verdict::Send {
                    entry: Arc::clone(entry),
                    fallback: false,
                    owed,
                }
            };
        }
        let good = match &known.held {
            Held::Has(entry) => Some(Arc::clone(entry)),
            _ => pin.and_then(|pin| pin.good.clone()),
        };
        match good {
            _ if known.hopeless => {
                known.owed = owed;
                Verdict::Skip
            }
            Some(good) if owed || known.held.version() != Some(good.version()) => Verdict::Send {
                entry: good,
                fallback: true,
                owed,
            },
            _ => {
                known.owed = owed;
                Verdict::Skip
            }
        }
    }

    /// For a name that does not exist, or not for this client.
    fn decide_missing(&mut self, name: &Arc<str>, table: &Table) -> Verdict {
        let tells = self.delta || self.full;
        let Some(known) = self.known.get_mut(name) else {
            return Verdict::Skip;
        };
        known.queued = false;
        let owed = std::mem::take(&mut known.owed);
        if owed && !table.variants(name).is_empty() {
            self.denied += 1;
        }
        let tell = tells && (owed || known.held.version().is_some());
        if tells {
            known.held = Held::Nothing;
            known.rejected = None;
        } else {
            // Nothing can be said now, so the question stays open.
            known.owed = owed;
        }
        if !known.explicit {
            if self.calm.mentions(name, &self.view) {
                // Or it would be taken for what is remembered; it is forgotten with that.
                self.restless.push(Arc::clone(name));
            } else {
                self.known.remove(name);
            }
        }
        if tell { Verdict::Remove } else { Verdict::Skip }
    }
}
