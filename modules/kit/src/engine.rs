//! The contract between a module and the driver.
//!
//! An engine keeps state and does no I/O: watches and samples change it, [`Engine::absorb`] turns changes into keys of the
//! queue, and for each key it answers what is desired at that moment. The driver does everything else: it waits for the
//! module's lists, gathers changes, writes, backs off, and reports outcomes back.
//!
//! Of several replicas one leads. On the others everything goes on but the writes: keys stay in the queue until this replica
//! leads, and are asked for then.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::answers::Changed;
use crate::queue::{Key, WorkQueue};
use crate::write::{StatusPatch, Writes};

/// How a write went: a PascalCase reason for conditions and a message, or success.
pub type WriteError = (&'static str, String);

/// What a module decides.
pub trait Engine: Send + Sync + 'static {
    /// What is reconciled.
    type Key: Key;

    /// Keys to reconcile.
    fn queue(&self) -> &WorkQueue<Self::Key>;

    /// Waits until there is something for [`Self::absorb`]: an event, or a deadline.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Changes are gathered for this long, so that a relist or a rollout is one pass.
    fn gather(&self) -> Duration {
        Duration::from_millis(20)
    }

    /// Called once, after the module's lists are complete and before the first [`Self::absorb`].
    fn prepare(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Takes changes over: decides, updates the xDS resources, and queues what must be written.
    fn absorb(&self);

    /// Whether the first results are there. Until then the process is not ready and no proxy is served.
    fn is_ready(&self) -> bool {
        true
    }

    /// What must be written for a key now.
    fn writes(self: &Arc<Self>, key: &Self::Key) -> Writes;

    /// Writes a minute that a key's lane may make; 0: as many as there are.
    fn per_minute(&self, _key: &Self::Key) -> u32 {
        0
    }

    /// How the writes of a key went.
    fn written(&self, key: &Self::Key, error: Option<WriteError>);

    /// The status to write for a key, after its objects; `None`: the one that was written says the same.
    fn status(&self, key: &Self::Key) -> Option<StatusPatch>;

    /// The API server does not take the status of a key, for it is too large. Whether [`Self::status`] has a smaller one now.
    fn shrink_status(&self, _key: &Self::Key) -> bool {
        false
    }

    /// A status is at the API server.
    fn status_written(&self, _key: &Self::Key, _status: StatusPatch) {}

    /// A key is done, with nothing left to write.
    fn done(&self, _key: &Self::Key) {}

    /// Answers of proxies have changed, see [`crate::answers::Answers`]. Called about once a second, so that a rollout is not
    /// a status for each proxy.
    fn answers_changed(&self, _changed: &Changed) {}

    /// Asks each metric source once. Only for a single pass without timers, as in `trimtab translate`.
    fn sample_once(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
