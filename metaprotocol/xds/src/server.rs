//! The tonic shell.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Status, Streaming};

use crate::accept::{PeerInfo, incoming};
use crate::cache::ResourceCache;
use crate::error::ServeError;
use crate::options::{Limits, ServerOptions};
use crate::responses::{Responses, open};
use crate::services::routes;
use crate::session::{Action, Session};
use crate::stats::Stats;
use crate::stream::{Protocol, StreamSettings};
use crate::tls::TlsSource;

/// State of the world.
pub(crate) struct Sotw;

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    const DELTA: bool = false;

    fn type_url(request: &mut DiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_sotw(request, now)
    }
}

/// Changes only.
pub(crate) struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    const DELTA: bool = true;

    fn type_url(request: &mut DeltaDiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DeltaDiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_delta(request, now)
    }
}

/// What every stream is opened with.
#[derive(Clone)]
pub(crate) struct Service {
    cache: ResourceCache,
    options: Arc<ServerOptions>,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
}

impl Service {
    pub(crate) fn open<P: Protocol>(
        &self,
        only: Option<&'static str>,
        info: PeerInfo,
        requests: Streaming<P::Request>,
    ) -> Result<Responses<P>, Status> {
        let stats = self.cache.stats();
        if !self.cache.is_ready() {
            Stats::add(&stats.streams_refused, 1);
            return Err(Status::unavailable(
                "the first snapshot is not complete yet; try again",
            ));
        }
        let most = self.limits.streams;
        if usize::try_from(Stats::read(&stats.streams_active)).is_ok_and(|open| open >= most) {
            Stats::add(&stats.limited_streams, 1);
            return Err(Status::resource_exhausted(format!(
                "the xDS server has {most} streams open, and more are not allowed; try another replica, or raise the limit of streams"
            )));
        }
        let settings = StreamSettings {
            info,
            trust: self.options.trust_nodes,
            limits: Arc::clone(&self.limits),
            debounce: self.options.debounce,
        };
        Ok(open(
            &self.cache,
            only,
            requests,
            settings,
            self.options.max_connection_age,
            &self.shutdown,
        ))
    }
}

/// Serves the cache on a bound listener until `shutdown`; then streams end with OK, so that clients go elsewhere.
///
/// A client that does not read holds up the end for a few seconds at most. The listener is plain; the limits are those
/// of [`Limits::default`].
pub async fn serve(
    cache: ResourceCache,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    serve_with(cache, listener, ServerOptions::default(), shutdown).await
}

/// As [`serve`], with options. Fails at once if the certificates cannot be used.
pub async fn serve_with(
    cache: ResourceCache,
    listener: TcpListener,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let addr = listener.local_addr().map_err(ServeError::Listener)?;
    // Ends the tasks beside the server however the server ends.
    let done = shutdown.child_token();
    let _done = done.clone().drop_guard();
    let tls = match &options.tls {
        Some(files) => Some(TlsSource::start(files.clone(), cache.clone(), done.clone()).await?),
        None => None,
    };
    let connections = incoming(listener, tls, cache.clone(), done);
    let mut builder = Server::builder()
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout));
    if let Some(age) = options.max_connection_age {
        // Streams end by themselves soon after; the rest of the time is for clients that hold on.
        builder = builder
            .max_connection_age(age)
            .max_connection_age_grace(age * 2);
    }
    let grace = options.shutdown_grace;
    let limits = Arc::new(options.limits.clone());
    let service = Service {
        cache,
        options: Arc::new(options),
        shutdown: shutdown.clone(),
        limits,
    };
    let routes = routes(&service, service.limits.message_bytes);
    let server = builder
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let mut server: Pin<Box<_>> = Box::pin(server);
    tokio::select! {
        ended = &mut server => return ended.map_err(|source| ServeError::Transport { addr, source }),
        () = shutdown.cancelled() => {}
    }
    match tokio::time::timeout(grace, server).await {
        Ok(ended) => ended.map_err(|source| ServeError::Transport { addr, source }),
        Err(_) => Ok(()),
    }
}
