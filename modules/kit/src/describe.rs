//! What `trimtab describe` says of an object, for all modules the same: whether it is in force and why not, and what each
//! proxy holds of it. Pure.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_xds::{Awaits, Culprit, NodeInfo, ResourceInfo};

use crate::answers::Part;

/// Proxies that a text lists, those with a problem first.
const LISTED: usize = 30;

/// Whether an object is in force now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Answer {
    /// All of it, everywhere.
    Yes,
    /// Not all of it, or not everywhere.
    Partly,
    /// Nothing of it.
    No,
    /// Nobody can tell.
    #[default]
    Unknown,
}

/// Why an object is not in force, or not as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// PascalCase, as in conditions.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// What to change, where the message does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Cause {
    /// A cause whose message says what to change.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            fix: None,
        }
    }

    /// With what to change.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// The first lines of a description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whether it is in force.
    pub answer: Answer,
    /// What is in force, in a few words; empty: nothing.
    pub in_force: String,
    /// Why not all of it is, the one that matters most first.
    pub causes: Vec<Cause>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// `Yes`.
    pub yes: &'static str,
    /// `Partly`.
    pub partly: &'static str,
    /// `No`.
    pub no: &'static str,
}

impl Verdict {
    /// The answer with its first cause, then a line for each fix and each other cause.
    pub fn text(&self, object: &str, words: Words) -> String {
        let answer = match self.answer {
            Answer::Yes => words.yes,
            Answer::Partly => words.partly,
            Answer::No => words.no,
            Answer::Unknown => "UNKNOWN",
        };
        let mut out = format!("{object}: {answer}");
        // A string takes whatever is written to it.
        if !self.in_force.is_empty() {
            let _ = write!(out, ": {}", self.in_force);
        }
        for (n, cause) in self.causes.iter().enumerate() {
            let lead = if n == 0 && self.in_force.is_empty() {
                ": "
            } else if n == 0 {
                "\n  but "
            } else {
                "\n  also "
            };
            let _ = write!(out, "{lead}{}: {}", cause.reason, cause.message);
            if let Some(fix) = &cause.fix {
                let _ = write!(out, "\n  fix: {fix}");
            }
        }
        out.push('\n');
        out
    }
}

/// A condition of the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionView {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// PascalCase.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl From<&v1::Condition> for ConditionView {
    fn from(condition: &v1::Condition) -> Self {
        Self {
            kind: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        }
    }
}

/// Lines of conditions under a head.
pub fn conditions(all: &[ConditionView]) -> String {
    let mut out = String::new();
    if !all.is_empty() {
        out.push_str("  conditions:\n");
    }
    for c in all {
        let ConditionView {
            kind,
            status,
            reason,
            message,
        } = c;
        let _ = writeln!(out, "    {kind} {status} {reason}: {message}");
    }
    out
}

/// What a proxy has of an object.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Holding {
    /// It refuses what it should have.
    Refuses,
    /// It refused it together with other resources, and did not say which is bad.
    InDoubt,
    /// There is no proxy that could have it.
    NoProxy,
    /// It is not connected to Trimtab, or has not asked for it.
    NotConnected,
    /// It has another version, or none yet.
    Older,
    /// It has accepted what it should have.
    Accepted,
    /// It gets it from istiod, which does not tell.
    #[default]
    NotTold,
}

impl Holding {
    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Refuses => "REFUSES",
            Self::InDoubt => "IN DOUBT",
            Self::NoProxy => "NO PROXY",
            Self::NotConnected => "NOT CONNECTED",
            Self::Older => "OLDER VERSION",
            Self::Accepted => "ACCEPTED",
            Self::NotTold => "BY ISTIOD",
        }
    }

    /// Whether it is what a proxy of ours has said, or has not.
    fn is_told(self) -> bool {
        !matches!(self, Self::NoProxy | Self::NotTold)
    }
}

/// A proxy, and what it has of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// The pod as `namespace/name`, or the node id.
    pub proxy: String,
    /// What it has.
    pub holding: Holding,
    /// Versions, its words, since when.
    pub detail: String,
}

