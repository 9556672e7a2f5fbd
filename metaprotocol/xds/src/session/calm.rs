//! What a wildcard client holds and nothing is to be said about, in no memory for each name.
//!
//! Nearly all names of such a client are in this state nearly all the time. What the table had for the client at one moment is
//! a value of its own ([`Seen`]), shared by all streams that are in step; the stream keeps it, and in the map of known names
//! only the exceptions. A name in that map is what the map says, whatever is remembered here.
//!
//! A client that connects with nothing gets that value in order, so that its first answer needs no state for each name
//! either: what is before a place is held, what is after it is not yet sent.

use std::sync::Arc;
use std::time::Instant;

use super::{Held, Item, Known, Load, Session};
use crate::entry::{Entry, Variants};
use crate::roster::Place;
use crate::scope::View;
use crate::table::{Seen, Table};

/// What the client holds besides the known names.
#[derive(Debug, Default)]
pub(super) struct Calm {
    seen: Seen,
    /// Where in the log of changes that was.
    cursor: u64,
    /// The public names before it are held; at the end the others are, too.
    held: Place,
    /// Where the message in flight ends.
    flying: Option<Place>,
    /// When the client was first told, and when it was last in step.
    pub(super) since: Option<Instant>,
    at: Option<Instant>,
}

impl Calm {
    fn is_whole(&self) -> bool {
        self.held == Place::END
    }

    pub(super) fn get(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        if self.is_whole() {
            return self.seen.get(name, view);
        }
        let (place, variants) = self.seen.public.find(name)?;
        variants.seen_by(view).filter(|_| place < self.held)
    }

    /// What will be sent for a name, or is in flight.
    pub(super) fn ahead(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        let (place, variants) = self.seen.public.find(name)?;
        variants.seen_by(view).filter(|_| place >= self.held)
    }

    /// Whether anything at all is remembered under a name.
    pub(super) fn mentions(&self, name: &str, view: &View) -> bool {
        self.seen.get(name, view).is_some()
    }

    /// What the client holds; a name may come more than once.
    pub(super) fn entries(&self, view: &View) -> impl Iterator<Item = &Arc<Entry>> {
        let public = self.seen.public.from(Place::default());
        let held = public.take_while(|(after, _)| *after <= self.held);
        let whole = self.is_whole();
        let special = self.seen.special().filter(move |_| whole);
        held.filter_map(|(_, variants)| variants.seen_by(view))
            .chain(special.filter_map(|name| self.seen.get(name, view)))
    }

    /// Whether a message with names of the first answer is in flight.
    pub(super) fn is_flying(&self) -> bool {
        self.flying.is_some()
    }

    /// That message was answered; what is special about its names is known by now.
    pub(super) fn land(&mut self) {
        if let Some(place) = self.flying.take() {
            self.held = place;
        }
    }

    /// Every name for which the table may have something else now.
    pub(super) fn differing(&self, table: &Table, view: &View) -> Vec<Arc<str>> {
        let now = table.seen(view);
        let names = self.seen.differing(&now);
        names.into_iter().map(Arc::from).collect()
    }
}

impl Session {
    /// A calm name with all that is known of it.
    pub(super) fn recall(&self, name: &str) -> Option<Known> {
        self.calm
            .get(name, &self.view)
            .map(|entry| self.calm_known(entry))
    }

    /// Times are those at which the stream was in step, as names have none of their own.
    pub(super) fn calm_known(&self, entry: &Arc<Entry>) -> Known {
        let told = self
            .calm
            .since
            .or(Some(self.started).filter(|start| entry.published > *start));
        let at = told.and(self.calm.at.or(told));
        Known {
            held: Held::Has(Arc::clone(entry)),
            sent: at.map(|at| (Arc::clone(entry), at)),
            acked: at,
            ..Known::new(false, self.started)
        }
    }

    /// A wildcard begins: the client gets everything in order, or what differs from that which it announced.
    pub(super) fn begin(&mut self, table: &Table, now: Instant) {
        let seen = table.seen(&self.view);
        let mut calm = Calm {
            cursor: table.head(),
            ..Calm::default()
        };
        let mut announced = std::mem::take(&mut self.announced);
        if announced.is_empty() {
            calm.since = Some(now);
            let node = Arc::clone(&self.node);
            for name in seen.special().chain(table.pinned(&node)) {
                self.learn(name.into(), false, now);
            }
        } else {
            calm.held = Place::END;
            for name in seen.names() {
                if self.known.contains_key(name) {
                    continue;
                }
                let version = announced.remove(name);
                let current = seen.get(name, &self.view).map(|entry| entry.version());
                if version.as_deref() != current {
                    let held = version.map_or(Held::Nothing, Held::Announced);
                    self.learn(name.into(), false, now).held = held;
                }
            }
            for (name, version) in announced {
                self.learn(name.into(), false, now).held = Held::Announced(version);
            }
        }
        calm.seen = seen;
        self.calm = calm;
    }

    /// Adds to a message what comes next of the first answer.
    pub(super) fn fill(&mut self, load: &mut Load) {
        if self.calm.is_whole() {
            return;
        }
        let mut place = Place::END;
        let mut before = self.calm.held;
        let mut some = false;
        for (after, variants) in self.calm.seen.public.from(self.calm.held) {
            let entry = self.next_of(variants);
            if let Some(entry) = entry {
                if !load.has_room(entry) {
                    place = before;
                    break;
                }
                load.push(Item::first(entry));
                some = true;
            }
            before = after;
        }
        if some {
            self.calm.flying = Some(place);
        } else {
            self.calm.held = place;
        }
    }

    fn next_of<'a>(&self, variants: &'a Variants) -> Option<&'a Arc<Entry>> {
        let known = !self.known.is_empty() && self.known.contains_key(variants.name());
        variants.seen_by(&self.view).filter(|_| !known)
    }

    /// Called when nothing is left to say and no answer is awaited: puts away the names that were in motion.
    pub(super) fn calm_down(&mut self, table: &Table, now: Instant) {
        let same = self.calm.cursor == table.head() && self.restless.is_empty();
        if !self.delta || !self.wildcard || same {
            return;
        }
        let before = self.known.len();
        for name in std::mem::take(&mut self.restless) {
            let Some(known) = self.known.get(&name) else {
                continue;
            };
            let current = table.get(&name, &self.view).map(|entry| entry.version());
            // What the client announced or accepted is what the table has, or there would be something to say; and
            // what was removed is gone.
            if known.is_plain() && known.held.version() == current {
                self.known.remove(&name);
            }
        }
        self.calm.seen = table.seen(&self.view);
        self.calm.cursor = table.head();
        self.calm.at = Some(now);
        // Much more room than names: the time of a first answer.
        if before > 16 {
            self.known.shrink_to_fit();
        }
        self.queue.shrink_to(4);
    }
}
