//! Connections to the ports of this process: how many there may be, how long they may be silent, and what becomes of them
//! when no more can be taken. What a stranger leaves open must not keep anybody else out.

mod connection;
mod table;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use connection::Connection;
pub use table::Full;
use table::Table;

/// Pause after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two log lines about the same port.
const TOLD: Duration = Duration::from_secs(60);
/// File descriptors of a process whose limit cannot be read.
const FILES: usize = 1024;

/// Bounds of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// What happens to one more.
    pub full: Full,
    /// Time until a peer has said something.
    pub first_bytes: Duration,
    /// Time for which nothing may go either way afterwards.
    pub idle: Duration,
}

impl Bounds {
    /// For connections with one request after the other: a new one takes the place of the one that has waited longest for
    /// a request.
    pub fn requests(connections: usize) -> Self {
        Self {
            connections: connections.min(share(8)),
            full: Full::CloseOldest,
            first_bytes: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }

    /// For connections that stay, and whose peers are asked every 30 s whether they are there: those that are there keep
    /// their place.
    pub fn streams(connections: usize) -> Self {
        Self {
            connections: connections.min(share(4)),
            full: Full::Refuse,
            first_bytes: Duration::from_secs(10),
            idle: Duration::from_secs(90),
        }
    }
}

/// Both ends of a connection, as a service finds them among the extensions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The peer.
    pub peer: SocketAddr,
    /// The address of this process that it came to.
    pub local: SocketAddr,
}

/// One part of this many of the files that the process may have open: all ports together stay below.
fn share(parts: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    (open_files(&limits).unwrap_or(FILES) / parts).max(1)
}

/// The soft limit of open files.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// The connections to `listener` within bounds, until `shutdown`. `port` is what messages call it.
pub fn incoming(
    listener: TcpListener,
    port: &'static str,
    bounds: Bounds,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let accepting = Accepting {
        listener,
        table: Table::new(&bounds),
        bounds,
        complaints: Complaints {
            port,
            told: None,
            since: 0,
        },
        shutdown,
    };
    futures::stream::unfold(accepting, |mut accepting| async move {
        let connection = accepting.next().await?;
        Some((Ok(connection), accepting))
    })
}

struct Accepting {
    listener: TcpListener,
    table: Table,
    bounds: Bounds,
    complaints: Complaints,
    shutdown: CancellationToken,
}

impl Accepting {
    async fn next(&mut self) -> Option<Connection> {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            let problem = match accepted {
                Ok((stream, peer)) => match self.admit(stream, peer) {
                    Ok(connection) => return Some(connection),
                    Err(problem) => problem,
                },
                Err(error) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    format!("a connection could not be accepted: {error}")
                }
            };
            self.complaints.add(&problem);
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Result<Connection, String> {
        let gone = |error: io::Error| format!("a connection was gone at once: {error}");
        let local = stream.local_addr().map_err(gone)?;
        let Some(slot) = self.table.enter(peer.ip()) else {
            return Err(format!(
                "there are {} connections, or too many from {}: one more was closed",
                self.bounds.connections,
                peer.ip()
            ));
        };
        // Else Nagle's algorithm delays small answers; a socket without it still works.
        let _ = stream.set_nodelay(true);
        Ok(Connection::new(
            stream,
            Ends { peer, local },
            slot,
            &self.bounds,
        ))
    }
}

/// Log lines of one port: the first, and then one a minute that counts the others.
struct Complaints {
    port: &'static str,
    told: Option<Instant>,
    since: u64,
}

impl Complaints {
    fn add(&mut self, problem: &str) {
        self.since += 1;
        let now = Instant::now();
        if self
            .told
            .is_some_and(|told| now.duration_since(told) < TOLD)
        {
            return;
        }
        tracing::warn!(port = self.port, times = self.since, "{problem}");
        self.told = Some(now);
        self.since = 0;
    }
}

#[cfg(test)]
mod tests;
