//! Connections of the HTTP port.

use std::time::Duration;

use axum::Router;
use futures::StreamExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trimtab_kit::listen::{Bounds, Connection, Port, Share, incoming};

/// Connections at a time: a few browsers, Prometheus, probes.
const CONNECTIONS: usize = 256;
/// Time for the head of a request, from its first byte or from the end of the one before.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// Time for answers under way when the process stops.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown`.
pub(super) async fn serve(
    listener: TcpListener,
    pages: watch::Receiver<Router>,
    shutdown: CancellationToken,
) {
    let bounds = Bounds::requests(CONNECTIONS, Share::Http);
    let port = Port::new("http", bounds, None);
    let mut open = JoinSet::new();
    let mut connections = incoming(listener, port, shutdown.clone());
    while let Some(Ok(connection)) = connections.next().await {
        // Those that have ended are dropped here, so that the set holds only the open ones.
        while open.try_join_next().is_some() {}
        open.spawn(answer(connection, pages.clone(), shutdown.clone()));
    }
    let all_ended = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all_ended).await;
}

/// Answers the requests of one connection, which find its ends among their extensions.
async fn answer(
    connection: Connection,
    pages: watch::Receiver<Router>,
    shutdown: CancellationToken,
) {
    let ends = connection.ends().clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ends.clone());
        // The pages of all modules may have come since the connection.
        let pages = pages.borrow().clone();
        TowerToHyperService::new(pages).call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
