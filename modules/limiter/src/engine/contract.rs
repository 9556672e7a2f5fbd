//! What the driver asks of the engine, and what it and the proxies report back.

use std::sync::Arc;
use std::time::Duration;

use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{first_form, v1alpha2};
use trimtab_kit::engine::{Engine as Contract, WriteError};
use trimtab_kit::queue::{Key, WorkQueue};
use trimtab_kit::write::{StatusPatch, Writes};
use trimtab_xds::Delivery;

use super::Engine;
use super::entry::{Entry, FIRST_SAMPLE};
use crate::index::{Form, LimiterKey};

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
        }
    }

    fn absorb(&self) {
        self.started.get_or_init(|| self.clock.monotonic());
        if self.absorb_events() {
            self.wake_samplers.notify_waiters();
        }
        self.expire_waits();
    }

    /// Once no limiter waits for its first samples, or has waited for as long as a query may take.
    fn is_ready(&self) -> bool {
        let waited = |since: &Duration| self.clock.monotonic().saturating_sub(*since);
        let over = self
            .started
            .get()
            .is_some_and(|s| waited(s) >= FIRST_SAMPLE);
        over || !self.any_pending()
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
        entry.refresh_status(self.clock.now());
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
            entry.end_write(self.clock.monotonic());
        }
    }

    fn proxy_answered(&self, answer: &Delivery) {
        match answer {
            Delivery::Acked {
                node,
                type_url,
                name,
                version,
                ..
            } => {
                // A node that refused the present value acknowledges the one before when it reconnects.
                let resource = self.xds.get(type_url, name);
                if let Some(resource) = resource.filter(|r| r.version == *version) {
                    self.note_answer(&resource.origin, node, None);
                }
            }
            Delivery::Nacked {
                node,
                origin,
                message,
                ..
            } => self.note_answer(origin, node, Some(message)),
            Delivery::Left { .. } | Delivery::Closed { .. } => {}
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

    /// A proxy refused (`Some`) or took (`None`) the present value of a limiter, given as `namespace/name`.
    fn note_answer(&self, origin: &str, node: &str, rejection: Option<&str>) {
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
                    tracing::warn!(%node, limiter = %origin, %message, "a proxy refused a limit and keeps the last good one");
                    let old = entry.rejected.insert(node.to_owned(), message.to_owned());
                    old.as_deref() != Some(message)
                }
                None => entry.rejected.remove(node).is_some(),
            };
            if changed {
                self.queue.push(key);
            }
        }
    }
}
