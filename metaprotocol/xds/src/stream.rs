//! The state of one stream: who the client is, and a session for each type that it asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tonic::Status;

use crate::accept::PeerInfo;
use crate::cache::{Delivery, ResourceCache, StreamInfo, TypeStore};
use crate::encode::response;
use crate::identity::{NodeTrust, Peer};
use crate::nodes::{NodeInfo, ResourceInfo, Subscription};
use crate::options::Limits;
use crate::session::{Action, Mode, Push, ResourceState, Session};
use crate::stats::Stats;
use crate::types::{is_full_state, is_of_clusters, rank, refers_to_clusters};

/// The differences between state of the world and delta that the shell has to know.
pub(crate) trait Protocol: Send + Sync + Unpin + 'static {
    type Request: prost::Message + Default + 'static;
    const DELTA: bool;

    fn type_url(request: &mut Self::Request) -> &mut String;
    fn node(request: &mut Self::Request) -> Option<Node>;
    fn handle(session: &mut Session, request: Self::Request, now: Instant) -> Vec<Action>;
}

/// What the server decided for a stream before its first request.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamSettings {
    pub(crate) info: PeerInfo,
    pub(crate) trust: NodeTrust,
    pub(crate) limits: Arc<Limits>,
    pub(crate) debounce: Duration,
}

#[derive(Debug, Default)]
struct Inside {
    peer: Option<Peer>,
    /// What this stream is counted under.
    identity: Option<String>,
    /// In the order of [`rank`].
    sessions: Vec<(Arc<TypeStore>, Session)>,
    end: Option<Result<(), Status>>,
}

/// State of one stream, shared by its reader, its writer, the index and the admin page.
#[derive(Debug)]
pub(crate) struct StreamState {
    id: u64,
    delta: bool,
    started: Instant,
    settings: StreamSettings,
    pub(crate) waker: AtomicWaker,
    /// When to look at the changes that were gathered, in microseconds after the start; 0 if there are none.
    due: AtomicU64,
    inside: Mutex<Inside>,
}

impl StreamState {
    pub(crate) fn new(id: u64, delta: bool, started: Instant, settings: StreamSettings) -> Self {
        Self {
            id,
            delta,
            started,
            settings,
            waker: AtomicWaker::new(),
            due: AtomicU64::new(0),
            inside: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Lets the writer look whether there is something to send.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Something changed that may concern this stream. Never waits.
    pub(crate) fn changed(&self) {
        let debounce = self.settings.debounce;
        if !debounce.is_zero() {
            let due = self.started.elapsed() + debounce;
            let due = u64::try_from(due.as_micros()).unwrap_or(u64::MAX).max(1);
            // The first change of a group sets the time.
            let _ = self
                .due
                .compare_exchange(0, due, Ordering::AcqRel, Ordering::Acquire);
        }
        self.wake();
    }

    /// When the changes that were gathered are due, if there are any.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.due.load(Ordering::Acquire) {
            0 => None,
            micros => Some(self.started + Duration::from_micros(micros)),
        }
    }

