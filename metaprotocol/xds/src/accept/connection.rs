//! One connection, which ends when its peer is silent for too long or its place is taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::bounds::Bounds;
use super::ends::Ends;
use super::table::Slot;

pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a port of this process.
pub struct Connection {
    io: Io,
    ends: Ends,
    slot: Slot,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    opened: Instant,
    moved: Instant,
    read: usize,
    greeting: usize,
    first_bytes: Duration,
    idle: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Ends;

    fn connect_info(&self) -> Ends {
        self.ends.clone()
    }
}

impl Connection {
    pub(super) fn new(io: Io, ends: Ends, slot: Slot, bounds: &Bounds) -> Self {
        let now = Instant::now();
        Self {
            io,
            ends,
            closed: Box::pin(slot.close.clone().cancelled_owned()),
            slot,
            timer: Box::pin(tokio::time::sleep_until(now + bounds.first_bytes)),
            opened: now,
            moved: now,
            read: 0,
            greeting: bounds.greeting,
            first_bytes: bounds.first_bytes,
            idle: bounds.idle,
        }
    }

    /// Both ends.
    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// While nothing moves: whether it has to end.
    fn end<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.closed.as_mut().poll(context).is_ready() {
            let why = "the place of the connection was needed";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        loop {
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let end = if self.read < self.greeting {
                self.opened + self.first_bytes
            } else {
                self.moved + self.idle
            };
            if end <= Instant::now() {
                let why = "the peer was silent for too long";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            self.timer.as_mut().reset(end);
        }
    }

    fn wrote<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => self.end(context),
            done @ Poll::Ready(_) => {
                self.moved = Instant::now();
                self.slot.serve();
                done
            }
        }
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
        match read {
            Poll::Pending => self.end(context),
            done @ Poll::Ready(_) => {
                let new = buffer.filled().len() - before;
                self.read = self.read.saturating_add(new);
                self.moved = Instant::now();
                done
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(context, buffer),
            Io::Tls(io) => Pin::new(io).poll_write(context, buffer),
        };
        self.wrote(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, buffers),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(context, buffers),
        };
        self.wrote(written, context)
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
