//! Of several replicas one decides. The others serve its decisions over ECDS as the statuses bring them: two that sampled on
//! their own would give proxies different limits.

use std::sync::atomic::Ordering;

use super::entry::Entry;
use super::{Cause, Engine, Pushes, sample_key};
use crate::index::LimiterKey;

impl Engine {
    /// Takes over that this replica has begun or ceased to lead. A new leader goes on as after a restart: decisions are those of
    /// the statuses until every metric has been sampled, and what is held is held anew.
    pub(super) fn turn(&self) {
        let leads = self.admission.leads();
        if self.leads.swap(leads, Ordering::Relaxed) == leads {
            return;
        }
        let now = self.clock.monotonic();
        let mut entries = self.entries.lock();
        let mut sampler = self.sampler.lock();
        for (key, entry) in entries.iter_mut() {
            for set in std::mem::take(&mut entry.sampled_sets) {
                sampler.forget(&sample_key(key, &set));
            }
            entry.restart(now);
        }
        drop(sampler);
        drop(entries);
        self.unsettled.lock().clear();
        // Marks all limiters.
        self.index.follow_leader(!leads);
    }

    /// Serves what the leader decides. Samples change nothing here; they show that the sources work.
    pub(super) fn follow(
        &self,
        key: &LimiterKey,
        entry: &mut Entry,
        cause: Cause,
        pushes: &mut Pushes,
    ) {
        entry.remember_point(self.clock.now().as_second());
        if cause != Cause::Event {
            return;
        }
        if entry.follow() {
            self.serve(key, entry, false, pushes);
        }
        entry.refresh_status(&self.answers, self.clock.now());
    }
}
