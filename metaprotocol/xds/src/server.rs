//! The tonic shell.

use std::pin::Pin;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::accept::incoming;
use crate::cache::ResourceCache;
use crate::error::ServeError;
use crate::options::ServerOptions;
use crate::services::{Service, routes};
use crate::tls::TlsSource;

/// Serves the cache on a bound listener until `shutdown`; then streams end with OK, so that clients go elsewhere.
///
/// A client that does not read holds up the end for a few seconds at most. The listener is plain; the limits are those
/// of `Limits::default`.
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
        Some(files) => {
            Some(TlsSource::start(files.clone(), cache.shared_stats(), done.clone()).await?)
        }
        None => None,
    };
    let connections = incoming(
        listener,
        tls,
        cache.shared_stats(),
        options.limits.connections,
        done,
    );
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
    let service = Service::new(cache, options, shutdown.clone());
    let routes = routes(&service);
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
