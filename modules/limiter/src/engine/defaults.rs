//! Refreshes of the default configurations of filters, which are in listeners: each is a write, and costs buckets.

use std::sync::atomic::Ordering;

use super::{Engine, Entry, Pushes};
use crate::index::LimiterKey;

impl Engine {
    /// Keeps track of a limiter whose defaults are not what is decided.
    pub(super) fn note_defaults(&self, key: &LimiterKey, entry: &Entry) {
        let mut outdated = self.outdated.lock();
        if entry.has_old_defaults() {
            outdated.insert(key.clone());
        } else {
            outdated.remove(key);
        }
    }

    /// Refreshes the defaults whose time has come, if no bucket of the same listeners leaks too much by it.
    pub(super) fn refresh_defaults(&self) {
        if !self.leads.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.monotonic();
        let due: Vec<LimiterKey> = {
            let entries = self.entries.lock();
            let mut outdated = self.outdated.lock();
            outdated.retain(|key| entries.contains_key(key));
            let due = outdated.iter().filter(|key| {
                let entry = entries.get(*key);
                entry.is_some_and(|e| e.is_refresh_due(&self.answers, now))
            });
            due.cloned().collect()
        };
        for key in due {
            let mut affected = self.index.same_listeners(&key);
            affected.insert(key.clone());
            let mut entries = self.entries.lock();
            let free = |k: &LimiterKey| entries.get(k).is_none_or(|e| e.may_fill(now));
            if !affected.iter().all(free) {
                continue;
            }
            for other in &affected {
                if let Some(entry) = entries.get_mut(other) {
                    entry.fill(now);
                }
            }
            let Some(entry) = entries.get_mut(&key) else {
                continue;
            };
            entry.refresh_defaults();
            let mut pushes = Pushes::default();
            self.serve(&key, entry, false, &mut pushes);
            self.push(pushes);
            tracing::info!(limiter = %entry.input.owner, "default limits of starting proxies are refreshed");
            self.queue.push(key);
        }
    }
}
