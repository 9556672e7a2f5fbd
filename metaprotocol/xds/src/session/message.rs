//! Messages to a client: in the making, on their way, and waiting for their answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::entry::Entry;
use crate::table::content_version;

/// Most bytes of bodies in one message, unless a single resource is larger; a slow client makes the server keep a message.
const MAX_BYTES: usize = 256 << 10;
/// Seed of the hashes of removed names.
const GONE: u64 = 1;

/// One resource on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Arc<Entry>,
    /// The last good content of a node that refused the current one.
    pub(super) fallback: bool,
    /// The client asked for it; a refusal does not settle that.
    pub(super) owed: bool,
    pub(super) part: Part,
}

/// Why a resource is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// As a full message repeats everything.
    Repeated,
    /// It is new to the client.
    News,
    /// It is new, in a first answer; so not in the map of known names unless something happened to it.
    First,
}

impl Item {
    /// Part of a first answer.
    pub(super) fn first(entry: &Arc<Entry>) -> Self {
        Self {
            entry: Arc::clone(entry),
            fallback: false,
            owed: false,
            part: Part::First,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.entry.name()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.part != Part::Repeated
    }

    pub(super) fn is_first(&self) -> bool {
        self.part == Part::First
    }
}

#[cfg(test)]
pub(crate) fn item(entry: &Arc<Entry>) -> Item {
    Item::first(entry)
}

/// A message in the making.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) items: Vec<Item>,
    pub(super) removed: Vec<Arc<str>>,
    bytes: usize,
    most: usize,
}

impl Load {
    /// Empty; for so many resources.
    pub(super) fn new(most: usize) -> Self {
        Self {
            items: Vec::new(),
            removed: Vec::new(),
            bytes: 0,
            most,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.removed.is_empty()
    }

    pub(super) fn has_room(&self, entry: &Entry) -> bool {
        let fits = self.bytes + entry.body().len() <= MAX_BYTES && self.items.len() < self.most;
        fits || self.is_empty()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.entry.body().len();
        self.items.push(item);
    }
}

/// One message to the client; the protocol renders it.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) items: Vec<Item>,
    pub(crate) removed: Vec<Arc<str>>,
    pub(crate) version: String,
    pub(crate) nonce: String,
    /// The longest time that news in it waited since publication, or since subscription if that came later.
    pub(crate) waited: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) push: Arc<Push>,
    pub(super) since: Instant,
}

/// The same for the same content in any order. Numbers are added, so that a long message costs no memory for it.
pub(super) fn version_of_many(items: &[Item], removed: &[Arc<str>]) -> String {
    let held = items
        .iter()
        .map(|item| xxh3_64_with_seed(item.entry.version().as_bytes(), xxh3_64(item.entry.key())));
    // Another seed than that of a held name, whatever its version.
    let gone = removed
        .iter()
        .map(|name| xxh3_64_with_seed(name.as_bytes(), GONE));
    let sum = held.chain(gone).fold(0_u64, u64::wrapping_add);
    content_version(&sum.to_le_bytes())
}
