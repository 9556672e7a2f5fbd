//! Connections as they reach a proxy after `iptables`: the bytes begin with a PROXY protocol header that names the
//! original destination.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_lab::http::Request;

use crate::{ClusterError, Result};

/// Nothing on this machine takes that long unless it hangs.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// Opens a connection to the listener `through` of a proxy as if the client had called `destination`.
pub async fn original_destination(
    source: Ipv4Addr,
    through: SocketAddr,
    destination: SocketAddrV4,
) -> Result<TcpStream> {
    let other = |error: std::io::Error| {
        ClusterError::Other(format!("{through} for {destination}: {error}"))
    };
    let socket = TcpSocket::new_v4().map_err(other)?;
    socket.bind(SocketAddr::from((source, 0))).map_err(other)?;
    let mut stream = socket.connect(through).await.map_err(other)?;
    stream.set_nodelay(true).map_err(other)?;
    let port = stream.local_addr().map_err(other)?.port();
    let header = format!(
        "PROXY TCP4 {source} {} {port} {}\r\n",
        destination.ip(),
        destination.port()
    );
    stream.write_all(header.as_bytes()).await.map_err(other)?;
    Ok(stream)
}

/// One HTTP/1.1 connection that is kept open.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Speaks HTTP over a stream.
    pub async fn http(stream: TcpStream) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClusterError::Other(error.to_string()))?;
        // It ends with the connection; its error is seen by the sender.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a request; status and body of the answer.
    pub async fn send(&mut self, host: &str, request: &Request) -> Result<(u16, String)> {
        let other = |error: &dyn std::fmt::Display| {
            ClusterError::Other(format!("{host}{}: {error}", request.path))
        };
        let mut message = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(request.path.as_str())
            .header("host", host);
        for (name, value) in &request.headers {
            message = message.header(name, value);
        }
        let message = message
            .body(Full::new(Bytes::from(request.body.clone())))
            .map_err(|error| other(&error))?;
        let exchange = async {
            self.sender.ready().await?;
            let (parts, body) = self.sender.send_request(message).await?.into_parts();
            Ok::<_, hyper::Error>((parts.status.as_u16(), body.collect().await?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(ANSWER_BOUND, exchange)
            .await
            .map_err(|_| other(&format!("no answer within {ANSWER_BOUND:?}")))?
            .map_err(|error| other(&error))?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Whether the peer has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Passes connections on, byte by byte, and counts them; dropping it ends them.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Forwarder {
    /// Listens on `at`; each connection is passed on to the one that `open` gives.
    ///
    /// A program that knows nothing of the PROXY protocol reaches a service through a sidecar by it, and a server that
    /// chooses its own port becomes the application of a pod.
    pub async fn start<F, Fut>(at: SocketAddr, open: F) -> Result<Self>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<TcpStream>> + Send + 'static,
    {
        let other = |error: std::io::Error| ClusterError::Other(format!("{at}: {error}"));
        let listener = TcpListener::bind(at).await.map_err(other)?;
        let address = listener.local_addr().map_err(other)?;
        let connections = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connections);
        let stop = CancellationToken::new();
        let accept = async move {
            let mut running = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let far = open();
                running.spawn(async move {
                    // A failure is seen by the client as a connection that ends.
                    if let Ok(mut far) = far.await {
                        let _ = near.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Ok(Self {
            address,
            connections,
            _stop: stop.drop_guard(),
        })
    }

    /// To a server.
    pub async fn to(at: SocketAddr, server: SocketAddr) -> Result<Self> {
        let open = move || async move {
            TcpStream::connect(server)
                .await
                .map_err(|error| ClusterError::Other(format!("{server}: {error}")))
        };
        Self::start(at, open).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}
