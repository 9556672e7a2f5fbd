//! Connections: accepted, and on a TLS listener authenticated, before they reach the gRPC server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::identity::{IdentityError, PeerInfo, SpiffeId};
use crate::stats::Stats;
use crate::tls::TlsSource;

/// Connections that wait to be taken by the server.
const BACKLOG: usize = 64;
/// Connections that may wait in the system to be accepted; the system has a bound of its own.
const WAITING: u32 = 65_535;
/// Handshakes under way at a time; the others wait in the kernel.
const HANDSHAKES: usize = 256;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    io: Io,
    info: PeerInfo,
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(context, buffer),
            Io::Tls(io) => Pin::new(io).poll_write(context, buffer),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, buffers),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(context),
            Io::Tls(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(context),
            Io::Tls(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}

/// A listener for a mesh: as many connections may wait to be accepted as the system allows (`net.core.somaxconn`).
///
/// The usual 1,024 overflow when all proxies come back at once; the system then drops their first packets, and clients try
/// again after 1, 3, 7 and 15 seconds. Must be called within a tokio runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let listener = trimtab_xds::listen(([127, 0, 0, 1], 0).into())?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok(())
/// # }
/// ```
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As `TcpListener::bind` does: a restart must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(WAITING)
}

/// The connections of a listener until `shutdown`. A slow or failing handshake holds up no other.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<TlsSource>>,
    stats: Arc<Stats>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the xDS server could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Else Nagle's algorithm delays a push until the one before is acknowledged; a socket without it still works.
            let _ = stream.set_nodelay(true);
            let Some(tls) = &tls else {
                let info = PeerInfo {
                    addr: Some(addr),
                    spiffe: None,
                };
                let io = Io::Plain(stream);
                if sender.send(Ok(Connection { io, info })).await.is_err() {
                    return;
                }
                continue;
            };
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (tls, stats, sender) = (Arc::clone(tls), Arc::clone(&stats), sender.clone());
            tokio::spawn(async move {
                let connection = identify(&tls, stream, addr).await;
                drop(permit);
                match connection {
                    // The server may be gone meanwhile, and then so is the connection.
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(reason) => {
                        Stats::add(&stats.tls_refused, 1);
                        tracing::debug!(%addr, reason, "a connection to the xDS server was refused");
                    }
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn identify(
    tls: &TlsSource,
    stream: TcpStream,
    addr: SocketAddr,
) -> Result<Connection, String> {
    let acceptor = TlsAcceptor::from(tls.current());
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| format!("the TLS handshake failed: {error}"))?;
    let Some(domains) = &tls.trust_domains else {
        return Ok(Connection {
            io: Io::Tls(Box::new(stream)),
            info: PeerInfo {
                addr: Some(addr),
                spiffe: None,
            },
        });
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let spiffe = certificate
        .ok_or(IdentityError::Missing)
        .and_then(SpiffeId::of_certificate)
        .map_err(|error| error.to_string())?;
    if !domains.is_empty() && !domains.iter().any(|domain| domain == spiffe.trust_domain()) {
        return Err(IdentityError::TrustDomain(spiffe.trust_domain().to_owned()).to_string());
    }
    Ok(Connection {
        io: Io::Tls(Box::new(stream)),
        info: PeerInfo {
            addr: Some(addr),
            spiffe: Some(Arc::new(spiffe)),
        },
    })
}
