//! What each proxy was sent, has accepted and refuses: as the JSON API gives it and `trimtab xds` shows it.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_kit::describe::printable as shown;
use trimtab_xds::{Awaits, Culprit, NodeInfo, ResourceInfo, Stamp, StreamInfo};

/// A connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// SPIFFE ID of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What decides what it sees.
    pub audiences: Vec<String>,
    /// By type.
    pub subscriptions: Vec<Subscription>,
    /// Objects with a mistake: what is made of them may be older than they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<String>,
}

/// One type on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Type URL.
    pub type_url: String,
    /// Number of the stream; several have the same node if proxies share an id.
    #[serde(default)]
    pub stream: u64,
    /// Delta or state of the world.
    pub delta: bool,
    /// To all that it may see.
    pub wildcard: bool,
    /// Its last words against a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
    /// By name.
    pub resources: Vec<Resource>,
}

/// One resource at one proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Name.
    pub name: String,
    /// Version that it should have; absent: there is no such resource for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Version that was sent last, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Version>,
    /// Version that it has, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Version>,
    /// Version that it refuses, and its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// What is waited for, if it does not have what it should and does not refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// Whether it has what it should.
    pub in_step: bool,
}

/// What is waited for before a proxy has what it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WaitsFor {
    /// Its answer.
    Answer,
    /// Its answer about these and perhaps others; the content comes after that.
    AnswerAbout(Vec<String>),
    /// Clusters that the content names.
    Clusters,
    /// The connection.
    Turn,
}

/// One type on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// Number of the stream.
    pub id: u64,
    /// `node.id`.
    pub node: String,
    /// Type URL.
    pub type_url: String,
    /// Delta or state of the world.
    pub delta: bool,
    /// To all that it may see.
    pub wildcard: bool,
    /// Names that it asks for one by one.
    pub subscribed: Vec<String>,
    /// When the stream was opened.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub since: Option<Timestamp>,
    /// Number of resources that it has as they are.
    pub held: usize,
    /// Number of resources that it does not have yet.
    pub waiting: usize,
    /// Number of resources that it refuses.
    pub refused: usize,
    /// Version of the last response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent: Option<String>,
    /// Version of the last response that it accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_acknowledged: Option<String>,
    /// Error of the last response that it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
    /// When the response was sent that it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub pending_since: Option<Timestamp>,
}

impl From<&StreamInfo> for Stream {
    fn from(info: &StreamInfo) -> Self {
        Self {
            id: info.id,
            node: info.node.clone(),
            type_url: info.type_url.clone(),
            delta: info.delta,
            wildcard: info.wildcard,
            subscribed: info.subscribed.clone(),
            since: time(info.since),
            held: info.held,
            waiting: info.waiting,
            refused: info.refused,
            last_sent: info.last_sent.clone(),
            last_acknowledged: info.last_acked.clone(),
            last_refusal: info.last_nack.clone(),
            pending_since: info.pending_since.and_then(time),
        }
    }
}

/// A version with a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Version.
    pub version: String,
    /// When; absent: before it connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub at: Option<Timestamp>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Version.
    pub version: String,
    /// Its words.
    pub message: String,
    /// It refused a response with others, and which of them is bad is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub at: Option<Timestamp>,
}

fn time(at: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(at).ok()
}

impl From<&Stamp> for Version {
    fn from(stamp: &Stamp) -> Self {
        Self {
            version: stamp.version.clone(),
            at: stamp.at.and_then(time),
        }
    }
}

impl From<&ResourceInfo> for Resource {
    fn from(info: &ResourceInfo) -> Self {
        Self {
            name: info.name.clone(),
            current: info.current.clone(),
            sent: info.sent.as_ref().map(Version::from),
            acknowledged: info.acked.as_ref().map(Version::from),
            refused: info.refused.as_ref().map(|r| Refused {
                version: r.version.clone(),
                message: r.message.clone(),
                in_doubt: r.culprit == Culprit::Unknown,
                at: time(r.at),
            }),
            waits_for: info.awaits.as_ref().map(|awaits| match awaits {
                Awaits::Answer => WaitsFor::Answer,
                Awaits::Other(names) => WaitsFor::AnswerAbout(names.clone()),
                Awaits::Clusters => WaitsFor::Clusters,
                Awaits::Turn => WaitsFor::Turn,
            }),
            in_step: info.is_synced(),
        }
    }
}

