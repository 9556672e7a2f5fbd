//! What the driver asks of the engine, and what it and the proxies report back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{first_form, v1alpha2};
use trimtab_kit::answers::Changed;
use trimtab_kit::engine::{Engine as Contract, WriteError};
use trimtab_kit::queue::{Key, WorkQueue};
use trimtab_kit::write::{StatusPatch, Writes};

use super::Engine;
use super::entry::{Entry, FIRST_SAMPLE};
use crate::index::{Form, LimiterKey};
use crate::translate::EXTENSION_CONFIG_TYPE;

/// How often limiters are looked at that no sample may ever come for.
const DEADLINES: Duration = Duration::from_secs(1);

impl Key for LimiterKey {}

impl Contract for Engine {
    type Key = LimiterKey;

    fn queue(&self) -> &WorkQueue<LimiterKey> {
        &self.queue
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.index.changed() => {}
            () = tokio::time::sleep(DEADLINES) => {}
            () = self.admission.turned(self.leads.load(Ordering::Relaxed)) => {}
        }
    }

    fn absorb(&self) {
        self.started.get_or_init(|| self.clock.monotonic());
        self.turn();
        if self.absorb_events() {
            self.wake_samplers.notify_waiters();
        }
        self.expire_waits();
        self.refresh_defaults();
    }

    /// Once no limiter waits for its first samples, or has waited for as long as a query may take; at once where another replica
    /// decides.
    fn is_ready(&self) -> bool {
        let waited = |since: &Duration| self.clock.monotonic().saturating_sub(*since);
        let over = self
            .started
            .get()
            .is_some_and(|s| waited(s) >= FIRST_SAMPLE);
        over || !self.leads.load(Ordering::Relaxed) || !self.any_pending()
    }

    fn writes(self: &Arc<Self>, key: &LimiterKey) -> Writes {
        match self.desired(key) {
            Some(desired) => {
                let owner = (key.namespace.clone(), key.name.clone());
                Writes::none().objects(owner, desired)
            }
            None => Writes::none(),
        }
    }

    /// A failure shows in the status.
    fn written(&self, key: &LimiterKey, error: Option<WriteError>) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.apply_error = error;
        }
    }

    fn status(&self, key: &LimiterKey) -> Option<StatusPatch> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(key)?;
        let now = self.clock.monotonic();
        entry.refresh_status(&self.answers, self.clock.now());
        if entry.pending(now) || !entry.should_write(now) {
            return None;
        }
        let status = entry.begin_write();
        let (namespace, name) = (&key.namespace, &key.name);
        Some(match key.form {
            Form::V1alpha2 => StatusPatch::of::<v1alpha2::SmartLimiter>(namespace, name, &status),
            Form::First => StatusPatch::of::<first_form::SmartLimiter>(namespace, name, &status),
        })
    }

    fn status_written(&self, key: &LimiterKey, _: StatusPatch) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            for step in entry.end_write(self.clock.monotonic()) {
                self.events.tell(step);
            }
        }
    }

    fn answers_changed(&self, changed: &Changed) {
        let owners = self.owners.lock();
        let of_type = changed
            .resources
            .iter()
            .filter(|(t, _)| t == EXTENSION_CONFIG_TYPE);
        let mut keys: BTreeSet<LimiterKey> = of_type
            .filter_map(|(_, name)| owners.get(name).cloned())
            .collect();
        drop(owners);
        keys.extend(
            changed
                .objects
                .iter()
                .filter_map(|o| LimiterKey::of_title(o)),
        );
        for key in keys {
            self.queue.push(key);
        }
    }

    async fn sample_once(&self) {
        for source in 0..self.sources.len() {
            self.sample(source).await;
        }
    }
}

impl Engine {
    /// Objects that must exist now, all of them; `None`: leave the objects as they are.
    pub fn desired(&self, key: &LimiterKey) -> Option<Vec<EnvoyFilter>> {
        self.entries.lock().get(key).and_then(Entry::desired)
    }
}
