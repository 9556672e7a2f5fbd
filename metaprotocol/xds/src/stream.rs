//! The state of one stream: who the client is, and a session for each type that it subscribes to.

mod answers;
mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::encode::response;
use crate::identity::{NodeTrust, Peer, PeerInfo};
use crate::info::{Clock, NodeInfo, ResourceInfo, StreamInfo, Subscription};
use crate::options::Limits;
use crate::protocol::Protocol;
use crate::references::any_field;
use crate::session::{Action, Mode, Order, Push, Session};
use crate::stats::Stats;
use crate::store::{Delivery, Store, TypeStore};
use crate::types::MAX_TEXT;
use crate::types::{CDS, depends, is_full_state, rank, refers_to_clusters, remembers_refusals};
use crate::wake::Wake;

/// Bytes of a name that count as usual; all names of a stream together may have so many for each that it may have.
const NAME_BYTES: usize = 128;
/// Names that a stream may have where all streams together have too many, so that who has few is not cut off.
const FEW_NAMES: usize = 100;
/// How long changes of clusters wait for an answer that the client withholds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the server decided for a stream before its first request.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamSettings {
    pub(crate) info: PeerInfo,
    pub(crate) trust: NodeTrust,
    pub(crate) limits: Arc<Limits>,
    pub(crate) debounce: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    peer: Option<Peer>,
    /// What this stream is counted under.
    identities: Vec<String>,
    /// In the order of [`rank`].
    sessions: Vec<(Arc<TypeStore>, Session)>,
    order: Order,
    /// Names that are counted for this stream.
    names: usize,
    /// A response was made.
    answered: bool,
    due: Option<Instant>,
    end: Option<Result<(), Status>>,
}

/// State of one stream, shared by its reader, its writer and the admin API.
#[derive(Debug)]
pub(crate) struct StreamState {
    delta: bool,
    settings: StreamSettings,
    pub(crate) wake: Arc<Wake>,
    /// Cancelled with the first response.
    pub(crate) answered: CancellationToken,
    inner: Mutex<Inner>,
}

