//! Connections as they reach a proxy after `iptables`: the bytes begin with a PROXY protocol header that names the
//! original destination.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use trimtab::lab::http::Request;

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
