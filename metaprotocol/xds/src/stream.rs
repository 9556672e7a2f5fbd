//! One stream: a reader task that feeds requests to the sessions, and a response stream that asks them what to send.
//!
//! The transport polls [`Responses`] only when the client can take more, and a message is made at that moment, so there
//! is no queue to grow or to go stale, and reading goes on while writing is blocked.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use crate::cache::{Delivery, SnapshotCache, StreamInfo, TypeStore};
use crate::session::{Action, Push, Session};
use crate::stats::Stats;

/// The differences between state of the world and delta that the shell has to know.
pub(crate) trait Protocol: Send + Sync + Unpin + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const DELTA: bool;

    fn type_url(request: &mut Self::Request) -> &mut String;
    fn node(request: &mut Self::Request) -> Option<Node>;
    fn handle(session: &mut Session, request: Self::Request, now: Instant) -> Vec<Action>;
    fn render(type_url: &str, push: Push) -> Self::Response;
}

/// Who is at the other end.
#[derive(Debug, Default)]
struct Peer {
    id: String,
    /// Refusals are remembered under this key: another build of the proxy may accept what this one refused.
    key: Arc<str>,
}

impl Peer {
    fn new(node: &Node) -> Self {
        if node.id.is_empty() {
            return Self::default();
        }
        let build = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|version| {
                    format!(
                        "{}.{}.{}",
                        version.major_number, version.minor_number, version.patch
                    )
                })
                .unwrap_or_default(),
            None => String::new(),
        };
        Self {
            id: node.id.clone(),
            key: format!("{}|{}|{build}", node.id, node.user_agent_name).into(),
        }
    }
}

#[derive(Debug, Default)]
struct Inside {
    peer: Option<Peer>,
    sessions: Vec<(Arc<TypeStore>, Session)>,
    end: Option<Result<(), Status>>,
}

/// State of one stream, shared by its reader, its writer, the index and the admin page.
#[derive(Debug)]
pub(crate) struct StreamState {
    id: u64,
    delta: bool,
    started: Instant,
    waker: AtomicWaker,
    inside: Mutex<Inside>,
}

