//! What each proxy was sent, has accepted and refuses: as the JSON API gives it and `trimtab xds` shows it.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trimtab_xds::{NodeInfo, ResourceInfo, Stamp, StreamInfo};

/// A connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Type URL.
    pub type_url: String,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether it has what it should.
    pub in_step: bool,
}

/// One type on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version.
    pub version: String,
    /// When; absent: before it connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Version.
    pub version: String,
    /// Its words.
    pub message: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
                at: time(r.at),
            }),
            in_step: info.is_synced(),
        }
    }
}

impl From<&NodeInfo> for Node {
    fn from(info: &NodeInfo) -> Self {
        let subscriptions = info.subscriptions.iter().map(|s| Subscription {
            type_url: s.type_url.clone(),
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

impl Node {
    fn resources(&self) -> impl Iterator<Item = (&Subscription, &Resource)> {
        let all = self.subscriptions.iter();
        all.flat_map(|s| s.resources.iter().map(move |r| (s, r)))
    }
}

/// One line a proxy.
pub fn table(nodes: &[Node]) -> String {
    let mut out = format!("{:<8} {:<8} {:<8} NODE\n", "HOLDS", "WAITS", "REFUSES");
    for node in nodes {
        let (mut holds, mut waits, mut refuses) = (0, 0, 0);
        for (_, resource) in node.resources() {
            match (resource.in_step, &resource.refused) {
                (true, _) => holds += 1,
                (false, Some(_)) => refuses += 1,
                (false, None) => waits += 1,
            }
        }
        // A string takes whatever is written to it.
        let _ = writeln!(out, "{holds:<8} {waits:<8} {refuses:<8} {}", node.id);
    }
    out
}

/// What a proxy has against what it should have. Returns the text, and whether there is a difference.
pub fn diff(node: &Node) -> (String, bool) {
    let mut out = String::new();
    let mut differs = false;
    for (subscription, resource) in node.resources() {
        if resource.in_step {
            continue;
        }
        differs = true;
        let version = |v: Option<&str>| v.unwrap_or("none").to_owned();
        let has = resource.acknowledged.as_ref().map(|v| v.version.as_str());
        let _ = writeln!(
            out,
            "{} {}\n  should have {}, has {}",
            subscription.type_url,
            resource.name,
            version(resource.current.as_deref()),
            version(has),
        );
        if let Some(refused) = &resource.refused {
            let _ = writeln!(out, "  refuses {}: {}", refused.version, refused.message);
        } else if let Some(sent) = &resource.sent {
            let _ = writeln!(out, "  was sent {} and has not answered", sent.version);
        }
    }
    if !differs {
        let count = node.resources().count();
        let _ = writeln!(out, "{}: has all {count} resources as they are", node.id);
    }
    for mistake in &node.mistakes {
        let _ = writeln!(out, "mistake: {mistake}");
    }
    (out, differs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(refused: bool) -> Node {
        let version = |v: &str| Version {
            version: v.to_owned(),
            at: None,
        };
        let refusal = Refused {
            version: "2".into(),
            message: "bad regex".into(),
            at: None,
        };
        let resource = Resource {
            name: "a_80".into(),
            current: Some("2".into()),
            sent: Some(version("2")),
            acknowledged: Some(version(if refused { "1" } else { "2" })),
            refused: refused.then_some(refusal),
            in_step: !refused,
        };
        Node {
            id: "pod.shop".into(),
            identity: None,
            audiences: Vec::new(),
            subscriptions: vec![Subscription {
                type_url: "routes".into(),
                delta: false,
                wildcard: false,
                last_refusal: None,
                resources: vec![resource],
            }],
            mistakes: vec!["VirtualService shop/a: spec.http: no".into()],
        }
    }

    #[test]
    fn differences_are_told_with_the_words_of_the_proxy() {
        let (text, differs) = diff(&node(true));
        assert!(differs);
        assert!(
            text.contains("should have 2, has 1") && text.contains("bad regex"),
            "{text}"
        );
        let (text, differs) = diff(&node(false));
        assert!(!differs && text.contains("has all 1"), "{text}");
        assert!(text.contains("mistake: VirtualService shop/a"), "{text}");
        let rows = table(&[node(true), node(false)]);
        assert!(
            rows.contains("0        0        1        pod.shop"),
            "{rows}"
        );
        assert!(
            rows.contains("1        0        0        pod.shop"),
            "{rows}"
        );
    }
}