    /// Before the look at them, so that a change in between sets a new time.
    pub(crate) fn no_longer_due(&self) {
        self.due.store(0, Ordering::Release);
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// What the client holds of everything it asked for; `None` for a client other than `only`, or still without a name.
    pub(crate) fn report(
        &self,
        only: Option<&str>,
        resource: impl Fn(ResourceState) -> ResourceInfo,
    ) -> Option<NodeInfo> {
        let inside = self.inside.lock();
        let peer = inside.peer.as_ref()?;
        if only.is_some_and(|only| only != peer.id) {
            return None;
        }
        let subscription = |(store, session): &(Arc<TypeStore>, Session)| Subscription {
            type_url: store.url.to_string(),
            stream: self.id,
            delta: self.delta,
            wildcard: session.is_wildcard(),
            last_refusal: session.last_nack.clone(),
            resources: session
                .resources(&store.table.read())
                .into_iter()
                .map(&resource)
                .collect(),
        };
        Some(NodeInfo {
            id: peer.id.clone(),
            identity: peer.spiffe.as_ref().map(ToString::to_string),
            audiences: peer.view.0.iter().map(ToString::to_string).collect(),
            subscriptions: inside.sessions.iter().map(subscription).collect(),
        })
    }

    pub(crate) fn describe(&self, now: Instant) -> Vec<StreamInfo> {
        let inside = self.inside.lock();
        let node = inside
            .peer
            .as_ref()
            .map(|peer| peer.id.clone())
            .unwrap_or_default();
        let info = |(store, session): &(Arc<TypeStore>, Session)| {
            let mut subscribed: Vec<String> =
                session.subscribed().map(ToString::to_string).collect();
            subscribed.sort_unstable();
            StreamInfo {
                id: self.id,
                node: node.clone(),
                type_url: store.url.to_string(),
                delta: self.delta,
                wildcard: session.is_wildcard(),
                subscribed,
                age: now.saturating_duration_since(self.started),
                last_sent: session.last_sent.clone(),
                last_acked: session.last_acked.clone(),
                last_nack: session.last_nack.clone(),
                outstanding: session.outstanding_for(now),
            }
        };
        inside.sessions.iter().map(info).collect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.inside.lock().end.is_some()
    }

    pub(crate) fn end(&self, result: Result<(), Status>) {
        self.inside.lock().end.get_or_insert(result);
        self.wake();
    }

    /// Takes one request. An answer is O(names in the answered message), a subscription O(names in it).
    pub(crate) fn accept<P: Protocol>(
        self: &Arc<Self>,
        cache: &ResourceCache,
        only: Option<&str>,
        mut request: P::Request,
    ) -> Result<(), Status> {
        let now = Instant::now();
        let url = requested_type::<P>(only, &mut request)?;
        let node = P::node(&mut request);
        let mut inside = self.inside.lock();
        if inside.end.is_some() {
            return Ok(());
        }
        self.identify(cache, &mut inside, node)?;
        let Some(store) = cache.store(&url) else {
            // Silence, not an error: an error would end the stream for all the other types on it.
            Stats::add(&cache.stats().unknown_types, 1);
            tracing::debug!(
                type_url = url,
                stream = self.id,
                "request for a type that is not served"
            );
            return Ok(());
        };
        let Inside { peer, sessions, .. } = &mut *inside;
        let Some(peer) = peer else { return Ok(()) };
        let place = self.session_of::<P>(sessions, &store, peer, now);
        let mut asks = false;
        if let Some((_, session)) = sessions.get_mut(place) {
            for action in P::handle(session, request, now) {
                asks |= matches!(action, Action::Watch(_));
                self.perform(cache, &store, peer, action);
            }
        }
        let result = if asks {
            self.check_names(cache, sessions)
        } else {
            Ok(())
        };
        drop(inside);
        self.wake();
        result
    }

    /// The first request says who the client is; later ones must not say otherwise.
    fn identify(
        &self,
        cache: &ResourceCache,
        inside: &mut Inside,
        node: Option<Node>,
    ) -> Result<(), Status> {
        if let Some(known) = &inside.peer {
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
        let most = self.limits().streams_per_identity;
        if !cache.admit(&identity, most) {
            Stats::add(&cache.stats().limited_streams, 1);
            return Err(Status::resource_exhausted(format!(
                "'{identity}' has {most} streams open, and more are not allowed; close some, or raise the limit of streams per identity"
            )));
        }
        inside.identity = Some(identity);
        inside.peer = Some(peer);
        Ok(())
    }

    fn session_of<P: Protocol>(
        &self,
        sessions: &mut Vec<(Arc<TypeStore>, Session)>,
        store: &Arc<TypeStore>,
        peer: &Peer,
        now: Instant,
    ) -> usize {
        let known = |(other, _): &(Arc<TypeStore>, Session)| Arc::ptr_eq(other, store);
        if let Some(place) = sessions.iter().position(known) {
            return place;
        }
        let mode = match (P::DELTA, is_full_state(&store.url)) {
            (true, _) => Mode::Delta,
            (false, true) => Mode::FullSotw,
            (false, false) => Mode::Sotw,
        };
        let session = Session::new(
            Arc::clone(&peer.key),
            self.id,
            mode,
            Arc::clone(&peer.view),
            now,
        );
        Stats::add(store.counters.subscriptions(self.delta), 1);
        let rank_of = rank(&store.url);
        let place = sessions.partition_point(|(other, _)| rank(&other.url) <= rank_of);
        // A session is large and most streams have few types, so there is no room for more than are.
        sessions.reserve_exact(1);
        sessions.insert(place, (Arc::clone(store), session));
        place
    }

    fn check_names(
        &self,
        cache: &ResourceCache,
        sessions: &[(Arc<TypeStore>, Session)],
    ) -> Result<(), Status> {
        let most = self.limits().names_per_stream;
        let names: usize = sessions.iter().map(|(_, s)| s.subscriptions()).sum();
        if names <= most {
            return Ok(());
        }
        Stats::add(&cache.stats().limited_names, 1);
        Err(Status::resource_exhausted(format!(
            "the stream subscribes to {names} names, and {most} are allowed; ask for fewer, use the wildcard, or raise the limit of names per stream"
        )))
    }

    fn perform(
        self: &Arc<Self>,
        cache: &ResourceCache,
        store: &TypeStore,
        peer: &Peer,
        action: Action,
    ) {
        let stats = cache.stats();
        match action {
            Action::Watch(name) => store.index.lock().watch(name, self),
            Action::Unwatch(name) => store.index.lock().unwatch(&name, self.id),
            Action::WatchAll(on) => store.index.lock().watch_all(on, self, &peer.view),
            Action::Ack => {
                Stats::add(&stats.acks, 1);
                Stats::add(&store.counters.acks, 1);
            }
            Action::Nack => {
                Stats::add(&stats.nacks, 1);
                Stats::add(&store.counters.nacks, 1);
            }
            Action::Stale => Stats::add(&stats.stale_nonces, 1),
            Action::Unpin(name) => store.table.write().unpin(&name, &peer.key),
            Action::Accepted(accepted) => {
                let times = || accepted.iter().map(|(_, latency)| *latency);
                stats.converged(times());
                store.counters.convergence.observe_all(times());
                cache.report(accepted.iter().map(|(entry, latency)| Delivery::Acked {
                    node: peer.id.clone(),
                    type_url: store.url.to_string(),
                    name: entry.name().to_owned(),
                    version: entry.version().to_owned(),
                    latency: *latency,
                }));
            }
            Action::Rejected {
                name,
                origin,
                pin,
                message,
            } => {
                let version = pin.bad.clone();
                if store.table.write().pin(&name, &peer.key, pin) {
                    report_nack(
                        cache,
                        store,
                        peer,
                        Some(name.to_string()),
                        version,
                        message,
                        origin,
                    );
                }
            }
            Action::RejectedEmpty {
                name,
                version,
                message,
            } => {
                report_nack(cache, store, peer, name, version, message, String::new());
            }
        }
    }

    /// The next message, the end, or nothing for now. O(types of the stream) if there is nothing to do.
    pub(crate) fn poll(&self, cache: &ResourceCache) -> Poll<Option<Result<Bytes, Status>>> {
        let now = Instant::now();
        let mut inside = self.inside.lock();
        if let Some(end) = &mut inside.end {
            return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
        }
        let mut unanswered = false;
        for (store, session) in &mut inside.sessions {
            // A proxy answers for clusters when it can use them; before that, a route to them would lose calls.
            if unanswered && refers_to_clusters(&store.url) {
                continue;
            }
            let push = session.next_push(&store.table.read(), now);
            unanswered |= is_of_clusters(&store.url) && session.outstanding_for(now).is_some();
            Stats::add(&store.counters.denied, session.take_denied());
            if let Some(push) = push {
                count(cache.stats(), store, &push);
                return Poll::Ready(Some(response(self.delta, &store.url, &push)));
            }
        }
        Poll::Pending
    }

    pub(crate) fn leave(&self, cache: &ResourceCache) {
        let mut inside = self.inside.lock();
        // No request may enter the index again after this point.
        inside.end.get_or_insert(Ok(()));
        let Inside {
            peer,
            identity,
            sessions,
            ..
        } = &mut *inside;
        if let Some(peer) = peer {
            for (store, session) in std::mem::take(sessions) {
                let mut index = store.index.lock();
                for name in session.subscribed() {
                    index.unwatch(name, self.id);
                }
                index.forget_wildcard(self.id, &peer.view);
                let subscriptions = store.counters.subscriptions(self.delta);
                subscriptions.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(identity) = identity.take() {
            cache.release(&identity);
        }
        drop(inside);
        cache.close(self);
    }
}

fn count(stats: &Stats, store: &TypeStore, push: &Push) {
    let bytes = push.items.iter().map(|item| item.entry.body().len());
    let bytes = bytes.sum();
    let counters = &store.counters;
    Stats::add(&stats.pushes, 1);
    Stats::add(&stats.resources, push.items.len());
    Stats::add(&stats.bytes, bytes);
    Stats::add(&counters.pushes, 1);
    Stats::add(&counters.resources, push.items.len());
    Stats::add(&counters.removed, push.removed.len());
    Stats::add(&counters.bytes, bytes);
    if let Some(waited) = push.waited {
        counters.push.observe(waited);
    }
}

fn report_nack(
    cache: &ResourceCache,
    store: &TypeStore,
    peer: &Peer,
    name: Option<String>,
    version: String,
    message: String,
    origin: String,
) {
    tracing::warn!(
        node = peer.id,
        type_url = &*store.url,
        name = name.as_deref().unwrap_or("-"),
        version,
        origin,
        message,
        "a proxy refused a resource and keeps what it had"
    );
    cache.report(std::iter::once(Delivery::Nacked {
        node: peer.id.clone(),
        type_url: store.url.to_string(),
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