impl StreamState {
    pub(crate) fn new(id: u64, delta: bool, started: Instant) -> Self {
        Self {
            id,
            delta,
            started,
            waker: AtomicWaker::new(),
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

    fn end(&self, result: Result<(), Status>) {
        self.inside.lock().end.get_or_insert(result);
        self.wake();
    }

    /// Takes one request.
    fn accept<P: Protocol>(
        self: &Arc<Self>,
        cache: &SnapshotCache,
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
        let Inside { peer, sessions, .. } = &mut *inside;
        match (&*peer, node) {
            (None, node) => *peer = Some(Peer::new(&node.unwrap_or_default())),
            (Some(known), Some(node)) if !node.id.is_empty() && node.id != known.id => {
                return Err(Status::invalid_argument(format!(
                    "node.id changed from '{}' to '{}' on one stream; open a new stream for another node",
                    known.id, node.id
                )));
            }
            _ => {}
        }
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
        let Some(peer) = peer else { return Ok(()) };
        let place = sessions
            .iter()
            .position(|(known, _)| Arc::ptr_eq(known, &store))
            .unwrap_or_else(|| {
                let session = Session::new(Arc::clone(&peer.key), self.id, P::DELTA, now);
                sessions.push((Arc::clone(&store), session));
                sessions.len() - 1
            });
        if let Some((_, session)) = sessions.get_mut(place) {
            let actions = P::handle(session, request, now);
            for action in actions {
                self.perform(cache, &store, peer, action);
            }
        }
        drop(inside);
        self.wake();
        Ok(())
    }

    fn perform(
        self: &Arc<Self>,
        cache: &SnapshotCache,
        store: &TypeStore,
        peer: &Peer,
        action: Action,
    ) {
        let stats = cache.stats();
        match action {
            Action::Watch(name) => store.index.lock().watch(name, self),
            Action::Unwatch(name) => store.index.lock().unwatch(&name, self.id),
            Action::WatchAll(on) => store.index.lock().watch_all(on, self),
            Action::Ack => Stats::add(&stats.acks, 1),
            Action::Nack => Stats::add(&stats.nacks, 1),
            Action::Stale => Stats::add(&stats.stale_nonces, 1),
            Action::Unpin(name) => store.table.write().unpin(&name, &peer.key),
            Action::Accepted {
                name,
                version,
                latency,
            } => {
                stats.converged(latency);
                cache.report(|| Delivery::Acked {
                    node: peer.id.clone(),
                    type_url: store.url.to_string(),
                    name: name.to_string(),
                    version,
                    latency,
                });
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

    /// The next message, the end, or nothing for now.
    fn poll<P: Protocol>(
        &self,
        cache: &SnapshotCache,
    ) -> Poll<Option<Result<P::Response, Status>>> {
        let now = Instant::now();
        let mut inside = self.inside.lock();
        if let Some(end) = &mut inside.end {
            return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
        }
        for (store, session) in &mut inside.sessions {
            let push = session.next_push(&store.table.read(), now);
            if let Some(push) = push {
                let stats = cache.stats();
                Stats::add(&stats.pushes, 1);
                Stats::add(&stats.resources, push.items.len());
                Stats::add(
                    &stats.bytes,
                    push.items
                        .iter()
                        .map(|item| item.entry.resource.body.len())
                        .sum(),
                );
                return Poll::Ready(Some(Ok(P::render(&store.url, push))));
            }
        }
        Poll::Pending
    }

    fn leave(&self, cache: &SnapshotCache) {
        let mut inside = self.inside.lock();
        // No request may enter the index again after this point.
        inside.end.get_or_insert(Ok(()));
        for (store, session) in std::mem::take(&mut inside.sessions) {
            let mut index = store.index.lock();
            for name in session.subscribed() {
                index.unwatch(name, self.id);
            }
            index.forget_wildcard(self.id);
        }
        drop(inside);
        cache.close(self);
    }
}

fn report_nack(
    cache: &SnapshotCache,
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
    cache.report(|| Delivery::Nacked {
        node: peer.id.clone(),
        type_url: store.url.to_string(),
        name,
        version,
        message,
        origin,
    });
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

/// The response half of a stream. Dropping it ends the reader and forgets the stream.
pub(crate) struct Responses<P> {
    cache: SnapshotCache,
    stream: Arc<StreamState>,
    _reader: DropGuard,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Stream for Responses<P> {
    type Item = Result<P::Response, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Registered before the look, so that a change in between wakes again.
        self.stream.waker.register(context.waker());
        self.stream.poll::<P>(&self.cache)
    }
}

impl<P> Drop for Responses<P> {
    fn drop(&mut self) {
        self.stream.leave(&self.cache);
    }
}

/// Starts a stream; `only` is the type of a service that serves just one.
pub(crate) fn open<P: Protocol>(
    cache: &SnapshotCache,
    only: Option<&'static str>,
    mut requests: Streaming<P::Request>,
    shutdown: &CancellationToken,
) -> Responses<P> {
    let stream = cache.open(P::DELTA);
    let done = shutdown.child_token();
    let responses = Responses {
        cache: cache.clone(),
        stream: Arc::clone(&stream),
        _reader: done.clone().drop_guard(),
        protocol: PhantomData,
    };
    let cache = cache.clone();
    tokio::spawn(async move {
        let end = loop {
            let message = tokio::select! {
                biased;
                () = done.cancelled() => break Ok(()),
                message = requests.message() => message,
            };
            match message {
                Ok(Some(request)) => {
                    if let Err(status) = stream.accept::<P>(&cache, only, request) {
                        break Err(status);
                    }
                }
                Ok(None) => break Ok(()),
                // The client is gone or does not speak the protocol; the status says which.
                Err(status) => break Err(status),
            }
        };
        stream.end(end);
    });
    responses
}
