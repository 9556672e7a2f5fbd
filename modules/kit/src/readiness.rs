//! Readiness by name: the process is ready when every named blocker is released.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The set of blockers.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<String>>>,
}

impl Readiness {
    /// No blockers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a blocker; it blocks until [`Blocker::release`].
    pub fn block(&self, name: impl Into<String>) -> Blocker {
        let name = name.into();
        self.pending.lock().insert(name.clone());
        Blocker {
            readiness: self.clone(),
            name,
        }
    }

    /// Names that still block, sorted.
    pub fn missing(&self) -> Vec<String> {
        self.pending.lock().iter().cloned().collect()
    }
}

/// One blocker.
#[derive(Clone, Debug)]
pub struct Blocker {
    readiness: Readiness,
    name: String,
}

impl Blocker {
    /// Stops blocking. Idempotent.
    pub fn release(&self) {
        if self.readiness.pending.lock().remove(&self.name) {
            tracing::debug!(blocker = %self.name, "ready");
        }
    }
}
