//! What proxies say to the resources of the xDS server, for all modules the same.
//!
//! An answer counts for its stream, type, resource and version: taking one thing says nothing about another, having an
//! older version is not having the present one, and what a stream said ends with it. While proxies have refused a
//! response with several resources and it is not known which of them is bad, none of them counts as taken.

mod book;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;
use trimtab_xds::{Delivery, NodeInfo};

use book::{Book, Said};

/// Type URL and name of a resource.
pub type ResourceKey = (String, String);

/// What a proxy says against something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Node id of the proxy.
    pub node: String,
    /// Its message.
    pub message: String,
}

/// A resource as it is served at present.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Its type URL.
    pub type_url: String,
    /// Its name.
    pub name: String,
    /// Versions of its contents: several, where not all proxies are served the same.
    pub versions: BTreeSet<String>,
}

impl Part {
    /// A resource with one content.
    pub fn new(type_url: &str, name: &str, version: &str) -> Self {
        Self {
            type_url: type_url.to_owned(),
            name: name.to_owned(),
            versions: BTreeSet::from([version.to_owned()]),
        }
    }
}

/// How the proxies stand to some resources in their present versions: those that are to have at least one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Proxies that are to have them.
    pub proxies: usize,
    /// Proxies that have all of theirs.
    pub holding: usize,
    /// Proxies that refuse one.
    pub refusing: usize,
    /// Proxies that refuse one together with others, without saying which is bad.
    pub suspecting: usize,
    /// Streams that refuse one.
    pub streams: BTreeSet<u64>,
    /// What the first of them by node id says.
    pub words: Option<Words>,
}

impl Outcome {
    /// What is wrong at proxies, for a condition.
    pub fn problem(&self) -> Option<String> {
        let Words { node, message } = self.words.as_ref()?;
        let refusing = self.refusing + self.suspecting;
        let all = self.proxies;
        let what = if self.refusing > 0 {
            "refuse it and keep the last good state"
        } else {
            "refuse it together with other resources, and do not say which is bad"
        };
        Some(format!(
            "{refusing} of {all} proxies {what}; {node} says: {message}"
        ))
    }
}

/// What has changed since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Resources with new answers.
    pub resources: BTreeSet<ResourceKey>,
    /// Objects with new answers to what they have a part in, or that are blamed or no longer.
    pub objects: BTreeSet<String>,
}

/// What objects are made into, for statuses of modules that do not serve it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// By object, as `Kind namespace/name`: the resources that it has a part in.
    pub parts: BTreeMap<String, Vec<Part>>,
    /// By object: proxies refuse what it has a part in, and it is to blame.
    pub blamed: BTreeMap<String, Words>,
}

/// Numbers of answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    all: u64,
    refusals: u64,
}

/// The answers of all proxies.
#[derive(Debug)]
pub struct Answers {
    book: Mutex<Book>,
    seen: watch::Sender<Seen>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            book: Mutex::default(),
            seen: watch::Sender::new(Seen::default()),
        }
    }
}

impl Answers {
    /// How the proxies stand to these resources.
    ///
    /// Streams of one node id and one type are different proxies; those of different types belong to one.
    pub fn of<'a>(&self, parts: impl IntoIterator<Item = &'a Part>) -> Outcome {
        self.book.lock().of(parts)
    }

    /// Streams whose last word on a resource is about one of these versions.
    pub fn about(&self, part: &Part) -> usize {
        self.book.lock().about(part)
    }

    /// Whether a stream is open.
    pub fn is_open(&self, stream: u64) -> bool {
        self.book.lock().is_open(stream)
    }

    /// Why an object is not in force although it is valid: proxies refuse what it has a part in.
    pub fn blame(&self, object: &str) -> Option<Words> {
        self.book.lock().programmed.blamed.get(object).cloned()
    }

    /// Resources that an object has a part in, besides those of its own module.
    pub fn parts_of(&self, object: &str) -> Vec<Part> {
        let book = self.book.lock();
        book.programmed
            .parts
            .get(object)
            .cloned()
            .unwrap_or_default()
    }

    /// Replaces what is known of objects.
    pub fn program(&self, programmed: Programmed) {
        self.book.lock().program(programmed);
    }

    /// Takes an answer over.
    pub fn take(&self, answer: &Delivery) {
        let is_refusal = matches!(answer, Delivery::Nacked { .. });
        if self.book.lock().take(answer) {
            self.seen.send_modify(|seen| {
                seen.all += 1;
                seen.refusals += u64::from(is_refusal);
            });
        }
    }

    /// Takes the server's books over: they also know who has not answered, and what was missed.
    pub fn recount(&self, nodes: &[NodeInfo]) {
        self.book.lock().recount(nodes);
        self.seen.send_modify(|seen| {
            seen.all += 1;
            seen.refusals += 1;
        });
    }

    /// What has changed since the last call.
    pub fn changed(&self) -> Changed {
        self.book.lock().changed()
    }

    /// How many answers there were.
    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits for a refusal that is newer than `seen`, or for any answer.
    pub async fn newer(&self, seen: Seen, any: bool) {
        let mut receiver = self.seen.subscribe();
        let is_newer = |now: &Seen| now.refusals != seen.refusals || (any && now.all != seen.all);
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(is_newer).await;
    }
}

impl Said {
    fn answer(&self, versions: &[u64]) -> Answer<'_> {
        match &self.refuses {
            Some(refused) if versions.contains(&refused.version) && refused.sure => {
                Answer::Refuses(&refused.words)
            }
            Some(refused) if versions.contains(&refused.version) => {
                Answer::Suspects(&refused.words)
            }
            _ if self.holds.is_some_and(|held| versions.contains(&held)) => Answer::Holds,
            _ => Answer::Waits,
        }
    }
}

/// From the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer<'a> {
    Holds,
    Waits,
    Suspects(&'a str),
    Refuses(&'a str),
}
