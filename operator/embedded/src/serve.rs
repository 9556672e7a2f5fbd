//! The API over HTTP/1, for kubectl and other programs.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
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
/// Connections at a time: kubectl and tests. One more waits until another ends. The ports of the operator need files too.
const CONNECTIONS: usize = 128;
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        if connections.len() >= CONNECTIONS {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = connections.join_next() => continue,
            }
        }
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The peer gave up, or descriptors ran out: neither ends the server.
                Err(error) => {
                    tracing::debug!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (server, stop) = (Arc::clone(&server), shutdown.clone());
        let local = stream.local_addr().ok().map(|local| local.ip());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&server), local, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
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
    local: Option<IpAddr>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if !from_here(request.headers(), local) {
        let why = "requests of web pages, and for other names than this machine's, are refused";
        return Ok(Reply::error(&ApiError::Unserved(why)).into_http());
    }
    let (parts, body) = request.into_parts();
    let reply = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => {
            let bytes: Bytes = collected.to_bytes();
            server.handle(Request::from_parts(parts, bytes)).await
        }
        Err(error) if error.is::<LengthLimitError>() => {
            Reply::error(&ApiError::TooLarge("limit is 3145728"))
        }
        Err(error) => Reply::error(&ApiError::BadRequest(format!(
            "the body cannot be read: {error}"
        ))),
    };
    Ok(reply.into_http())
}

/// Whether no web page can have sent a request: the API has no authentication, and any page may call loopback. So a request
/// says nothing of a page, and is for this machine by name: a page's own name may be made to lead here.
fn from_here(headers: &HeaderMap, local: Option<IpAddr>) -> bool {
    let of_page = headers.contains_key(header::ORIGIN)
        || headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "none");
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = host.to_str().ok().and_then(|h| h.parse::<Authority>().ok());
    let ours = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|a| a.is_loopback() || Some(a) == local)
    });
    !of_page && ours
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn fault_t8_no_web_page_reaches_the_api() {
        let local = "10.0.0.7".parse().ok();
        for (headers, good) in [
            (&[("host", "127.0.0.1:8001")][..], true),
            (&[("host", "localhost:8001")], true),
            (&[("host", "[::1]:8001")], true),
            (&[("host", "10.0.0.7:8001")], true),
            (&[("host", "10.0.0.8:8001")], false),
            (&[("host", "other.example:8001")], false),
            (&[("host", "localhost.other.example")], false),
            (&[], false),
            (&[("host", "localhost"), ("host", "other.example")], false),
            (
                &[("host", "localhost"), ("origin", "http://localhost")],
                false,
            ),
            (
                &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            (&[("host", "localhost"), ("sec-fetch-site", "none")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(from_here(&map, local), good, "{headers:?}");
        }
    }
}
