//! Counters for the host to export.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// What a port did.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections closed because there are too many, in all or from one address.
    pub limited: AtomicU64,
    /// Connections refused because of their certificate or handshake.
    pub tls_refused: AtomicU64,
    /// Changed certificates that were taken into use.
    pub tls_reloads: AtomicU64,
    /// Changed certificates that could not be used.
    pub tls_reload_failures: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

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
    /// What became of connections.
    pub connections: Arc<Counts>,
    /// Streams ended because a client subscribed to too many names.
    pub limited_names: AtomicU64,
    /// Streams ended because a request was too large.
    pub limited_bytes: AtomicU64,
    /// Streams ended because of a request that is malformed or not permitted.
    pub malformed: AtomicU64,
    /// Streams refused because their token is missing or not accepted.
    pub tokens_refused: AtomicU64,
    /// Response messages handed to the transport.
    pub pushes: AtomicU64,
    /// Responses that clients accepted.
    pub acks: AtomicU64,
    /// Responses that clients refused.
    pub nacks: AtomicU64,
    /// Requests that carried the nonce of an older response.
    pub stale_nonces: AtomicU64,
    /// Requests for a type that this server does not have.
    pub unknown_types: AtomicU64,
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

    pub(crate) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Times from publication to acceptance.
#[derive(Debug)]
pub(crate) struct Convergence(Histogram);

impl Default for Convergence {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl Convergence {
    pub(crate) fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
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
    pub(crate) convergence: Convergence,
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
            convergence: self.convergence.0.clone(),
        }
    }
}

/// A reading of the counters of one type. All only grow, except `names` and `streams_*`.
#[derive(Debug, Clone)]
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
    /// Requests for names that exist but that the client must not see.
    pub denied: u64,
    /// Changes of resources that took effect.
    pub changes: u64,
    /// From publication (or subscription, if later) to acceptance, of each resource.
    pub convergence: Histogram,
}
