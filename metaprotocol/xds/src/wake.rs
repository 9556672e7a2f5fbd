//! Wakes a stream when something changed, at once or after the debounce.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

/// Wakes one stream; shared by the stream and the index.
#[derive(Debug)]
pub(crate) struct Wake {
    id: u64,
    started: Instant,
    debounce: Duration,
    waker: AtomicWaker,
    /// When the debounce ends, in microseconds after the start; 0 if no change waits.
    due: AtomicU64,
}

impl Wake {
    pub(crate) fn new(id: u64, started: Instant, debounce: Duration) -> Self {
        Self {
            id,
            started,
            debounce,
            waker: AtomicWaker::new(),
            due: AtomicU64::new(0),
        }
    }

    /// Number of the stream.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// When the stream was opened.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Sets the task to wake.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Makes the transport poll the stream.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Something changed that may affect the stream. Never blocks.
    pub(crate) fn changed(&self) {
        if !self.debounce.is_zero() {
            let due = self.started.elapsed() + self.debounce;
            let due = u64::try_from(due.as_micros()).unwrap_or(u64::MAX).max(1);
            // The first change of a burst sets the time.
            let _ = self
                .due
                .compare_exchange(0, due, Ordering::AcqRel, Ordering::Acquire);
        }
        self.wake();
    }

    /// When the debounce ends, if changes wait.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.due.load(Ordering::Acquire) {
            0 => None,
            micros => Some(self.started + Duration::from_micros(micros)),
        }
    }

    /// To be called before the changes are read, so that a change in between sets a new time.
    pub(crate) fn clear_due(&self) {
        self.due.store(0, Ordering::Release);
    }
}
