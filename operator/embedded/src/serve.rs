//! The API over HTTP/1, for kubectl and other programs.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::reply::{Body, Reply};
use crate::server::Server;

/// The limit of the real API server.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// Accepts connections until `shutdown`; open watches end then.
pub(crate) async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        // Ended connections are dropped here, so that the set holds only the open ones.
        while connections.try_join_next().is_some() {}
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The peer gave up, or descriptors ran out: neither ends the server.
                Err(error) => {
                    tracing::debug!(%error, "connection not accepted");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let (server, stop) = (Arc::clone(&server), shutdown.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&server), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended");
                    }
                }
            }
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let reply = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => {
            let bytes: Bytes = collected.to_bytes();
            server.handle(Request::from_parts(parts, bytes)).await
        }
        Err(error) => Reply::error(&ApiError::BadRequest(format!(
            "the body cannot be read: {error}"
        ))),
    };
    Ok(reply.into_http())
}
