//! The session: subscriptions, the queue of resources to look at, and the response in flight.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::baseline::Baseline;
use super::message::InFlight;
use super::resource::{Acked, ResourceState};
use crate::entry::Entry;
use crate::rejections::Rejection;
use crate::scope::View;

/// Most resources in one response: enough to send all of a large mesh in few round trips.
pub(super) const MAX_RESOURCES: usize = 256;
/// The name that subscribes to all names.
pub(super) const WILDCARD: &str = "*";

/// What the shell has to do after a request.
#[derive(Debug)]
pub(crate) enum Action {
    /// Wake this stream when the name changes.
    Watch(Arc<str>),
    /// No longer.
    Unwatch(Arc<str>),
    /// The client is no longer interested in these.
    Left(Vec<Arc<str>>),
    /// Wake this stream on every change, or no longer.
    WatchAll(bool),
    /// The client accepted a response.
    Ack,
    /// The client refused a response.
    Nack,
    /// The request has the nonce of an older response.
    Stale,
    /// The client accepted this content; the times are from publication, or from subscription if that came later.
    Accepted(Vec<(Arc<Entry>, Duration)>),
    /// The client refused this content.
    Rejected {
        name: Arc<str>,
        origin: String,
        rejection: Rejection,
        message: String,
    },
    /// The client refused a response with these contents; one of them is to blame.
    Suspected {
        entries: Vec<Arc<Entry>>,
        message: String,
        /// None of them was in doubt before.
        first: bool,
    },
    /// The client refused a response in which no content is to blame: only removals, or the last good content.
    RejectedWithoutContent {
        name: Option<String>,
        version: String,
        message: String,
    },
    /// The stored rejection of this name and node is out of date.
    ClearRejection(Arc<str>),
}

/// Which rules of the protocol a session follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// State of the world, where a resource that a response lacks is not removed.
    Sotw,
    /// State of the world, where a response lists everything.
    FullSotw,
    /// Changes only.
    Delta,
}

/// Names subscribed one by one, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NameCount {
    pub(crate) names: usize,
    pub(crate) bytes: usize,
}

impl NameCount {
    pub(super) fn add(&mut self, name: &str) {
        self.names += 1;
        self.bytes += name.len();
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.names -= 1;
        self.bytes -= name.len();
    }
}

