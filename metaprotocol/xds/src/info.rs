//! What the admin API tells about streams, nodes and resources; in the spirit of Envoy's client status discovery service
//! (CSDS), but from the server's side.

use std::time::{Instant, SystemTime};

/// One type on one stream, for the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Identifies the stream while the process lives.
    pub id: u64,
    /// Node id of the client.
    pub node: String,
    /// Type of the subscription.
    pub type_url: String,
    /// Delta or state of the world.
    pub delta: bool,
    /// Subscribed to everything.
    pub wildcard: bool,
    /// Names subscribed one by one, sorted.
    pub subscribed: Vec<String>,
    /// When the stream was opened.
    pub since: SystemTime,
    /// Version of the last response.
    pub last_sent: Option<String>,
    /// Version of the last response that was accepted.
    pub last_acked: Option<String>,
    /// `error_detail` of the last NACK.
    pub last_nack: Option<String>,
    /// When the response was sent that the client has not answered yet.
    pub pending_since: Option<SystemTime>,
    /// Resources of which the client has the current content.
    pub held: usize,
    /// Resources of which it has another content, or none, and did not refuse the current one.
    pub waiting: usize,
    /// Resources of which it refused the current content.
    pub refused: usize,
}

/// A version with a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Version of the content.
    pub version: String,
    /// When; `None` for a version that the client had when it connected (`initial_resource_versions`).
    pub at: Option<SystemTime>,
}

/// Whether a NACK is about this very resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// It was refused alone.
    Known,
    /// A response with others was refused, and no member of it alone has been. It may be good, but an ACK of it alone
    /// proves nothing: Envoy acknowledges an extension config that it refused before and that has not changed.
    Unknown,
}

/// A NACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Version that it refused.
    pub version: String,
    /// The client's `error_detail`, at most 4 KiB.
    pub message: String,
    /// When.
    pub at: SystemTime,
    /// Whether the resource is to blame for sure.
    pub culprit: Culprit,
}

/// What a client must do before it has the current content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaits {
    /// Answer the response that has the content, or the removal.
    Answer,
    /// Answer a response that has other resources; their names. The content comes after that.
    Other(Vec<String>),
    /// Take clusters that the content names.
    Clusters,
    /// Nothing: it is sent as soon as the connection takes it.
    Turn,
}

/// One resource at one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceInfo {
    /// Name of the resource.
    pub name: String,
    /// Version that this client should hold; `None` if the name does not exist for it.
    pub current: Option<String>,
    /// Last content that was sent.
    pub sent: Option<Stamp>,
    /// Last content that the client accepted; `None` also while what it has is in doubt, see [`Culprit::Unknown`].
    pub acked: Option<Stamp>,
    /// The last NACK for it on this stream, until a content is accepted after it. The client refuses what it should hold
    /// only if the version is the current one: see [`Self::refusal`].
    pub refused: Option<Refusal>,
    /// What is waited for; `None` if the client has the current content or refuses it.
    pub awaits: Option<Awaits>,
}

impl ResourceInfo {
    /// Whether the client has the current content.
    pub fn is_synced(&self) -> bool {
        let acked = self.acked.as_ref().map(|stamp| &stamp.version);
        acked == self.current.as_ref() && self.refusal().is_none()
    }

    /// The NACK of the current content.
    pub fn refusal(&self) -> Option<&Refusal> {
        let of_current = |refusal: &&Refusal| self.current.as_ref() == Some(&refusal.version);
        self.refused.as_ref().filter(of_current)
    }
}

/// One type on one stream of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Type of the resources.
    pub type_url: String,
    /// The stream, as in [`StreamInfo::id`](crate::StreamInfo::id).
    pub stream: u64,
    /// Delta or state of the world.
    pub delta: bool,
    /// Subscribed to everything that it may see.
    pub wildcard: bool,
    /// `error_detail` of the last NACK of this type, also of one that is not about a single resource.
    pub last_refusal: Option<String>,
    /// What it subscribes to or holds, sorted by name.
    pub resources: Vec<ResourceInfo>,
}

/// A node that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Its `node.id`; empty for clients that gave none.
    pub id: String,
    /// The SPIFFE ID of its certificate.
    pub identity: Option<String>,
    /// The audiences it belongs to, as text, sorted; they decide what it sees.
    pub audiences: Vec<String>,
    /// Its subscriptions by type, then by age of the stream.
    pub subscriptions: Vec<Subscription>,
}

/// Turns the instants of one report into times of day.
#[derive(Debug)]
pub(crate) struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    pub(crate) fn time(&self, at: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(at);
        self.time.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}
