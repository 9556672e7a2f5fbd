//! The protocol core: what one client knows about one type, and what to tell it next.
//!
//! A session does no input or output and has no clock. Requests change it and yield [`Action`]s for the shell;
//! [`Session::next_push`] reads the table and yields at most one message, and none while one is unanswered. The message
//! is chosen when the transport can take it, so a slow client gets the newest content and nothing in between.

mod answer;
mod calm;
mod delta;
mod full;
mod message;
mod plan;
#[cfg(test)]
mod random;
mod sotw;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::calm::Calm;
#[cfg(test)]
pub(crate) use self::message::item;
use self::message::{Item, Load, Outstanding, Part, version_of_many};
use self::plan::Verdict;
use crate::entry::Entry;
use crate::pins::Pin;
use crate::scope::View;
use crate::table::Table;

pub(crate) use self::message::Push;
pub(crate) use self::state::ResourceState;

/// Most resources in one message: enough to fill a first answer in few round trips.
const MAX_RESOURCES: usize = 256;
/// Of a refused message with a larger part of that not each resource is tried alone, but first so many together.
const SUSPECTS: usize = 4;
/// The name that stands for all names.
const WILDCARD: &str = "*";

/// What the shell has to do after a request.
#[derive(Debug)]
pub(crate) enum Action {
    /// Wake this stream when the name changes.
    Watch(Arc<str>),
    /// No longer.
    Unwatch(Arc<str>),
    /// Wake this stream on every change, or no longer.
    WatchAll(bool),
    /// The client accepted a response.
    Ack,
    /// The client refused a response.
    Nack,
    /// The request answered an older response.
    Stale,
    /// The client holds this content now; the times are from publication, or from subscription if that came later.
    Accepted(Vec<(Arc<Entry>, Duration)>),
    /// The client refused this content; the pin says what it holds instead.
    Rejected {
        name: Arc<str>,
        origin: String,
        pin: Pin,
        message: String,
    },
    /// The client refused a message that has no content.
    RejectedEmpty {
        name: Option<String>,
        version: String,
        message: String,
    },
    /// The refusal remembered for this name and node is out of date.
    Unpin(Arc<str>),
}

/// What the client is known to hold of one name.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// It said so when it connected.
    Announced(String),
    /// It acknowledged this entry.
    Has(Arc<Entry>),
}

impl Held {
    fn version(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Announced(version) => Some(version),
            Self::Has(entry) => Some(entry.version()),
        }
    }
}

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one machine"
)]
struct Known {
    /// Subscribed by name, not only by the wildcard.
    explicit: bool,
    held: Held,
    /// The content that the client refused; it is not sent again.
    rejected: Option<String>,
    /// Must be answered even if the client holds it already.
    owed: bool,
    /// Was part of a refused message, so it travels alone until it is accepted.
    alone: bool,
    /// The table remembers a refusal for this name and node.
    pinned: bool,
    /// Even what it had accepted before was refused: nothing more to offer until the content changes.
    hopeless: bool,
    queued: bool,
    since: Instant,
    /// The content last sent, and when.
    sent: Option<(Arc<Entry>, Instant)>,
    /// When the content that it holds was accepted on this stream.
    acked: Option<Instant>,
    refusal: Option<Box<Refusal>>,
}

impl Known {
    fn new(explicit: bool, now: Instant) -> Self {
        Self {
            explicit,
            held: Held::Nothing,
            rejected: None,
            owed: false,
            alone: false,
            pinned: false,
            hopeless: false,
            queued: false,
            since: now,
            sent: None,
            acked: None,
            refusal: None,
        }
    }

    /// Whether nothing is special about it but what the client holds.
    fn is_plain(&self) -> bool {
        let special = self.explicit
            || self.owed
            || self.alone
            || self.pinned
            || self.hopeless
            || self.queued
            || self.rejected.is_some()
            || self.refusal.is_some();
        !special
    }
}

/// The last refusal of a name; forgotten when a newer content is accepted.
#[derive(Debug)]
struct Refusal {
    version: String,
    message: String,
    at: Instant,
}

/// Which rules of the protocol a session follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// State of the world, where a response says nothing about what it lacks.
    Sotw,
    /// State of the world, where a response lists everything.
    FullSotw,
    /// Changes only.
    Delta,
}

