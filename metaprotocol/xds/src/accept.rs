//! Connections to the ports of a process: how many there may be, how long they may be silent, who the peers are, and what
//! becomes of those that are one too many. One mechanism for all ports, the xDS server's and those of the host.

mod bounds;
mod connection;
mod ends;
mod handshake;
mod table;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub use bounds::{Bounds, Full, Share};
pub use connection::Connection;
pub use ends::Ends;

pub use crate::stats::Counts;
pub use crate::tls::Tls;

use bounds::Complaints;
use connection::Io;
use handshake::{HANDSHAKES, Handshake};
use table::{Slot, Table};

/// Connections that wait to be taken by the server.
const BACKLOG: usize = 64;
/// Connections that may wait in the system to be accepted; the system has a bound of its own.
const WAITING: u32 = 65_535;
/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port: what messages call it, its bounds, and its certificates; without them it is plain.
#[derive(Debug)]
pub struct Port {
    /// For log lines.
    pub name: &'static str,
    /// How much strangers may leave open.
    pub bounds: Bounds,
    /// Who this side is, and who may come.
    pub tls: Option<Arc<Tls>>,
    /// What is counted.
    pub counts: Arc<Counts>,
}

impl Port {
    /// A plain port, or with TLS.
    pub fn new(name: &'static str, bounds: Bounds, tls: Option<Arc<Tls>>) -> Self {
        Self {
            name,
            bounds,
            tls,
            counts: Arc::default(),
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

/// The connections to `listener` within bounds, until `shutdown`. A slow or failing handshake holds up no other. Must be
/// called within a tokio runtime.
pub fn incoming(
    listener: TcpListener,
    port: Port,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let mut acceptor = Acceptor {
        listener,
        table: Table::new(&port.bounds),
        port,
        failures: Complaints::default(),
        refusals: Complaints::default(),
    };
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let (stream, ends, slot) = tokio::select! {
                () = shutdown.cancelled() => return,
                () = sender.closed() => return,
                accepted = acceptor.next() => accepted,
            };
            let Port { bounds, counts, .. } = &acceptor.port;
            if let Some(tls) = &acceptor.port.tls {
                let handshake = Handshake {
                    port: acceptor.port.name,
                    tls: Arc::clone(tls),
                    turns: Arc::clone(&handshakes),
                    counts: Arc::clone(counts),
                    bounds: bounds.clone(),
                    sender: sender.clone(),
                };
                tokio::spawn(handshake.run(stream, ends, slot));
                continue;
            }
            let connection = Connection::new(Io::Plain(stream), ends, slot, bounds);
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Takes what comes to a listener.
struct Acceptor {
    listener: TcpListener,
    port: Port,
    table: Table,
    failures: Complaints,
    refusals: Complaints,
}

impl Acceptor {
    /// The next connection that has a place.
    async fn next(&mut self) -> (TcpStream, Ends, Slot) {
        let port = self.port.name;
        loop {
            let accepted = self.listener.accept().await;
            let accepted = accepted.and_then(|(stream, peer)| {
                let local = stream.local_addr()?;
                Ok((stream, peer, local))
            });
            let (stream, peer, local) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(times) = self.failures.add(Instant::now()) {
                        tracing::warn!(port, %error, times, "connections could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Some(slot) = self.table.enter(peer.ip()) {
                // Else Nagle's algorithm delays a small answer until the one before is acknowledged; a socket without it
                // still works.
                let _ = stream.set_nodelay(true);
                let ends = Ends {
                    peer,
                    local,
                    identity: None,
                };
                return (stream, ends, slot);
            }
            Counts::add(&self.port.counts.limited);
            if let Some(times) = self.refusals.add(Instant::now()) {
                let most = self.port.bounds.connections;
                tracing::warn!(port, %peer, most, times, "connections were closed: there are too many, or too many from one address");
            }
        }
    }
}

#[cfg(test)]
mod tests;
