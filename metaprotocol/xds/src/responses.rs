//! The two halves of a stream: a reader task that feeds requests to the sessions, and a response stream that asks them
//! what to send.
//!
//! The transport polls [`Responses`] only when the client can take more, and a message is made at that moment, so there
//! is no queue to grow or to go stale, and reading goes on while writing is blocked.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, Streaming};

use crate::cache::ResourceCache;
use crate::protocol::Protocol;
use crate::stats::Stats;
use crate::stream::{StreamSettings, StreamState};

/// The response half of a stream. Dropping it ends the reader and closes the stream.
pub(crate) struct Responses<P> {
    cache: ResourceCache,
    stream: Arc<StreamState>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Wakes the stream for what it does by itself.
    alarm: Option<Pin<Box<Sleep>>>,
    _reader: DropGuard,
    protocol: PhantomData<P>,
}

impl<P> Responses<P> {
    /// Whether the debounce still runs; the context is woken at its end.
    fn debouncing(&mut self, context: &mut Context<'_>) -> bool {
        let Some(due) = self.stream.wake.due() else {
            return false;
        };
        if due > Instant::now() {
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            if pause.as_mut().poll(context).is_pending() {
                return true;
            }
        }
        self.pause = None;
        self.stream.wake.clear_due();
        false
    }
}

impl<P> Responses<P> {
    /// Whether the time has come that the stream waits for; else the context is woken then.
    fn rang(&mut self, context: &mut Context<'_>) -> bool {
        let Some(due) = self.stream.due() else {
            self.alarm = None;
            return false;
        };
        // Never a busy loop.
        let due = tokio::time::Instant::from_std(due.max(Instant::now() + TICK));
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(context).is_ready()
    }
}

impl<P: Protocol> Stream for Responses<P> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Registered before the look, so that a change in between wakes again.
        self.stream.wake.register(context.waker());
        if !self.stream.has_ended() && self.debouncing(context) {
            return Poll::Pending;
        }
        loop {
            let next = self.stream.poll(&self.cache.store().stats);
            if next.is_ready() || !self.rang(context) {
                return next;
            }
        }
    }
}

impl<P> Drop for Responses<P> {
    fn drop(&mut self) {
        self.cache.close(&self.stream);
    }
}

/// Starts a stream; `only` is the type of a service that serves just one, `age` how long the stream may live.
pub(crate) fn open<P: Protocol>(
    cache: &ResourceCache,
    only: Option<&'static str>,
    mut requests: Streaming<P::Request>,
    settings: StreamSettings,
    age: Option<Duration>,
    shutdown: &CancellationToken,
) -> Responses<P> {
    let stream = cache.open(P::DELTA, settings);
    let done = shutdown.child_token();
    let responses = Responses {
        cache: cache.clone(),
        stream: Arc::clone(&stream),
        pause: None,
        alarm: None,
        _reader: done.clone().drop_guard(),
        protocol: PhantomData,
    };
    let cache = cache.clone();
    tokio::spawn(async move {
        let timeout = stream.limits().first_request;
        let old = tokio::time::sleep(age.map_or(FOREVER, |age| jittered(age, stream.id())));
        tokio::pin!(old);
        let mut first = true;
        let end = loop {
            let message = tokio::select! {
                biased;
                () = done.cancelled() => break Ok(()),
                () = &mut old, if age.is_some() => break Ok(()),
                message = requests.message() => message,
                () = tokio::time::sleep(timeout), if first => {
                    break Err(Status::deadline_exceeded(
                        "no request came on the stream; send the first request when the stream is opened",
                    ));
                }
            };
            first = false;
            match message {
                Ok(Some(request)) => {
                    if let Err(status) = stream.accept::<P>(cache.store(), only, request) {
                        note_end(&cache, &status);
                        break Err(status);
                    }
                }
                Ok(None) => break Ok(()),
                // The client is gone or sent something else than the protocol; the status says which.
                Err(status) => {
                    note_end(&cache, &status);
                    break Err(status);
                }
            }
        };
        stream.end(end);
    });
    responses
}

/// Shortest time that a stream sleeps.
const TICK: Duration = Duration::from_millis(10);
/// Longer than any process lives; a timer needs some value.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Up to a tenth longer, so that the streams that were opened together do not end together.
fn jittered(age: Duration, stream: u64) -> Duration {
    let share = u32::try_from(xxhash_rust::xxh3::xxh3_64(&stream.to_le_bytes()) % 1000);
    age + age / 10 * share.unwrap_or_default() / 1000
}

fn note_end(cache: &ResourceCache, end: &Status) {
    let stats = cache.stats();
    match end.code() {
        Code::OutOfRange => Stats::add(&stats.limited_bytes, 1),
        Code::InvalidArgument | Code::Internal | Code::PermissionDenied => {
            Stats::add(&stats.malformed, 1);
        }
        // Limits count themselves, and a client that is gone is no fault.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::jittered;
    use std::time::Duration;

    #[test]
    fn ages_spread_over_a_tenth() {
        let age = Duration::from_secs(1000);
        let ages: Vec<u64> = (0..100).map(|id| jittered(age, id).as_secs()).collect();
        assert!(ages.iter().all(|age| (1000..=1100).contains(age)));
        let (low, high) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(high - low > 80, "from {low} to {high}");
    }
}
