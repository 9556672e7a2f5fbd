//! Readiness by name: the process is ready when every named blocker is released, or cannot be for a reason that
//! concerns one module only, which is then degraded.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The set of blockers, each with the reason why it is degraded.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Readiness {
    /// No blockers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a blocker; it blocks until [`ReadinessGate::release`].
    pub fn block(&self, name: impl Into<String>) -> ReadinessGate {
        let name = name.into();
        self.pending.lock().insert(name.clone(), None);
        ReadinessGate {
            readiness: self.clone(),
            name,
        }
    }

    /// Names that still block, sorted.
    pub fn missing(&self) -> Vec<String> {
        let pending = self.pending.lock();
        let blocking = pending.iter().filter(|(_, degraded)| degraded.is_none());
        blocking.map(|(name, _)| name.clone()).collect()
    }

    /// Names that do not block although they are not released, with the reason, sorted.
    pub fn degraded(&self) -> Vec<(String, String)> {
        let pending = self.pending.lock();
        let degraded = pending.iter();
        degraded
            .filter_map(|(name, reason)| Some((name.clone(), reason.clone()?)))
            .collect()
    }
}

/// One blocker.
#[derive(Clone, Debug)]
pub struct ReadinessGate {
    readiness: Readiness,
    name: String,
}

impl ReadinessGate {
    /// Stops blocking. Idempotent.
    pub fn release(&self) {
        if self.readiness.pending.lock().remove(&self.name).is_some() {
            tracing::debug!(blocker = %self.name, "ready");
        }
    }

    /// What blocks cannot be had for now: others go on without it. `None`: it blocks again, unless it was released.
    pub fn degrade(&self, reason: Option<&str>) {
        if let Some(degraded) = self.readiness.pending.lock().get_mut(&self.name) {
            *degraded = reason.map(str::to_owned);
        }
    }

    /// As [`Self::degrade`] with a reason, also after a release.
    pub fn fail(&self, reason: &str) {
        let mut pending = self.readiness.pending.lock();
        pending.insert(self.name.clone(), Some(reason.to_owned()));
    }
}