/// The pod of an Istio node id, as `namespace/name`; none: it is another kind of id.
pub fn pod_of(node: &str) -> Option<String> {
    // `sidecar~10.0.0.1~name.namespace~namespace.svc.cluster.local`.
    let (name, namespace) = node.split('~').nth(2)?.rsplit_once('.')?;
    Some(format!("{namespace}/{name}"))
}

/// What a node has of these resources; none: it asks for none of them.
pub fn holder(node: &NodeInfo, parts: &[Part]) -> Option<Holder> {
    let of = |part: &Part| {
        let subscriptions = node.subscriptions.iter();
        let same = subscriptions.filter(|s| s.type_url == part.type_url);
        let resources = same.flat_map(|s| &s.resources);
        let found = resources.filter(|r| r.name == part.name);
        found.map(state).min_by_key(|(holding, _)| *holding)
    };
    let all: Vec<(Holding, String)> = parts.iter().filter_map(of).collect();
    let worst = all.iter().map(|(holding, _)| *holding).min()?;
    let same = all.into_iter().filter(|(holding, _)| *holding == worst);
    let details: Vec<String> = same.map(|(_, detail)| detail).collect();
    Some(Holder {
        proxy: pod_of(&node.id).unwrap_or_else(|| printable(&node.id)),
        holding: worst,
        detail: crate::condition::listed(&details),
    })
}

fn state(resource: &ResourceInfo) -> (Holding, String) {
    let name = printable(&resource.name);
    if let Some(refusal) = resource.refusal() {
        let words = printable(&refusal.message);
        let kept = resource.acked.as_ref().map_or_else(
            || "and has none".to_owned(),
            |old| format!("and keeps {}", old.version),
        );
        return match refusal.culprit {
            Culprit::Known => (
                Holding::Refuses,
                format!("{name} {}, {kept}: {words}", refusal.version),
            ),
            Culprit::Unknown => (
                Holding::InDoubt,
                format!("{name} {}, sent with others: {words}", refusal.version),
            ),
        };
    }
    let since = |at: Option<SystemTime>| {
        let at = at.and_then(|at| Timestamp::try_from(at).ok());
        let at = at.and_then(|at| Timestamp::from_second(at.as_second()).ok());
        at.map_or_else(String::new, |at| format!(" since {at}"))
    };
    match (&resource.acked, &resource.current) {
        (Some(has), Some(_)) if resource.is_synced() => (
            Holding::Accepted,
            format!("{name} {}{}", has.version, since(has.at)),
        ),
        (has, should) => {
            let version = |v: Option<&String>| v.map_or("none", String::as_str).to_owned();
            let has = version(has.as_ref().map(|stamp| &stamp.version));
            let why = match &resource.awaits {
                Some(Awaits::Answer) => ", has not answered",
                Some(Awaits::Other(_)) => ", waits for the answer about another resource",
                Some(Awaits::Clusters) => ", waits for clusters",
                Some(Awaits::Turn) => ", is about to be sent",
                None => "",
            };
            let should = version(should.as_ref());
            (
                Holding::Older,
                format!("{name}: should have {should}, has {has}{why}"),
            )
        }
    }
}

/// A text of a proxy without what a terminal would obey.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| -> String {
        if matches!(c, '\'' | '"') {
            c.to_string()
        } else {
            c.escape_debug().collect()
        }
    };
    text.chars().map(escaped).collect()
}

/// Lines of proxies under a head, those with a problem first.
pub fn holders(all: &[Holder]) -> String {
    let accepted = |h: &&Holder| h.holding == Holding::Accepted;
    let have = all.iter().filter(accepted).count();
    let mut out = if all.iter().any(|h| h.holding.is_told()) {
        format!("  proxies: {have} of {} have it\n", all.len())
    } else {
        format!("  proxies: {}\n", all.len())
    };
    let mut sorted: Vec<&Holder> = all.iter().collect();
    sorted.sort_by_key(|h| (h.holding, &h.proxy));
    for h in sorted.iter().take(LISTED) {
        let title = h.holding.title();
        let _ = writeln!(out, "    {}  {title}  {}", h.proxy, h.detail);
    }
    let more = sorted.len().saturating_sub(LISTED);
    if more > 0 {
        let _ = writeln!(out, "    and {more} more");
    }
    out
}

#[cfg(test)]
mod tests;