/// The state of one type on one stream.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one machine"
)]
pub(crate) struct Session {
    /// Under which rejections are stored.
    pub(super) node: Arc<str>,
    pub(super) stream: u64,
    pub(super) view: Arc<View>,
    pub(super) delta: bool,
    /// A response lists everything.
    pub(super) full: bool,
    /// Most resources in one response that is not full.
    pub(super) max_resources: usize,
    /// Most changes in one response; smaller while a bad resource is searched for.
    pub(super) batch_limit: usize,
    /// The client may have what no full response lists: from before the stream, or because it refused a removal.
    pub(super) uncertain: bool,
    /// Requests for names that exist but that this client must not see.
    pub(super) denied: usize,
    /// The client acknowledges what it refused before and what has not changed since.
    pub(super) remembers_refusals: bool,
    /// No request came yet.
    pub(super) first: bool,
    /// A client of state of the world that has something from before the stream, and nothing was sent to it yet.
    pub(super) resumed: bool,
    /// As of [`Holds::released`](crate::unresolved::Holds::released).
    pub(super) released: u64,
    pub(super) wildcard: bool,
    /// The wildcard came from an empty list of names, so it ends with the first name.
    pub(super) legacy_wildcard: bool,
    /// Compare all resources, not only what the change log has.
    pub(super) rescan: bool,
    /// The client waits for a response even if it is empty.
    pub(super) response_due: bool,
    /// Position in the change log.
    pub(super) cursor: Option<u64>,
    /// By name; of a delta wildcard only those that are not in `baseline`.
    pub(super) resources: HashMap<Arc<str>, ResourceState>,
    /// How many of `resources` are subscribed one by one.
    pub(super) names: NameCount,
    pub(super) baseline: Baseline,
    /// `initial_resource_versions` of a delta wildcard, until they are compared.
    pub(super) initial_versions: HashMap<String, String>,
    /// Names that may go from `resources` into `baseline`.
    pub(super) baseline_candidates: Vec<Arc<str>>,
    pub(super) queue: VecDeque<Arc<str>>,
    /// Names that wait for clusters, and of which generation of [`Order`](super::order::Order).
    pub(super) held: Vec<Arc<str>>,
    pub(super) held_in: u64,
    /// When refused resources are tried again.
    pub(super) retries: Vec<(Instant, Arc<str>)>,
    /// How long an answer may take before changes are sent without it; `None`: for ever.
    pub(super) patience: Option<Duration>,
    /// Responses in a row that changes did not wait for.
    pub(super) withdrawn: u32,
    /// Names of such responses that the client had left: a wildcard that begins before they are answered covers them again.
    pub(super) unanswered: BTreeSet<Arc<str>>,
    /// Names that a stale request lacked; the next valid request tells whether they are still subscribed.
    pub(super) dropped_by_stale: BTreeSet<Arc<str>>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) nonces: u64,
    pub(super) last_nonce: String,
    pub(super) started: Instant,
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
            max_resources: MAX_RESOURCES,
            batch_limit: usize::MAX,
            uncertain: mode == Mode::FullSotw,
            denied: 0,
            remembers_refusals: false,
            first: true,
            resumed: false,
            released: 0,
            wildcard: false,
            legacy_wildcard: false,
            rescan: false,
            response_due: false,
            cursor: None,
            resources: HashMap::new(),
            names: NameCount::default(),
            baseline: Baseline::default(),
            initial_versions: HashMap::new(),
            baseline_candidates: Vec::new(),
            queue: VecDeque::new(),
            held: Vec::new(),
            held_in: 0,
            retries: Vec::new(),
            patience: None,
            withdrawn: 0,
            unanswered: BTreeSet::new(),
            dropped_by_stale: BTreeSet::new(),
            in_flight: None,
            nonces: 0,
            last_nonce: String::new(),
            started: now,
            last_sent: None,
            last_acked: None,
            last_nack: None,
        }
    }

    /// For a type whose clients withhold answers until they can use what they got.
    pub(crate) fn with_patience(self, patience: Option<Duration>) -> Self {
        Self { patience, ..self }
    }

    /// For a type whose clients acknowledge what they refused before and what has not changed since.
    pub(crate) fn remembering_refusals(self, remembers: bool) -> Self {
        Self {
            remembers_refusals: remembers,
            ..self
        }
    }

    /// The client said who it is after the first request: it may see something else.
    pub(crate) fn set_client(&mut self, node: Arc<str>, view: Arc<View>) {
        self.node = node;
        self.rescan |= self.view != view;
        self.view = view;
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Names subscribed one by one, in no order.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources
            .iter()
            .filter(|(_, state)| state.explicit)
            .map(|(name, _)| name)
    }

    /// How many [`Self::subscribed`] gives. O(1).
    pub(crate) fn names(&self) -> NameCount {
        self.names
    }

    /// Requests for names that this client must not see, since the last call.
    pub(crate) fn take_denied(&mut self) -> usize {
        std::mem::take(&mut self.denied)
    }

    /// When the response in flight was sent.
    pub(crate) fn pending_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|in_flight| in_flight.since)
    }

    /// The name as the map of resources shares it.
    pub(super) fn intern(&self, name: &str) -> Arc<str> {
        let shared = self.resources.get_key_value(name);
        shared.map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
    }

    pub(super) fn enqueue(&mut self, name: &str) {
        if let Some(state) = self.resources.get_mut(name)
            && (!state.queued || state.held)
        {
            state.queued = true;
            let held = std::mem::take(&mut state.held);
            let name = self.intern(name);
            if held {
                // What has changed may have to wait no more.
                self.held.retain(|other| *other != name);
            }
            self.queue.push_back(name);
        }
    }

    /// For a name that no longer fits into this response: first in the next one.
    pub(super) fn requeue(&mut self, name: Arc<str>, must_send: bool) {
        if let Some(state) = self.resources.get_mut(&name) {
            state.queued = true;
            state.must_send |= must_send;
            self.queue.push_front(name);
        }
    }

    pub(super) fn drop_unknown_from_queue(&mut self) {
        self.queue.retain(|name| self.resources.contains_key(name));
        self.held.retain(|name| self.resources.contains_key(name));
    }

    /// The state of a resource in the map, created from what is known of it elsewhere.
    pub(super) fn track(
        &mut self,
        name: Arc<str>,
        explicit: bool,
        now: Instant,
    ) -> &mut ResourceState {
        if !self.resources.contains_key(&name) {
            let initial = self
                .initial_versions
                .remove(&*name)
                .map(|version| ResourceState {
                    acked: Acked::Initial(version),
                    ..ResourceState::new(explicit, now)
                });
            let baseline = || Some(self.baseline_state(self.baseline.get(&name, &self.view)?));
            let state = initial
                .or_else(baseline)
                .unwrap_or_else(|| ResourceState::new(explicit, now));
            self.resources.insert(Arc::clone(&name), state);
            if self.delta && self.wildcard {
                self.baseline_candidates.push(Arc::clone(&name));
            }
        }
        let state = self
            .resources
            .entry(name)
            .or_insert_with(|| ResourceState::new(explicit, now));
        state.explicit |= explicit;
        state
    }

    /// The state of a resource that is in `baseline`. It has no times of its own, so they are those at which the
    /// subscription was up to date.
    pub(super) fn baseline_state(&self, entry: &Arc<Entry>) -> ResourceState {
        let started = Some(self.started).filter(|start| entry.published > *start);
        let first = self.baseline.first_sent.or(started);
        let at = first.and(self.baseline.in_sync_at.or(first));
        ResourceState {
            acked: Acked::Response(Arc::clone(entry)),
            sent: at.map(|at| (Arc::clone(entry), at)),
            acked_at: at,
            ..ResourceState::new(false, self.started)
        }
    }

    /// Subscribes to a name. `must_send` asks for a response even if the client has the content.
    pub(super) fn subscribe(
        &mut self,
        name: &str,
        must_send: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let name: Arc<str> = name.into();
        if !self
            .resources
            .get(&name)
            .is_some_and(|state| state.explicit)
        {
            self.names.add(&name);
        }
        let state = self.track(Arc::clone(&name), true, now);
        state.must_send |= must_send;
        if must_send {
            // It asks for what it refused: each subscription gets a response.
            state.fallback_rejected = false;
            if state.acked.entry().is_none() {
                state.rejected = None;
            }
        }
        state.since = now;
        self.enqueue(&name);
        actions.push(Action::Watch(name));
    }

    pub(super) fn set_wildcard(&mut self, on: bool, actions: &mut Vec<Action>) {
        if self.wildcard == on {
            return;
        }
        self.wildcard = on;
        actions.push(Action::WatchAll(on));
        if on {
            self.rescan = true;
        } else {
            let explicit = |name: &str| self.resources.get(name).is_some_and(|s| s.explicit);
            let baseline = self.baseline.entries(&self.view);
            let mut left: Vec<Arc<str>> = baseline
                .map(|(entry, _)| entry.name())
                .filter(|name| !explicit(name))
                .map(Arc::from)
                .collect();
            let tracked = self.resources.iter().filter(|(_, state)| !state.explicit);
            left.extend(tracked.map(|(name, _)| Arc::clone(name)));
            actions.push(Action::Left(left));
            self.resources.retain(|_, state| state.explicit);
            self.baseline = Baseline::default();
            self.initial_versions.clear();
            self.baseline_candidates.clear();
            self.drop_unknown_from_queue();
        }
    }
}
