//! Connections: accepted, and on a TLS listener authenticated, before they reach the gRPC server.

mod bounds;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use bounds::{Complaints, Place, Places};

use crate::identity::{IdentityError, PeerInfo, SpiffeId};
use crate::stats::Stats;
use crate::tls::TlsSource;

/// Connections that wait to be taken by the server.
const BACKLOG: usize = 64;
/// Connections that may wait in the system to be accepted; the system has a bound of its own.
const WAITING: u32 = 65_535;
/// Handshakes under way at a time; the others wait, and those of which nothing came do not count.
const HANDSHAKES: usize = 256;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time in which a client must have sent the preface of HTTP/2.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Length of that preface.
const PREFACE: usize = 24;

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
    /// Until the preface is there: how much of it is missing, and until when it must come. Later, pings find out.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    _place: Place,
}

impl Connection {
    fn new(io: Io, info: PeerInfo, place: Place) -> Self {
        Self {
            io,
            info,
            greeting: Some((PREFACE, Box::pin(tokio::time::sleep(FIRST_BYTES)))),
            _place: place,
        }
    }

    /// After a read of so many bytes, or of nothing yet.
    fn greeted(
        &mut self,
        read: Poll<io::Result<()>>,
        bytes: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((missing, until)) = &mut self.greeting else {
            return read;
        };
        *missing = missing.saturating_sub(bytes);
        if *missing == 0 {
            self.greeting = None;
        } else if read.is_pending() && until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
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
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(context, buffer),
        };
        let bytes = buffer.filled().len() - before;
        self.greeted(read, bytes, context)
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

/// Takes what comes to a listener.
struct Acceptor {
    listener: TcpListener,
    places: Places,
    failures: Complaints,
    refusals: Complaints,
    stats: Arc<Stats>,
}

impl Acceptor {
    /// The next connection that has a place.
    async fn next(&mut self) -> (TcpStream, SocketAddr, Place) {
        loop {
            let (stream, addr) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(times) = self.failures.add(Instant::now()) {
                        tracing::warn!(%error, times, "connections to the xDS server could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Some(place) = self.places.enter(addr.ip()) {
                // Else Nagle's algorithm delays a push until the one before is acknowledged; a socket without it still
                // works.
                let _ = stream.set_nodelay(true);
                return (stream, addr, place);
            }
            Stats::add(&self.stats.limited_connections, 1);
            if let Some(times) = self.refusals.add(Instant::now()) {
                tracing::warn!(%addr, times, "connections to the xDS server were closed: there are too many, or too many from one address");
            }
        }
    }
}

type Accepted = io::Result<Connection>;

/// The connections of a listener until `shutdown`. A slow or failing handshake holds up no other.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<TlsSource>>,
    stats: Arc<Stats>,
    connections: usize,
    shutdown: CancellationToken,
) -> impl Stream<Item = Accepted> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let mut acceptor = Acceptor {
        listener,
        places: Places::within_files(connections),
        failures: Complaints::default(),
        refusals: Complaints::default(),
        stats,
    };
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let (stream, addr, place) = tokio::select! {
                () = shutdown.cancelled() => return,
                () = sender.closed() => return,
                accepted = acceptor.next() => accepted,
            };
            if let Some(tls) = &tls {
                let handshake = Handshake {
                    tls: Arc::clone(tls),
                    turns: Arc::clone(&handshakes),
                    stats: Arc::clone(&acceptor.stats),
                    sender: sender.clone(),
                };
                tokio::spawn(handshake.run(stream, addr, place));
                continue;
            }
            let info = PeerInfo {
                addr: Some(addr),
                spiffe: None,
            };
            let connection = Connection::new(Io::Plain(stream), info, place);
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// What a handshake needs.
struct Handshake {
    tls: Arc<TlsSource>,
    turns: Arc<Semaphore>,
    stats: Arc<Stats>,
    sender: mpsc::Sender<Accepted>,
}

impl Handshake {
    async fn run(self, stream: TcpStream, addr: SocketAddr, place: Place) {
        // Silence takes no turn from others.
        let spoke = tokio::time::timeout(HANDSHAKE, stream.readable()).await;
        let connection = match spoke {
            Ok(_) => {
                // The semaphore is never closed.
                let _turn = self.turns.acquire().await;
                identify(&self.tls, stream, addr, place).await
            }
            Err(_) => Err("the client said nothing".to_owned()),
        };
        match connection {
            // The server may be gone meanwhile, and then so is the connection.
            Ok(connection) => drop(self.sender.send(Ok(connection)).await),
            Err(reason) => {
                Stats::add(&self.stats.tls_refused, 1);
                tracing::debug!(%addr, reason, "a connection to the xDS server was refused");
            }
        }
    }
}

async fn identify(
    tls: &TlsSource,
    stream: TcpStream,
    addr: SocketAddr,
    place: Place,
) -> Result<Connection, String> {
    let acceptor = TlsAcceptor::from(tls.current());
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| format!("the TLS handshake failed: {error}"))?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let spiffe = certificate
        .ok_or(IdentityError::Missing)
        .and_then(SpiffeId::of_certificate)
        .map_err(|error| error.to_string())?;
    let domains = &tls.files.trust_domains;
    if !domains.is_empty() && !domains.iter().any(|domain| domain == spiffe.trust_domain()) {
        return Err(IdentityError::TrustDomain(spiffe.trust_domain().to_owned()).to_string());
    }
    let info = PeerInfo {
        addr: Some(addr),
        spiffe: Some(Arc::new(spiffe)),
    };
    Ok(Connection::new(Io::Tls(Box::new(stream)), info, place))
}
