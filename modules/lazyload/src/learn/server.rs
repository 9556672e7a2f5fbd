//! The access log server: `envoy.service.accesslog.v3`.
//!
//! Every replica can receive. A stream is read message by message; each message is one batch for the store.

mod endpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogService;
use envoy_types::pb::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use trimtab_kit::clock::Clock;
use trimtab_kit::listen::{Bounds, Ends, Port, Share, Tls, incoming};

use endpoint::Endpoint;

use super::access_log::{Sender, learn};
use super::peer::Peer;
use super::{Rules, SkipCounters, Skipped};
use crate::edges::EdgeStore;
use crate::object::Directory;

/// A stream that is silent for so long while the server stops has nothing more to say.
const DRAINED: Duration = Duration::from_millis(100);
/// Calls that one connection may have under way: one for each log of a worker of Envoy.
const CALLS: u32 = 16;

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What is not a dependency although it is called.
    pub rules: Rules,
    /// Largest message in bytes. Envoy sends what it has gathered at 16 KiB, unless configured.
    pub message_bytes: usize,
    /// Certificates of the mesh; `None`: the port is plain.
    pub tls: Option<Arc<Tls>>,
    /// Connections at the same time; more are refused.
    pub connections: usize,
    /// Streams at the same time; more are refused, and Envoy tries again.
    pub streams: u64,
    /// Pause after which a silent connection is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Time for its answer.
    pub keepalive_timeout: Duration,
    /// Time for streams to end when the server stops.
    pub shutdown_grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            message_bytes: 256 << 10,
            tls: None,
            connections: 10_000,
            streams: 10_000,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(2),
        }
    }
}

/// What the server did since the start.
#[derive(Debug, Default)]
pub struct ServerStats {
    entries: AtomicU64,
    observed_calls: AtomicU64,
    new_edges: AtomicU64,
    streams: AtomicU64,
    refused_streams: AtomicU64,
    broken_streams: AtomicU64,
    skipped: SkipCounters,
}

impl ServerStats {
    /// Entries read.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Calls that they told.
    pub fn observed_calls(&self) -> u64 {
        self.observed_calls.load(Ordering::Relaxed)
    }

    /// Edges that were new.
    pub fn new_edges(&self) -> u64 {
        self.new_edges.load(Ordering::Relaxed)
    }

    /// Streams that are open now.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Streams that were one too many.
    pub fn refused_streams(&self) -> u64 {
        self.refused_streams.load(Ordering::Relaxed)
    }

    /// Streams that ended by a message that is no protobuf or too large, or by a lost connection.
    pub fn broken_streams(&self) -> u64 {
        self.broken_streams.load(Ordering::Relaxed)
    }

    /// Entries that told nothing, by reason.
    pub fn skipped(&self) -> Skipped {
        self.skipped.get()
    }
}

/// What the server needs of its host.
#[derive(Clone)]
pub struct Backend {
    /// Who is who in the mesh.
    pub directory: Arc<dyn Directory>,
    /// Where calls are kept.
    pub store: Arc<EdgeStore>,
    /// Time of observed calls.
    pub clock: Arc<dyn Clock>,
    /// What the server counts.
    pub stats: Arc<ServerStats>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

/// The server cannot go on.
#[derive(Debug, thiserror::Error)]
#[error(
    "lazyload.learn.accessLog: the server on {address} failed: {source}; check the network of this host"
)]
pub struct ServeError {
    address: String,
    source: tonic::transport::Error,
}

/// Serves until `shutdown`, and then for as long as open streams have something to say, at most
/// [`ServerOptions::shutdown_grace`].
pub async fn serve(
    listener: TcpListener,
    backend: Backend,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener
        .local_addr()
        .map_or_else(|e| e.to_string(), |a| a.to_string());
    let mut builder = Server::builder()
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .max_concurrent_streams(CALLS);
    let asked = options.keepalive_interval + options.keepalive_timeout;
    let bounds = Bounds::streams(options.connections, Share::AccessLogs, asked);
    let port = Port::new("lazyload.learn.accessLog", bounds, options.tls.clone());
    let connections = incoming(listener, port, shutdown.clone());
    let (grace, bytes) = (options.shutdown_grace, options.message_bytes);
    let logs = Logs {
        backend,
        options: Arc::new(options),
        shutdown: shutdown.clone(),
    };
    let service = Endpoint::new(logs, bytes);
    let server = builder
        .add_service(service)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let mut server = Box::pin(server);
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = shutdown.cancelled() => tokio::time::timeout(grace, server).await.ok(),
    };
    match ended {
        Some(Err(source)) => Err(ServeError { address, source }),
        Some(Ok(())) | None => Ok(()),
    }
}

struct Logs {
    backend: Backend,
    options: Arc<ServerOptions>,
    shutdown: CancellationToken,
}

/// Counts a stream while it lives.
struct Open(Arc<ServerStats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Logs {
    fn open(&self) -> Result<Open, Status> {
        let stats = &self.backend.stats;
        let open = Open(stats.clone());
        if stats.streams.fetch_add(1, Ordering::Relaxed) < self.options.streams {
            return Ok(open);
        }
        stats.refused_streams.fetch_add(1, Ordering::Relaxed);
        Err(Status::resource_exhausted(format!(
            "there are {} access log streams already",
            self.options.streams
        )))
    }

    fn take(&self, message: &StreamAccessLogsMessage, sender: &Sender, peer: &Peer) {
        let Backend {
            directory,
            store,
            clock,
            stats,
        } = &self.backend;
        let learned = learn(message, sender, peer, &**directory, &self.options.rules);
        let tally = store.see_all(&learned.observed_calls, clock.now());
        let mut skipped = learned.skipped;
        skipped.add(super::Skip::Limit, tally.refused);
        stats.entries.fetch_add(learned.entries, Ordering::Relaxed);
        stats
            .observed_calls
            .fetch_add(learned.observed_calls.len() as u64, Ordering::Relaxed);
        stats.new_edges.fetch_add(tally.new, Ordering::Relaxed);
        stats.skipped.add(&skipped);
    }
}

#[tonic::async_trait]
impl AccessLogService for Logs {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let _open = self.open()?;
        let ends = request.extensions().get::<Ends>();
        let ends = ends.ok_or_else(|| Status::unauthenticated("the connection has no peer"))?;
        let peer = Peer::of(ends).ok_or_else(|| {
            Status::permission_denied("the client certificate names no workload of the mesh")
        })?;
        let mut messages = request.into_inner();
        let mut sender = None;
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = self.shutdown.cancelled() => {
                    let rest = tokio::time::timeout(DRAINED, messages.message()).await;
                    rest.unwrap_or(Ok(None))
                }
            };
            match message {
                Ok(Some(message)) => {
                    // Only the first message of a stream says who sends.
                    let sender =
                        sender.get_or_insert_with(|| Sender::new(message.identifier.as_ref()));
                    self.take(&message, sender, &peer);
                }
                Ok(None) => return Ok(Response::new(StreamAccessLogsResponse {})),
                Err(status) => {
                    let broken = &self.backend.stats.broken_streams;
                    broken.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%status, "an access log stream broke off");
                    return Err(status);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
