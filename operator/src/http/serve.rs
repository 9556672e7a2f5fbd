//! Connections of the HTTP port.

use std::time::Duration;

use axum::Router;
use futures::StreamExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trimtab_kit::listen::{Bounds, Connection, incoming};

/// Connections at a time: a few browsers, Prometheus, probes.
const CONNECTIONS: usize = 256;
/// Time for the head of a request, from its first byte or from the end of the one before.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// Time for answers under way when the process stops.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown`.
pub(super) async fn serve(listener: TcpListener, app: Router, shutdown: CancellationToken) {
    let bounds = Bounds::requests(CONNECTIONS);
    let mut open = JoinSet::new();
    let mut connections = std::pin::pin!(incoming(listener, "http", bounds, shutdown.clone()));
    while let Some(Ok(connection)) = connections.next().await {
        // Those that have ended are dropped here, so that the set holds only the open ones.
        while open.try_join_next().is_some() {}
        open.spawn(answer(connection, app.clone(), shutdown.clone()));
    }
    let all_ended = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all_ended).await;
}

/// Answers the requests of one connection, which find its ends among their extensions.
async fn answer(connection: Connection, app: Router, shutdown: CancellationToken) {
    let app = app.layer(axum::Extension(connection.ends()));
    let service = TowerToHyperService::new(app);
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