/// The state of one type on one stream.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one machine"
)]
pub(crate) struct Session {
    node: Arc<str>,
    stream: u64,
    view: Arc<View>,
    delta: bool,
    /// A response lists everything.
    full: bool,
    /// Most resources in one message that is not full.
    most: usize,
    /// Most news in one message; shrinks while a bad one is looked for.
    trial: usize,
    /// The client may hold what no full message repeats: from before the stream, or because it refused a removal.
    unsure: bool,
    /// Questions for names that exist but that this client must not see.
    denied: usize,
    first: bool,
    wildcard: bool,
    /// The wildcard came from an empty list of names, so it ends with the first name.
    legacy: bool,
    rescan: bool,
    /// A wildcard client waits for a first answer even if it is empty.
    greet: bool,
    cursor: Option<u64>,
    known: HashMap<Arc<str>, Known>,
    /// Names covered by the wildcard that are not in `known`, as nothing happens to them. Delta only.
    calm: Calm,
    /// What the client said it holds, until it is compared. Delta wildcards only.
    announced: HashMap<String, String>,
    /// Names that may become calm.
    restless: Vec<Arc<str>>,
    queue: VecDeque<Arc<str>>,
    /// Names that a void request left; the next request that counts tells whether they are wanted.
    doubtful: BTreeSet<Arc<str>>,
    outstanding: Option<Outstanding>,
    nonces: u64,
    last_nonce: String,
    started: Instant,
    pub(crate) last_sent: Option<String>,
    pub(crate) last_acked: Option<String>,
    pub(crate) last_nack: Option<String>,
}

impl Session {
    pub(crate) fn new(
        node: Arc<str>,
        stream: u64,
        mode: Mode,
        view: Arc<View>,
        now: Instant,
    ) -> Self {
        Self {
            node,
            stream,
            view,
            delta: mode == Mode::Delta,
            full: mode == Mode::FullSotw,
            most: MAX_RESOURCES,
            trial: usize::MAX,
            unsure: mode == Mode::FullSotw,
            denied: 0,
            first: true,
            wildcard: false,
            legacy: false,
            rescan: false,
            greet: false,
            cursor: None,
            known: HashMap::new(),
            calm: Calm::default(),
            announced: HashMap::new(),
            restless: Vec::new(),
            queue: VecDeque::new(),
            doubtful: BTreeSet::new(),
            outstanding: None,
            nonces: 0,
            last_nonce: String::new(),
            started: now,
            last_sent: None,
            last_acked: None,
            last_nack: None,
        }
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Names subscribed one by one, in no order.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known
            .iter()
            .filter(|(_, known)| known.explicit)
            .map(|(name, _)| name)
    }

