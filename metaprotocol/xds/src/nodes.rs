//! What each node was sent, accepted and refused, for the admin view; in the spirit of Envoy's client status
//! discovery service, but from the server's side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::session::ResourceState;
use crate::stream::StreamState;

/// A version, and when something became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Version of the content.
    pub version: String,
    /// When; `None` for a content that the client announced when it connected.
    pub at: Option<SystemTime>,
}

/// What a client said against a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Version that it refused.
    pub version: String,
    /// What it said, at most 8 KiB.
    pub message: String,
    /// When.
    pub at: SystemTime,
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
    /// Content that the client holds, as far as it said.
    pub acked: Option<Stamp>,
    /// Its last refusal, until a newer content is accepted.
    pub refused: Option<Refusal>,
}

impl ResourceInfo {
    /// Whether the client holds what it should.
    pub fn in_step(&self) -> bool {
        self.acked.as_ref().map(|stamp| &stamp.version) == self.current.as_ref()
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
    /// The text of the last refusal on this subscription, also one that cannot be told to be about one resource.
    pub last_refusal: Option<String>,
    /// What it asked for or holds, sorted by name.
    pub resources: Vec<ResourceInfo>,
}

/// A node that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Its `node.id`; empty for clients that gave none.
    pub id: String,
    /// The SPIFFE ID of its certificate.
    pub identity: Option<String>,
    /// The audiences it belongs to, in words, sorted; they decide what it sees.
    pub audiences: Vec<String>,
    /// Its subscriptions by type, then by age of the stream.
    pub subscriptions: Vec<Subscription>,
}

/// Turns the instants of one moment into times of day.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn time(&self, at: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(at);
        self.time.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn resource(&self, state: ResourceState) -> ResourceInfo {
        ResourceInfo {
            name: state.name.to_string(),
            current: state.current,
            sent: state.sent.map(|(version, at)| Stamp {
                version,
                at: Some(self.time(at)),
            }),
            acked: state.acked.map(|(version, at)| Stamp {
                version,
                at: at.map(|at| self.time(at)),
            }),
            refused: state.refused.map(|(version, message, at)| Refusal {
                version,
                message,
                at: self.time(at),
            }),
        }
    }
}

/// The nodes of these streams, sorted by id, or only one of them.
pub(crate) fn gather(streams: &[Arc<StreamState>], only: Option<&str>) -> Vec<NodeInfo> {
    let clock = Clock {
        instant: Instant::now(),
        time: SystemTime::now(),
    };
    let mut nodes: BTreeMap<String, NodeInfo> = BTreeMap::new();
    for stream in streams {
        let collect = |state| clock.resource(state);
        let Some(found) = stream.report(only, collect) else {
            continue;
        };
        let node = nodes.entry(found.id.clone()).or_insert_with(|| NodeInfo {
            subscriptions: Vec::new(),
            ..found.clone()
        });
        node.subscriptions.extend(found.subscriptions);
    }
    for node in nodes.values_mut() {
        node.subscriptions
            .sort_by(|a, b| (&a.type_url, a.stream).cmp(&(&b.type_url, b.stream)));
    }
    nodes.into_values().collect()
}
