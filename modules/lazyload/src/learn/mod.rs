//! Where calls are learned from: access logs, Prometheus, and what objects declare.

pub mod access_log;
mod expand;
pub mod hints;
pub mod host;
pub mod peer;
pub mod prometheus;
pub mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::edges::HostName;
use crate::object::Directory;
use host::Target;

/// Hosts that one address stands for, at most; more are counted as [`Skip::Limit`].
const HOSTS_PER_ADDRESS: usize = 64;
/// First label of Slime's fallback.
const SLIME_FALLBACK: &str = "global-sidecar";

/// Why an entry or a series taught nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// Nobody is known at the source.
    SourceUnknown,
    /// It names no host, an address that no service has, or the fallback.
    DestinationUnknown,
    /// A field is missing or is not what it should be.
    Malformed,
    /// A bound was hit: hosts of one caller, or services at one address.
    Limit,
    /// It was said by somebody who may not say it.
    Unverified,
}

impl Skip {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::SourceUnknown,
        Self::DestinationUnknown,
        Self::Malformed,
        Self::Limit,
        Self::Unverified,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceUnknown => "SourceUnknown",
            Self::DestinationUnknown => "DestinationUnknown",
            Self::Malformed => "Malformed",
            Self::Limit => "Limit",
            Self::Unverified => "Unverified",
        }
    }
}

/// Skipped entries or series by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    /// Counts some.
    pub fn add(&mut self, skip: Skip, count: u64) {
        self.0[skip as usize] += count;
    }

    /// How many were skipped for this reason.
    pub fn get(&self, skip: Skip) -> u64 {
        self.0[skip as usize]
    }
}

/// The same for counters that several tasks share.
#[derive(Debug, Default)]
pub struct SkipCounters([AtomicU64; Skip::ALL.len()]);

impl SkipCounters {
    /// Adds what one message or answer skipped.
    pub fn add(&self, skipped: &Skipped) {
        for (counter, count) in self.0.iter().zip(skipped.0) {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// What was skipped since the start.
    pub fn get(&self) -> Skipped {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Skipped(std::array::from_fn(|i| load(&self.0[i])))
    }
}

/// What was learned from where.
#[derive(Debug, Default)]
pub struct Learned {
    /// By access logs.
    pub access_logs: Arc<server::ServerStats>,
    /// By telemetry.
    pub prometheus: Arc<prometheus::PrometheusStats>,
}

/// What is not a dependency although it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Full hosts of the fallback. Those of Slime's `global-sidecar` need not be listed.
    pub fallback_hosts: BTreeSet<String>,
    /// Whose access logs count for others.
    pub speakers: peer::Speakers,
    /// Label of telemetry with the namespace of the pod that tells it; empty: there is none.
    pub namespace_label: String,
}

impl Rules {
    /// Whether the host is a fallback.
    pub fn is_fallback(&self, host: &str) -> bool {
        let first = host.split('.').next();
        first == Some(SLIME_FALLBACK) || self.fallback_hosts.contains(host)
    }

    /// The hosts that a caller in `namespace` means by `target`, and whether the mesh knows them.
    ///
    /// `port` stands in for one that the target does not name. Empty: none, or the fallback.
    fn hosts<'a>(
        &self,
        target: Target<'a>,
        port: u16,
        namespace: &str,
        directory: &dyn Directory,
        skipped: &mut Skipped,
    ) -> Vec<(HostName<'a>, bool)> {
        match target {
            Target::Name(name, _) => {
                let host = match directory.host_of_name(&name, namespace) {
                    Some(host) => (HostName::Shared(host), true),
                    None => (HostName::Text(name), false),
                };
                let refused = self.is_fallback(host.0.as_str()) || is_local(&host.0);
                Vec::from_iter((!refused).then_some(host))
            }
            Target::Address(address, own_port) => {
                let hosts = directory.hosts_at(address, own_port.unwrap_or(port));
                if hosts.len() > HOSTS_PER_ADDRESS {
                    skipped.add(Skip::Limit, (hosts.len() - HOSTS_PER_ADDRESS) as u64);
                }
                let kept = hosts.into_iter().filter(|host| !self.is_fallback(host));
                let kept = kept.take(HOSTS_PER_ADDRESS);
                kept.map(|host| (HostName::Shared(host), true)).collect()
            }
        }
    }
}

/// The caller itself, which no proxy carries elsewhere.
fn is_local(host: &HostName<'_>) -> bool {
    host.as_str() == "localhost"
}

#[cfg(test)]
pub(crate) mod testing;
