//! The smallest HTTP/1.1 client and server around hyper: one connection whose fate can be observed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::LabError;

/// How long a port may be in use that was found free.
const IN_USE: Duration = Duration::from_secs(2);
/// Longest wait for one answer. Nothing on the loopback interface takes that long unless it hangs.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// A request that can be sent many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Header lines; `host` is the address of the peer unless given here.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Request {
    /// A `GET` without headers.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// The same request with another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The same request with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn build(&self, address: SocketAddr) -> Result<hyper::Request<Full<Bytes>>, LabError> {
        let mut builder = hyper::Request::builder()
            .method(self.method.as_str())
            .uri(self.path.as_str());
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            builder = builder.header("host", address.to_string());
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder
            .body(Full::new(Bytes::from(self.body.clone())))
            .map_err(|error| self.error(address, &error))
    }

    fn error(&self, address: SocketAddr, reason: &dyn std::fmt::Display) -> LabError {
        LabError::Http {
            address,
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers; the last of several lines with one name.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub body: String,
}

/// One connection that is kept open, and never replaced behind the caller's back.
#[derive(Debug)]
pub struct KeepAlive {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl KeepAlive {
    /// Opens the connection.
    pub async fn connect(address: SocketAddr) -> Result<Self, LabError> {
        let failed = |reason: String| LabError::Http {
            address,
            path: "/".to_owned(),
            reason,
        };
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Small requests one after the other: waiting for more data would only add delay.
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // The task ends with the connection; its error is seen by the sender.
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&mut self, request: &Request) -> Result<Response, LabError> {
        let message = request.build(self.address)?;
        let exchange = async {
            self.sender.ready().await?;
            let (parts, body) = self.sender.send_request(message).await?.into_parts();
            Ok::<_, hyper::Error>((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) = tokio::time::timeout(ANSWER_BOUND, exchange)
            .await
            .map_err(|_| {
                request.error(self.address, &format!("no answer within {ANSWER_BOUND:?}"))
            })?
            .map_err(|error| request.error(self.address, &error))?;
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        };
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers.iter().map(header).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Whether the peer has kept the connection open. A close that is still under way is waited for a moment, since
    /// it is seen only when the connection is polled.
    pub async fn survived(&mut self) -> bool {
        // A proxy that drains answers with `connection: close` and shuts down at once; one timer tick is enough for
        // the loopback interface, and a surviving connection costs only that tick.
        tokio::time::timeout(Duration::from_millis(50), async {
            while !self.sender.is_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .is_err()
    }

    /// Whether the connection is known to be closed.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Sends one request over a connection of its own.
pub async fn send(address: SocketAddr, request: &Request) -> Result<Response, LabError> {
    KeepAlive::connect(address).await?.send(request).await
}

/// The body of a `GET` that must answer 200.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, LabError> {
    let request = Request::get(path);
    let response = send(address, &request).await?;
    if response.status == 200 {
        Ok(response.body)
    } else {
        Err(request.error(
            address,
            &format!("answered {}: {}", response.status, response.body.trim()),
        ))
    }
}

/// A server on a loopback port; dropping it closes its connections and frees the port.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
}

impl Server {
    /// Serves `handle` until dropped.
    pub(crate) async fn start<H, Fut>(address: SocketAddr, handle: H) -> Result<Self, LabError>
    where
        H: Fn(hyper::Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = hyper::Response<Full<Bytes>>> + Send + 'static,
    {
        let failed = |error: std::io::Error| LabError::Http {
            address,
            path: "/".to_owned(),
            reason: error.to_string(),
        };
        let listener = bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(accept(listener, handle)),
        );
        Ok(Self { address, stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept<H, Fut>(listener: TcpListener, handle: H)
where
    H: Fn(hyper::Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = hyper::Response<Full<Bytes>>> + Send + 'static,
{
    // Owned here, so that the connections end with the server as those of a killed pod do.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let handle = handle.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = handle(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    // An error here is a client that went away.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Listens. A process that is being started has the sockets of this one until it runs its own program, also that with
/// which the port was found free: then the port is in use for a moment longer.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && begin.elapsed() < IN_USE =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bound => return bound,
        }
    }
}
