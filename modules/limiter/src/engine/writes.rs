//! What the writers ask of the engine, and what they and the proxies report back.

use std::sync::Arc;
use std::time::Duration;

use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::LimiterStatus;

use super::Engine;
use super::entry::Entry;
use crate::index::{Form, LimiterKey};

/// First pause after a failed write; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Engine {
    /// Objects that must exist now, all of them; `None` = leave the objects as they are.
    pub fn desired(&self, key: &LimiterKey) -> Option<Vec<EnvoyFilter>> {
        self.entries.lock().get(key).and_then(Entry::desired)
    }

    /// The status to write now; `None` when the one that was written says the same.
    pub fn status_to_write(&self, key: &LimiterKey) -> Option<Arc<LimiterStatus>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(key)?;
        let now = self.clock.monotonic();
        entry.refresh_status(self.clock.now());
        if entry.pending(now) || !entry.should_write(now) {
            return None;
        }
        Some(entry.latest())
    }

    /// A status is at the API server.
    pub fn note_status(&self, key: &LimiterKey, status: Arc<LimiterStatus>) {
        let now = self.clock.monotonic();
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.note_status(status, now);
        }
    }

    /// How the write of the objects went: a failure shows in the status.
    pub fn note_apply(&self, key: &LimiterKey, error: Option<(&'static str, String)>) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.apply_error = error;
        }
    }

    /// Whether a failed write is to be tried again, and after which pause: `None` when a try is under way already.
    /// One try for each limiter, however often it fails meanwhile.
    pub fn retry_after(&self, key: &LimiterKey) -> Option<Duration> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(key)?;
        if entry.retrying {
            return None;
        }
        entry.retrying = true;
        entry.failures = entry.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(8).saturating_sub(1));
        Some(doubled.min(LONGEST_PAUSE))
    }

    /// The pause is over: the limiter is written as it is now.
    pub fn retry_now(&self, key: LimiterKey) {
        if let Some(entry) = self.entries.lock().get_mut(&key) {
            entry.retrying = false;
        }
        self.queue.push(key, ());
    }

    /// Everything of a limiter is written.
    pub fn note_success(&self, key: &LimiterKey) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.failures = 0;
        }
    }

    /// A proxy refused (`Some`) or took (`None`) the present value of a limiter, given as `namespace/name`.
    pub fn delivered(&self, origin: &str, node: &str, rejection: Option<&str>) {
        let Some((namespace, name)) = origin.split_once('/') else {
            return;
        };
        for form in [Form::V1alpha2, Form::First] {
            let key = LimiterKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                form,
            };
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(&key) else {
                continue;
            };
            let changed = match rejection {
                Some(message) => {
                    let old = entry.rejected.insert(node.to_owned(), message.to_owned());
                    old.as_deref() != Some(message)
                }
                None => entry.rejected.remove(node).is_some(),
            };
            if changed {
                self.queue.push(key, ());
            }
        }
    }
}