impl StreamState {
    pub(crate) fn new(id: u64, delta: bool, started: Instant, settings: StreamSettings) -> Self {
        Self {
            delta,
            wake: Arc::new(Wake::new(id, started, settings.debounce)),
            answered: CancellationToken::new(),
            settings,
            inner: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.wake.id()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// The state of everything the client subscribes to; `None` for a node other than `only`, and before the first
    /// request.
    pub(crate) fn report(&self, only: Option<&str>, clock: &Clock) -> Option<NodeInfo> {
        let inner = self.inner.lock();
        let peer = inner.peer.as_ref()?;
        if only.is_some_and(|only| only != peer.id) {
            return None;
        }
        let subscription = |(resources, session): &(Arc<TypeStore>, Session)| Subscription {
            type_url: resources.url.to_string(),
            stream: self.id(),
            delta: self.delta,
            wildcard: session.is_wildcard(),
            last_refusal: session.last_nack.clone(),
            resources: session.report(&resources.table.read(), clock),
        };
        Some(NodeInfo {
            id: peer.id.clone(),
            identity: peer.spiffe.as_ref().map(ToString::to_string),
            audiences: peer.view.0.iter().map(ToString::to_string).collect(),
            subscriptions: inner.sessions.iter().map(subscription).collect(),
        })
    }

    pub(crate) fn describe(&self, clock: &Clock) -> Vec<StreamInfo> {
        let inner = self.inner.lock();
        let node = inner
            .peer
            .as_ref()
            .map(|peer| peer.id.clone())
            .unwrap_or_default();
        let info = |(resources, session): &(Arc<TypeStore>, Session)| {
            let mut subscribed: Vec<String> =
                session.subscribed().map(ToString::to_string).collect();
            subscribed.sort_unstable();
            let all = session.report(&resources.table.read(), clock);
            let held = all.iter().filter(|r| r.is_synced()).count();
            let refused = |r: &&ResourceInfo| r.refusal().is_some();
            let refused = all.iter().filter(refused).count();
            StreamInfo {
                id: self.id(),
                node: node.clone(),
                type_url: resources.url.to_string(),
                delta: self.delta,
                wildcard: session.is_wildcard(),
                subscribed,
                since: clock.time(self.wake.started()),
                last_sent: session.last_sent.clone(),
                last_acked: session.last_acked.clone(),
                last_nack: session.last_nack.clone(),
                pending_since: session.pending_since().map(|at| clock.time(at)),
                held,
                waiting: all.len() - held - refused,
                refused,
            }
        };
        inner.sessions.iter().map(info).collect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.inner.lock().end.is_some()
    }

    pub(crate) fn end(&self, result: Result<(), Status>) {
        self.inner.lock().end.get_or_insert(result);
        self.wake.wake();
    }

    /// Takes one request. An ACK or NACK is O(names in the response), a subscription O(names in it).
    pub(crate) fn accept<P: Protocol>(
        &self,
        store: &Store,
        only: Option<&str>,
        mut request: P::Request,
    ) -> Result<(), Status> {
        let now = Instant::now();
        P::check(&request)?;
        let url = requested_type::<P>(only, &mut request)?;
        let node = P::node(&mut request);
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return Ok(());
        }
        self.identify(store, &mut inner, node)?;
        let Some(resources) = store.get(&url) else {
            // No response rather than an error: an error would end the stream for all other types on it.
            Stats::add(&store.stats.unknown_types, 1);
            tracing::debug!(
                type_url = url,
                stream = self.id(),
                "request for a type that is not served"
            );
            return Ok(());
        };
        let Inner {
            peer,
            sessions,
            order,
            names,
            ..
        } = &mut *inner;
        let Some(peer) = peer else { return Ok(()) };
        let place = self.session_of::<P>(sessions, &resources, peer, now);
        let mut subscribes = false;
        if let Some((_, session)) = sessions.get_mut(place) {
            let waited = session.pending_since().is_some();
            let mut acked = false;
            for action in P::handle(session, request, now) {
                subscribes |= matches!(action, Action::Watch(_) | Action::Unwatch(_));
                acked |= matches!(action, Action::Ack);
                self.perform(store, &resources, peer, action);
            }
            if waited && session.pending_since().is_none() {
                order.on_answered(&resources.url, acked);
            }
        }
        let result = if subscribes {
            self.check_names(store, sessions, names)
        } else {
            Ok(())
        };
        drop(inner);
        self.wake.wake();
        result
    }

    fn session_of<P: Protocol>(
        &self,
        sessions: &mut Vec<(Arc<TypeStore>, Session)>,
        resources: &Arc<TypeStore>,
        peer: &Peer,
        now: Instant,
    ) -> usize {
        let same = |(other, _): &(Arc<TypeStore>, Session)| Arc::ptr_eq(other, resources);
        if let Some(place) = sessions.iter().position(same) {
            return place;
        }
        let mode = match (P::DELTA, is_full_state(&resources.url)) {
            (true, _) => Mode::Delta,
            (false, true) => Mode::FullSotw,
            (false, false) => Mode::Sotw,
        };
        // Envoy withholds the answer to clusters until all of them are warm.
        let patience = (&*resources.url == CDS).then_some(PATIENCE);
        let session = Session::new(
            Arc::clone(&peer.key),
            self.id(),
            mode,
            Arc::clone(&peer.view),
            now,
        )
        .remembering_refusals(remembers_refusals(&resources.url))
        .with_patience(patience);
        Stats::add(resources.counters.subscriptions(self.delta), 1);
        let rank_of = rank(&resources.url);
        let place = sessions.partition_point(|(other, _)| rank(&other.url) <= rank_of);
        // A session is large and most streams have few types, so no spare capacity.
        sessions.reserve_exact(1);
        sessions.insert(place, (Arc::clone(resources), session));
        place
    }

    fn check_names(
        &self,
        store: &Store,
        sessions: &[(Arc<TypeStore>, Session)],
        counted: &mut usize,
    ) -> Result<(), Status> {
        let limit = self.limits().names_per_stream;
        let (mut names, mut bytes) = (0, 0);
        for (_, session) in sessions {
            names += session.names().names;
            bytes += session.names().bytes;
        }
        let all = store.count_names(std::mem::replace(counted, names), names);
        let crowded = all > self.limits().names && names > FEW_NAMES;
        if !crowded && names <= limit && bytes <= limit.saturating_mul(NAME_BYTES) {
            return Ok(());
        }
        Stats::add(&store.stats.limited_names, 1);
        if crowded {
            return Err(Status::resource_exhausted(format!(
                "all streams of the xDS server subscribe to {all} names, and a stream may have {FEW_NAMES} then, not {names}; ask for fewer, use the wildcard, or try another replica"
            )));
        }
        if names <= limit {
            return Err(Status::resource_exhausted(format!(
                "the names that the stream subscribes to have {bytes} bytes, and {NAME_BYTES} for each of {limit} names are allowed; ask for fewer, use the wildcard, or raise the limit of names per stream"
            )));
        }
        Err(Status::resource_exhausted(format!(
            "the stream subscribes to {names} names, and {limit} are allowed; ask for fewer, use the wildcard, or raise the limit of names per stream"
        )))
    }

    /// The next message, the end, or nothing for now. O(types of the stream) if there is nothing to do.
    pub(crate) fn poll(&self, stats: &Stats) -> Poll<Option<Result<Bytes, Status>>> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if matches!(inner.end, Some(Err(_)))
            && let Some(Err(end)) = inner.end.replace(Ok(()))
        {
            return Poll::Ready(Some(Err(end)));
        }
        let Inner {
            sessions,
            order,
            answered,
            due,
            ..
        } = &mut *inner;
        order.expire(now);
        *due = None;
        for place in 0..sessions.len() {
            let Some((resources, session)) = sessions.get_mut(place) else {
                break;
            };
            let waits = refers_to_clusters(&resources.url) && !order.is_empty();
            let push = session.next_push(&resources.table.read(), now, waits.then_some(order));
            Stats::add(&resources.counters.denied, session.take_denied());
            if let Some(push) = push {
                count(stats, resources, &push);
                if !std::mem::replace(answered, true) {
                    self.answered.cancel();
                }
                order.on_sent(&resources.url, &push, now);
                let bytes = response(self.delta, &resources.url, &push);
                send_dependents(sessions, place, &push, now);
                return Poll::Ready(Some(bytes));
            }
            if &*resources.url == CDS {
                order.on_queued(session.queued(order.queued()), now);
            }
            let holds = session.holds().then(|| order.expires()).flatten();
            *due = due
                .iter()
                .copied()
                .chain(session.wake_at())
                .chain(holds)
                .min();
        }
        // A client that has asked and says no more is answered before its stream ends.
        if inner.end.is_some() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// When [`Self::poll`] has something to do though nothing has come; of its last call.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.inner.lock().due
    }

