//! Counters for the host to export; this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Plain counters of one [`SnapshotCache`](crate::SnapshotCache). All only grow, except `streams_active`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Streams open now.
    pub streams_active: AtomicU64,
    /// Streams ever accepted.
    pub streams_opened: AtomicU64,
    /// Streams refused because the cache was not ready.
    pub streams_refused: AtomicU64,
    /// Response messages handed to the transport.
    pub pushes: AtomicU64,
    /// Resources in these messages.
    pub resources: AtomicU64,
    /// Bytes of resource bodies in these messages.
    pub bytes: AtomicU64,
    /// Responses that clients accepted.
    pub acks: AtomicU64,
    /// Responses that clients refused.
    pub nacks: AtomicU64,
    /// Requests that carried the nonce of an older response.
    pub stale_nonces: AtomicU64,
    /// Requests for a type that this server does not have.
    pub unknown_types: AtomicU64,
    /// Changes of resources that took effect.
    pub changes: AtomicU64,
    /// Accepted resources, the count of the convergence time.
    pub convergence_count: AtomicU64,
    /// Sum of the times from publication (or subscription, if later) to acceptance, in microseconds.
    pub convergence_sum_micros: AtomicU64,
}

impl Stats {
    /// Reads one counter.
    ///
    /// ```
    /// let cache = trimtab_xds::SnapshotCache::new();
    /// assert_eq!(trimtab_xds::Stats::read(&cache.stats().pushes), 0);
    /// ```
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Mean time from publication to acceptance, if anything was accepted.
    pub fn mean_convergence(&self) -> Option<Duration> {
        Self::read(&self.convergence_sum_micros)
            .checked_div(Self::read(&self.convergence_count))
            .map(Duration::from_micros)
    }

    pub(crate) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn converged(&self, latency: Duration) {
        self.convergence_count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.convergence_sum_micros
            .fetch_add(micros, Ordering::Relaxed);
    }
}