impl From<&NodeInfo> for Node {
    fn from(info: &NodeInfo) -> Self {
        let subscriptions = info.subscriptions.iter().map(|s| Subscription {
            type_url: s.type_url.clone(),
            stream: s.stream,
            delta: s.delta,
            wildcard: s.wildcard,
            last_refusal: s.last_refusal.clone(),
            resources: s.resources.iter().map(Resource::from).collect(),
        });
        Self {
            id: info.id.clone(),
            identity: info.identity.clone(),
            audiences: info.audiences.clone(),
            subscriptions: subscriptions.collect(),
            mistakes: Vec::new(),
        }
    }
}

impl Resource {
    /// The refusal of what it should have.
    fn refusal(&self) -> Option<&Refused> {
        let refused = self.refused.as_ref();
        refused.filter(|refused| self.current.as_ref() == Some(&refused.version))
    }

    /// Why it does not have what it should.
    fn reason(&self) -> String {
        if let Some(refused) = self.refusal() {
            let (version, words) = (shown(&refused.version), shown(&refused.message));
            return if refused.in_doubt {
                format!(
                    "refused {version} in a response with others, and which of them is bad is not known: {words}"
                )
            } else {
                format!("refuses {version}: {words}")
            };
        }
        let next = self.current.as_deref().map(shown);
        let next = next.as_deref().unwrap_or("the removal");
        match &self.waits_for {
            Some(WaitsFor::AnswerAbout(names)) => {
                let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
                format!("{next} waits for the answer about {}", names.join(", "))
            }
            Some(WaitsFor::Clusters) => {
                format!("{next} waits until the proxy has the clusters that it names")
            }
            Some(WaitsFor::Turn) => format!("{next} is about to be sent"),
            Some(WaitsFor::Answer) | None => format!("was sent {next} and has not answered"),
        }
    }
}

impl Node {
    fn resources(&self) -> impl Iterator<Item = (&Subscription, &Resource)> {
        let all = self.subscriptions.iter();
        all.flat_map(|s| s.resources.iter().map(move |r| (s, r)))
    }

    /// Most streams with the same type: more than one if several proxies have this id, or one has come back while its old
    /// connection is not closed yet.
    fn streams(&self) -> usize {
        let of = |url: &str| {
            self.subscriptions
                .iter()
                .filter(|s| s.type_url == url)
                .count()
        };
        let all = self.subscriptions.iter().map(|s| of(&s.type_url));
        all.max().unwrap_or_default()
    }

    /// The id as [`table`] prints it.
    pub fn shown_id(&self) -> String {
        if self.id.is_empty() {
            NO_ID.to_owned()
        } else {
            shown(&self.id)
        }
    }
}

/// In the place of an id that a proxy did not give.
pub const NO_ID: &str = "(no id)";

/// One line a proxy.
pub fn table(nodes: &[Node]) -> String {
    let mut out = format!("{:<8} {:<8} {:<8} NODE\n", "HOLDS", "WAITS", "REFUSES");
    for node in nodes {
        let (mut holds, mut waits, mut refuses) = (0, 0, 0);
        for (_, resource) in node.resources() {
            match (resource.in_step, resource.refusal()) {
                (true, _) => holds += 1,
                (false, Some(_)) => refuses += 1,
                (false, None) => waits += 1,
            }
        }
        let streams = match node.streams() {
            0 | 1 => String::new(),
            several => format!(" ({several} streams)"),
        };
        // A string takes whatever is written to it.
        let _ = writeln!(
            out,
            "{holds:<8} {waits:<8} {refuses:<8} {}{streams}",
            node.shown_id()
        );
    }
    out
}

/// What a proxy has against what it should have. Returns the text, and whether there is a difference.
pub fn diff(node: &Node) -> (String, bool) {
    let mut out = String::new();
    let mut differs = false;
    let several = node.streams() > 1;
    for (subscription, resource) in node.resources() {
        if resource.in_step {
            continue;
        }
        differs = true;
        let version = |v: Option<&str>| v.map_or_else(|| "none".to_owned(), shown);
        let has = resource.acknowledged.as_ref().map(|v| v.version.as_str());
        let stream = if several {
            format!(" (stream {})", subscription.stream)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "{} {}{stream}\n  should have {}, has {}; {}",
            shown(&subscription.type_url),
            shown(&resource.name),
            version(resource.current.as_deref()),
            version(has),
            resource.reason(),
        );
    }
    if !differs {
        let count = node.resources().count();
        let id = node.shown_id();
        let _ = writeln!(out, "{id}: has all {count} resources as they are");
    }
    for mistake in &node.mistakes {
        let _ = writeln!(out, "mistake: {}", shown(mistake));
    }
    (out, differs)
}

#[cfg(test)]
mod tests;
