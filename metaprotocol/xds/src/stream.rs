//! The state of one stream: who the client is, and a session for each type that it subscribes to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::encode::response;
use crate::entry::Entry;
use crate::identity::{NodeTrust, Peer, PeerInfo};
use crate::info::{Clock, NodeInfo, ResourceInfo, StreamInfo, Subscription};
use crate::options::Limits;
use crate::protocol::Protocol;
use crate::session::{Action, Mode, Push, Session};
use crate::stats::Stats;
use crate::store::{Delivery, Store, TypeStore};
use crate::types::{is_full_state, is_of_clusters, rank, refers_to_clusters};
use crate::wake::Wake;

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
    identity: Option<String>,
    /// In the order of [`rank`].
    sessions: Vec<(Arc<TypeStore>, Session)>,
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
            let refused = |r: &&ResourceInfo| !r.is_synced() && r.refused.is_some();
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
        let Inner { peer, sessions, .. } = &mut *inner;
        let Some(peer) = peer else { return Ok(()) };
        let place = self.session_of::<P>(sessions, &resources, peer, now);
        let mut subscribes = false;
        if let Some((_, session)) = sessions.get_mut(place) {
            for action in P::handle(session, request, now) {
                subscribes |= matches!(action, Action::Watch(_));
                self.perform(store, &resources, peer, action);
            }
        }
        let result = if subscribes {
            self.check_names(store, sessions)
        } else {
            Ok(())
        };
        drop(inner);
        self.wake.wake();
        result
    }

    /// The first request tells who the client is; later ones must not contradict it.
    fn identify(&self, store: &Store, inner: &mut Inner, node: Option<Node>) -> Result<(), Status> {
        if let Some(known) = &inner.peer {
            return match node {
                Some(node) if !node.id.is_empty() && node.id != known.id => {
                    Err(Status::invalid_argument(format!(
                        "node.id changed from '{}' to '{}' on one stream; open a new stream for another node",
                        known.id, node.id
                    )))
                }
                _ => Ok(()),
            };
        }
        let info = &self.settings.info;
        let peer = Peer::new(
            &node.unwrap_or_default(),
            info.spiffe.clone(),
            self.settings.trust,
        )
        .map_err(Status::permission_denied)?;
        let identity = match (&peer.spiffe, info.addr) {
            (Some(id), _) => id.to_string(),
            (None, Some(addr)) if peer.id.is_empty() => addr.ip().to_string(),
            _ => peer.id.clone(),
        };
        let limit = self.limits().streams_per_identity;
        if !store.admit(&identity, limit) {
            Stats::add(&store.stats.limited_streams, 1);
            return Err(Status::resource_exhausted(format!(
                "'{identity}' has {limit} streams open, and more are not allowed; close some, or raise the limit of streams per identity"
            )));
        }
        inner.identity = Some(identity);
        inner.peer = Some(peer);
        Ok(())
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
        let session = Session::new(
            Arc::clone(&peer.key),
            self.id(),
            mode,
            Arc::clone(&peer.view),
            now,
        );
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
    ) -> Result<(), Status> {
        let limit = self.limits().names_per_stream;
        let names: usize = sessions.iter().map(|(_, s)| s.subscribed().count()).sum();
        if names <= limit {
            return Ok(());
        }
        Stats::add(&store.stats.limited_names, 1);
        Err(Status::resource_exhausted(format!(
            "the stream subscribes to {names} names, and {limit} are allowed; ask for fewer, use the wildcard, or raise the limit of names per stream"
        )))
    }

    fn perform(&self, store: &Store, resources: &TypeStore, peer: &Peer, action: Action) {
        let stats = &store.stats;
        let counters = &resources.counters;
        match action {
            Action::Watch(name) => resources.index.lock().watch(name, &self.wake),
            Action::Unwatch(name) => resources.index.lock().unwatch(&name, self.id()),
            Action::WatchAll(on) => {
                let mut index = resources.index.lock();
                index.watch_all(on, &self.wake, &peer.view);
            }
            Action::Ack => {
                Stats::add(&stats.acks, 1);
                Stats::add(&counters.acks, 1);
            }
            Action::Nack => {
                Stats::add(&stats.nacks, 1);
                Stats::add(&counters.nacks, 1);
            }
            Action::Stale => Stats::add(&stats.stale_nonces, 1),
            Action::ClearRejection(name) => {
                let mut table = resources.table.write();
                table.clear_rejection(&name, &peer.key);
            }
            Action::Accepted(accepted) => {
                report_acks(store, resources, peer, &accepted);
            }
            Action::Rejected {
                name,
                origin,
                rejection,
                message,
            } => {
                let version = rejection.version.clone();
                let mut table = resources.table.write();
                if table.reject(&name, &peer.key, rejection) {
                    drop(table);
                    let name = Some(name.to_string());
                    report_nack(store, resources, peer, name, version, message, origin);
                }
            }
            Action::RejectedWithoutContent {
                name,
                version,
                message,
            } => report_nack(
                store,
                resources,
                peer,
                name,
                version,
                message,
                String::new(),
            ),
        }
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
        let mut pending = false;
        for (resources, session) in &mut inner.sessions {
            // A proxy ACKs clusters when it can use them; before that, a route to them would lose calls.
            if pending && refers_to_clusters(&resources.url) {
                continue;
            }
            let push = session.next_push(&resources.table.read(), now);
            pending |= is_of_clusters(&resources.url) && session.pending_since().is_some();
            Stats::add(&resources.counters.denied, session.take_denied());
            if let Some(push) = push {
                count(stats, resources, &push);
                self.answered.cancel();
                return Poll::Ready(Some(response(self.delta, &resources.url, &push)));
            }
        }
        // A client that has asked and says no more is answered before its stream ends.
        if inner.end.is_some() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Removes the stream from the indexes and the counters.
    pub(crate) fn close(&self, store: &Store) {
        let mut inner = self.inner.lock();
        // No request may enter the index again after this point.
        inner.end.get_or_insert(Ok(()));
        let Inner {
            peer,
            identity,
            sessions,
            ..
        } = &mut *inner;
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
        }
        if let Some(identity) = identity.take() {
            store.release(&identity);
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

fn report_acks(
    store: &Store,
    resources: &TypeStore,
    peer: &Peer,
    accepted: &[(Arc<Entry>, Duration)],
) {
    for (_, latency) in accepted {
        resources.counters.convergence.observe(*latency);
    }
    store.report(accepted.iter().map(|(entry, latency)| Delivery::Acked {
        node: peer.id.clone(),
        type_url: resources.url.to_string(),
        name: entry.name().to_owned(),
        version: entry.version().to_owned(),
        latency: *latency,
    }));
}

fn report_nack(
    store: &Store,
    resources: &TypeStore,
    peer: &Peer,
    name: Option<String>,
    version: String,
    message: String,
    origin: String,
) {
    tracing::warn!(
        node = peer.id,
        type_url = &*resources.url,
        name = name.as_deref().unwrap_or("-"),
        version,
        origin,
        message,
        "a proxy refused a resource and keeps what it had"
    );
    store.report(std::iter::once(Delivery::Nacked {
        node: peer.id.clone(),
        type_url: resources.url.to_string(),
        name,
        version,
        message,
        origin,
    }));
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
