//! Counters for the host to export; this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::histogram::{Histogram, Times};

/// Plain counters of one [`ResourceCache`](crate::ResourceCache). All only grow, except `streams_active`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Streams open now.
    pub streams_active: AtomicU64,
    /// Streams ever accepted.
    pub streams_opened: AtomicU64,
    /// Streams refused because the cache was not ready.
    pub streams_refused: AtomicU64,
    /// Streams refused or ended because a client has too many.
    pub limited_streams: AtomicU64,
    /// Streams ended because a client subscribed to too many names.
    pub limited_names: AtomicU64,
    /// Streams ended because a request was too large.
    pub limited_bytes: AtomicU64,
    /// Streams ended because of a request that is no valid message, or that nobody may send.
    pub malformed: AtomicU64,
    /// Connections refused because of their certificate or handshake.
    pub tls_refused: AtomicU64,
    /// Changed certificate files that were taken into use.
    pub tls_reloads: AtomicU64,
    /// Changed certificate files that could not be used.
    pub tls_reload_failures: AtomicU64,
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
    /// let cache = trimtab_xds::ResourceCache::new();
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

    pub(crate) fn converged(&self, latencies: impl Iterator<Item = Duration>) {
        let (mut count, mut sum) = (0, Duration::ZERO);
        for latency in latencies {
            count += 1;
            sum = sum.saturating_add(latency);
        }
        self.convergence_count.fetch_add(count, Ordering::Relaxed);
        let micros = u64::try_from(sum.as_micros()).unwrap_or(u64::MAX);
        self.convergence_sum_micros
            .fetch_add(micros, Ordering::Relaxed);
    }
}

/// Counters of one type, kept beside its table.
#[derive(Debug, Default)]
pub(crate) struct TypeCounters {
    pub(crate) sotw: AtomicU64,
    pub(crate) delta: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) acks: AtomicU64,
    pub(crate) nacks: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) push: Histogram,
    pub(crate) convergence: Histogram,
}

impl TypeCounters {
    pub(crate) fn subscriptions(&self, delta: bool) -> &AtomicU64 {
        if delta { &self.delta } else { &self.sotw }
    }

    pub(crate) fn read(&self, type_url: &str, names: usize) -> TypeStats {
        let read = Stats::read;
        TypeStats {
            type_url: type_url.to_owned(),
            names,
            streams_sotw: read(&self.sotw),
            streams_delta: read(&self.delta),
            pushes: read(&self.pushes),
            resources: read(&self.resources),
            removed: read(&self.removed),
            bytes: read(&self.bytes),
            acks: read(&self.acks),
            nacks: read(&self.nacks),
            denied: read(&self.denied),
            changes: read(&self.changes),
            push: self.push.read(),
            convergence: self.convergence.read(),
        }
    }
}

/// A reading of the counters of one type. All only grow, except `names` and `streams_*`.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeStats {
    /// The type.
    pub type_url: String,
    /// Names that exist now.
    pub names: usize,
    /// State-of-the-world streams that ask for this type now.
    pub streams_sotw: u64,
    /// Delta streams that ask for this type now.
    pub streams_delta: u64,
    /// Response messages handed to the transport.
    pub pushes: u64,
    /// Resources in these messages.
    pub resources: u64,
    /// Removals in these messages.
    pub removed: u64,
    /// Bytes of resource bodies in these messages.
    pub bytes: u64,
    /// Responses that clients accepted.
    pub acks: u64,
    /// Responses that clients refused.
    pub nacks: u64,
    /// Questions for names that exist but that the client must not see.
    pub denied: u64,
    /// Changes of resources that took effect.
    pub changes: u64,
    /// From publication (or subscription, if later) to the transport; the longest wait of each message.
    pub push: Times,
    /// From publication (or subscription, if later) to acceptance, of each resource.
    pub convergence: Times,
}
