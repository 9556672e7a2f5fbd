//! What the client has of one resource.

use std::sync::Arc;
use std::time::Instant;

use crate::entry::Entry;
use crate::info::Culprit;

/// What the client accepted last.
#[derive(Debug, Default)]
pub(super) enum Acked {
    #[default]
    Nothing,
    /// A version of its `initial_resource_versions`.
    Initial(String),
    /// A content that it acknowledged on this stream.
    Response(Arc<Entry>),
}

impl Acked {
    pub(super) fn version(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Initial(version) => Some(version),
            Self::Response(entry) => Some(entry.version()),
        }
    }

    /// What it acknowledged on this stream.
    pub(super) fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Response(entry) => Some(entry),
            Self::Nothing | Self::Initial(_) => None,
        }
    }
}

/// The state of one resource at the client.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one machine"
)]
pub(super) struct ResourceState {
    /// Subscribed by name, not only by the wildcard.
    pub(super) explicit: bool,
    pub(super) acked: Acked,
    /// The version that the client refused; it is not sent again.
    pub(super) rejected: Option<String>,
    /// Must be sent even if the client has it.
    pub(super) must_send: bool,
    /// Was part of a refused response, so it is sent in a response of its own until it is accepted.
    pub(super) isolated: bool,
    /// The table has a rejection for this name and node.
    pub(super) rejection_stored: bool,
    /// Even the last good content was refused: nothing is sent until the content changes.
    pub(super) fallback_rejected: bool,
    pub(super) queued: bool,
    /// Queued, but it waits for clusters.
    pub(super) held: bool,
    /// When it was subscribed.
    pub(super) since: Instant,
    /// The content last sent, and when.
    pub(super) sent: Option<(Arc<Entry>, Instant)>,
    /// When `acked` was accepted on this stream.
    pub(super) acked_at: Option<Instant>,
    pub(super) refusal: Option<Box<Refusal>>,
}

impl ResourceState {
    pub(super) fn new(explicit: bool, now: Instant) -> Self {
        Self {
            explicit,
            acked: Acked::Nothing,
            rejected: None,
            must_send: false,
            isolated: false,
            rejection_stored: false,
            fallback_rejected: false,
            queued: false,
            held: false,
            since: now,
            sent: None,
            acked_at: None,
            refusal: None,
        }
    }

    /// Whether an ACK of this version proves nothing, because it was refused before.
    pub(super) fn is_in_doubt(&self, version: &str, remembers_refusals: bool) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| {
            refusal.version == version && (refusal.suspicion.is_some() || remembers_refusals)
        })
    }

    /// Whether the version that the client has is all that is to be known of it.
    pub(super) fn is_plain(&self) -> bool {
        let special = self.explicit
            || self.must_send
            || self.isolated
            || self.rejection_stored
            || self.fallback_rejected
            || self.queued
            || self.rejected.is_some()
            || self.refusal.is_some();
        !special
    }
}

/// The last NACK of a resource; dropped when a newer content is accepted.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) version: String,
    pub(super) message: Arc<str>,
    pub(super) at: Instant,
    pub(super) culprit: Culprit,
    /// The refused response, while it is not known who is to blame for it.
    pub(super) suspicion: Option<Arc<Suspicion>>,
    /// How often this version was refused alone.
    pub(super) times: u32,
    /// When it is tried again.
    pub(super) retry_at: Option<Instant>,
    /// Acknowledged after that, which counts once somebody else is to blame.
    pub(super) acked_since: bool,
}

impl Refusal {
    /// Of a resource that was refused alone.
    pub(super) fn new(version: &str, message: &Arc<str>, at: Instant) -> Self {
        Self {
            version: version.to_owned(),
            message: Arc::clone(message),
            at,
            culprit: Culprit::Known,
            suspicion: None,
            times: 0,
            retry_at: None,
            acked_since: false,
        }
    }
}

/// A refused response with several resources.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub(super) message: Arc<str>,
    pub(super) members: Vec<Arc<str>>,
}