    /// Removes the stream from the indexes and the counters.
    pub(crate) fn close(&self, store: &Store) {
        let mut inner = self.inner.lock();
        // No request may enter the index again after this point.
        inner.end.get_or_insert(Ok(()));
        let Inner {
            peer,
            identities,
            sessions,
            names,
            ..
        } = &mut *inner;
        store.count_names(std::mem::take(names), 0);
        if let Some(peer) = peer {
            for (resources, session) in std::mem::take(sessions) {
                let mut index = resources.index.lock();
                for name in session.subscribed() {
                    index.unwatch(name, self.id());
                }
                index.unwatch_all(self.id(), &peer.view);
                let subscriptions = resources.counters.subscriptions(self.delta);
                subscriptions.fetch_sub(1, Ordering::Relaxed);
            }
            store.report(std::iter::once(Delivery::Closed {
                stream: self.id(),
                node: peer.id.clone(),
            }));
        }
        for identity in std::mem::take(identities) {
            store.release(&identity);
        }
    }
}

/// A proxy that gets a changed resource waits for what it refers to, also if that is as before: a changed cluster is not
/// used before its endpoints came again. O(bytes of the changed resources), if the stream has types that they may refer to.
fn send_dependents(
    sessions: &mut [(Arc<TypeStore>, Session)],
    parent: usize,
    push: &Push,
    now: Instant,
) {
    let Some(url) = sessions
        .get(parent)
        .map(|(store, _)| Arc::clone(&store.url))
    else {
        return;
    };
    if !sessions.iter().any(|(child, _)| depends(&url, &child.url)) {
        return;
    }
    let mut found: BTreeSet<&[u8]> = BTreeSet::new();
    for item in push.items.iter().filter(|item| item.is_change()) {
        any_field(item.entry.body(), &mut |value| {
            if value.len() <= MAX_TEXT {
                found.insert(value);
            }
            false
        });
    }
    for (child, session) in sessions {
        if !depends(&url, &child.url) {
            continue;
        }
        let table = child.table.read();
        for name in found.iter().filter_map(|name| str::from_utf8(name).ok()) {
            session.send_again(name, &table, now);
        }
    }
}

fn count(stats: &Stats, resources: &TypeStore, push: &Push) {
    let bytes = push.items.iter().map(|item| item.entry.body().len());
    let counters = &resources.counters;
    Stats::add(&stats.pushes, 1);
    Stats::add(&counters.pushes, 1);
    Stats::add(&counters.resources, push.items.len());
    Stats::add(&counters.removed, push.removed.len());
    Stats::add(&counters.bytes, bytes.sum());
}

fn requested_type<P: Protocol>(
    only: Option<&str>,
    request: &mut P::Request,
) -> Result<String, Status> {
    let url = std::mem::take(P::type_url(request));
    match only {
        Some(only) if url.is_empty() || url == only => Ok(only.to_owned()),
        Some(only) => Err(Status::invalid_argument(format!(
            "type_url is '{url}' but this service serves '{only}'; use the aggregated discovery service for other types"
        ))),
        None if url.is_empty() => Err(Status::invalid_argument(
            "type_url is empty; the aggregated discovery service needs it in every request",
        )),
        None => Ok(url),
    }
}