    /// Number of names subscribed one by one.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscribed().count()
    }

    /// Questions for names that this client must not see, since the last call.
    pub(crate) fn take_denied(&mut self) -> usize {
        std::mem::take(&mut self.denied)
    }

    /// How long the client has owed an answer.
    pub(crate) fn outstanding_for(&self, now: Instant) -> Option<Duration> {
        self.outstanding
            .as_ref()
            .map(|outstanding| now.saturating_duration_since(outstanding.since))
    }

    /// The next message, if there is something to say and the last one was answered.
    ///
    /// O(names that changed since the last call and may concern the client), and never more than O(names that it sees);
    /// nothing to do is O(1). Messages of full types cost what they contain besides.
    pub(crate) fn next_push(&mut self, table: &Table, now: Instant) -> Option<Arc<Push>> {
        self.catch_up(table, now);
        if self.outstanding.is_some() {
            return None;
        }
        if self.full {
            return self.next_full(table, now);
        }
        let mut load = Load::new(self.most.min(self.trial));
        if self.drain_queue(&mut load, table) {
            self.fill(&mut load);
        }
        if load.is_empty() && !self.greet {
            self.calm_down(table, now);
            return None;
        }
        self.greet = false;
        Some(self.dispatch(load.items, load.removed, now))
    }

    /// Fills a message from the queue; true if there may be room for more.
    fn drain_queue(&mut self, load: &mut Load, table: &Table) -> bool {
        while let Some(name) = self.queue.pop_front() {
            match self.decide(&name, table) {
                Verdict::Skip => {}
                Verdict::Remove => load.removed.push(name),
                Verdict::Send {
                    entry,
                    fallback,
                    owed,
                } => {
                    let alone = self.known.get(&name).is_some_and(|known| known.alone);
                    if (alone && !load.is_empty()) || !load.has_room(&entry) {
                        self.put_back(name, owed);
                        return false;
                    }
                    load.push(Item {
                        entry,
                        fallback,
                        owed,
                        part: Part::News,
                    });
                    if alone {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn dispatch(&mut self, items: Vec<Item>, removed: Vec<Arc<str>>, now: Instant) -> Arc<Push> {
        self.nonces += 1;
        // The stream id is in the nonce so that an answer to an earlier stream never matches by accident.
        let nonce = format!("{:x}-{}", self.stream, self.nonces);
        let version = match items.as_slice() {
            [only] if !self.full => only.entry.version().to_owned(),
            all => version_of_many(all, &removed),
        };
        self.last_nonce.clone_from(&nonce);
        self.last_sent = Some(version.clone());
        let mut waited = None;
        for item in items.iter().filter(|item| item.is_fresh()) {
            let since = if item.is_first() {
                self.calm.since
            } else if let Some(known) = self.known.get_mut(item.name()) {
                known.sent = Some((Arc::clone(&item.entry), now));
                Some(known.since)
            } else {
                None
            };
            let start = since.map(|since| since.max(item.entry.published));
            waited = waited.max(start.map(|start| now.saturating_duration_since(start)));
        }
        let push = Arc::new(Push {
            items,
            removed,
            version,
            nonce,
            waited,
        });
        self.outstanding = Some(Outstanding {
            push: Arc::clone(&push),
            since: now,
        });
        push
    }

    /// The name as it is shared with the map of known names.
    fn shared(&self, name: &str) -> Arc<str> {
        let known = self.known.get_key_value(name);
        known.map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
    }

    fn enqueue(&mut self, name: &str) {
        if let Some(known) = self.known.get_mut(name)
            && !known.queued
        {
            known.queued = true;
            let name = self.shared(name);
            self.queue.push_back(name);
        }
    }

    /// For a name that no longer fits into this message: first in the next one.
    fn put_back(&mut self, name: Arc<str>, owed: bool) {
        if let Some(known) = self.known.get_mut(&name) {
            known.queued = true;
            known.owed |= owed;
            self.queue.push_front(name);
        }
    }

    fn learn(&mut self, name: Arc<str>, explicit: bool, now: Instant) -> &mut Known {
        if !self.known.contains_key(&name) {
            let announced = self.announced.remove(&*name).map(|version| Known {
                held: Held::Announced(version),
                ..Known::new(explicit, now)
            });
            let known = announced
                .or_else(|| self.recall(&name))
                .unwrap_or_else(|| Known::new(explicit, now));
            self.known.insert(Arc::clone(&name), known);
            if self.delta && self.wildcard {
                self.restless.push(Arc::clone(&name));
            }
        }
        let known = self
            .known
            .entry(name)
            .or_insert_with(|| Known::new(explicit, now));
        known.explicit |= explicit;
        known
    }

    /// Subscribes by name. `owed` asks for an answer even if the client holds the content.
    fn subscribe(&mut self, name: &str, owed: bool, now: Instant, actions: &mut Vec<Action>) {
        let name: Arc<str> = name.into();
        let known = self.learn(Arc::clone(&name), true, now);
        known.owed |= owed;
        known.since = now;
        self.enqueue(&name);
        actions.push(Action::Watch(name));
    }

    fn set_wildcard(&mut self, on: bool, actions: &mut Vec<Action>) {
        if self.wildcard == on {
            return;
        }
        self.wildcard = on;
        actions.push(Action::WatchAll(on));
        if on {
            self.rescan = true;
        } else {
            self.known.retain(|_, known| known.explicit);
            self.calm = Calm::default();
            self.announced.clear();
            self.restless.clear();
            self.forget_queued();
        }
    }

    fn forget_queued(&mut self) {
        self.queue.retain(|name| self.known.contains_key(name));
    }
}
