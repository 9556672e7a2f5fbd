//! Responses: being filled, sent, and in flight.

use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::entry::Entry;
use crate::resource::content_version;

/// Most bytes of bodies in one response, unless a single resource is larger; for a slow client the server keeps one.
const MAX_BYTES: usize = 256 << 10;
/// Seed of the hashes of removed names.
const REMOVED: u64 = 1;

/// One resource in a response.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Arc<Entry>,
    /// The last good content for a node that refused the current one.
    pub(super) fallback: bool,
    /// The client subscribed and has no response yet; a NACK does not change that.
    pub(super) must_send: bool,
    pub(super) reason: Reason,
}

/// Why a resource is in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A full response repeats everything.
    Repeated,
    /// The client does not have it.
    Changed,
    /// The client does not have it, and it is part of the initial responses to a wildcard: it is in the map of resources
    /// only if something else is known of it.
    Initial,
}

impl Item {
    /// Part of the initial responses to a wildcard.
    pub(super) fn initial(entry: &Arc<Entry>) -> Self {
        Self {
            entry: Arc::clone(entry),
            fallback: false,
            must_send: false,
            reason: Reason::Initial,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.entry.name()
    }

    pub(crate) fn is_change(&self) -> bool {
        self.reason != Reason::Repeated
    }

    pub(super) fn is_initial(&self) -> bool {
        self.reason == Reason::Initial
    }
}

#[cfg(test)]
pub(crate) fn item(entry: &Arc<Entry>) -> Item {
    Item::initial(entry)
}

/// A response that is being filled.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) removed: Vec<Arc<str>>,
    bytes: usize,
    max_resources: usize,
}

impl Batch {
    pub(super) fn new(max_resources: usize) -> Self {
        Self {
            items: Vec::new(),
            removed: Vec::new(),
            bytes: 0,
            max_resources,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.removed.is_empty()
    }

    pub(super) fn has_room(&self, entry: &Entry) -> bool {
        let fits =
            self.bytes + entry.body().len() <= MAX_BYTES && self.items.len() < self.max_resources;
        fits || self.is_empty()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.entry.body().len();
        self.items.push(item);
    }
}

/// One response; the variant of the protocol decides how it is encoded.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) items: Vec<Item>,
    pub(crate) removed: Vec<Arc<str>>,
    pub(crate) version: String,
    pub(crate) nonce: String,
}

/// The response that the client has not answered yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) push: Arc<Push>,
    pub(super) since: Instant,
}

/// The same for the same content in any order. Hashes are added, so that a long response takes no memory for it.
pub(super) fn version_of_many(items: &[Item], removed: &[Arc<str>]) -> String {
    let sent = items
        .iter()
        .map(|item| xxh3_64_with_seed(item.entry.version().as_bytes(), xxh3_64(item.entry.key())));
    // Another seed than that of a name that is sent, whatever its version.
    let removed = removed
        .iter()
        .map(|name| xxh3_64_with_seed(name.as_bytes(), REMOVED));
    let sum = sent.chain(removed).fold(0_u64, u64::wrapping_add);
    content_version(&sum.to_le_bytes())
}
