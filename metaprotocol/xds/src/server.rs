//! The tonic shell.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::accept::{Bounds, Port, Share, incoming};
use crate::cache::ResourceCache;
use crate::error::ServeError;
use crate::options::{Security, ServerOptions};
use crate::services::{Service, routes};
use crate::tls::Tls;

/// What log lines call the port.
const NAME: &str = "xds";
/// Pings that come more often than this do not shorten the time for which a connection may be idle.
const ASKED: Duration = Duration::from_secs(30);

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
    let (counts, stop) = (Arc::clone(&cache.stats().connections), done.clone());
    let tls = match &options.security {
        Security::Plain => None,
        Security::Certificates(files) => {
            Some(Tls::of_files(NAME, files.clone(), Arc::clone(&counts), stop).await?)
        }
        Security::Tokens(tokens) => {
            let certificate = tokens.certificate.clone();
            Some(Tls::of_certificate(
                NAME,
                certificate,
                Arc::clone(&counts),
                stop,
            )?)
        }
    };
    let asked = options.keepalive_interval + options.keepalive_timeout;
    let port = Port {
        name: NAME,
        bounds: Bounds::streams(options.limits.connections, Share::Xds, asked.max(ASKED)),
        tls,
        counts,
    };
    let connections = incoming(listener, port, done);
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
