//! Drives the engine of a module: waits for its lists, gathers changes, writes, backs off and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use trimtab_mesh::Mesh;

use crate::answers::Changed;
use crate::apply::ApplyError;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::lease::WriteAdmission;
use crate::queue::Key;
use crate::readiness::ReadinessGate;
use crate::watch::Watch;
use crate::write::Writers;

/// Concurrent writes of a lane.
const WRITERS: usize = 16;
/// How often an engine that is not ready is asked again, and writers look for a budget at least.
const POLL: Duration = Duration::from_millis(20);
const BUDGET_POLL: Duration = Duration::from_secs(1);

/// A driver of any engine.
#[async_trait]
pub(crate) trait AnyDriver: Send + Sync {
    /// Follows changes until shutdown.
    async fn follow(self: Arc<Self>, blocker: ReadinessGate);
    /// Writes the keys of a lane until shutdown.
    async fn write(self: Arc<Self>, lane: usize);
    /// Lanes of the queue.
    fn lanes(&self) -> usize;
    /// Takes changes over, samples once and writes until nothing is left. Returns whether anything was written.
    async fn run_once(&self) -> bool;
    fn answers_changed(&self, changed: &Changed);
    /// Keys that wait or are being processed; none while another replica writes.
    fn depth(&self) -> usize;
    fn writers(&self) -> &Writers;
    /// Whether writes wait for the budget.
    fn is_throttled(&self) -> bool;
}

/// The driver of one module.
pub(crate) struct Driver<E: Engine> {
    pub(crate) module: &'static str,
    pub(crate) engine: Arc<E>,
    pub(crate) writers: Writers,
    pub(crate) watches: Vec<Arc<Watch>>,
    pub(crate) admission: WriteAdmission,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: CancellationToken,
    /// Cancelled after the first pass: tasks of the module begin.
    pub(crate) started: CancellationToken,
    pub(crate) budget: Budget,
    /// A log line says that the budget is used up.
    pub(crate) throttled: AtomicBool,
    /// Tables tell it of the MeshConfig for as long as somebody holds it.
    pub(crate) _mesh: Arc<Mesh>,
}

/// Writers in a lane that has a budget count against it together.
impl<E: Engine> Driver<E> {
    /// Waits for the module's own lists: what is decided on half a mesh would take working configuration away.
    async fn wait_for_lists(&self, blocker: &ReadinessGate) -> bool {
        for watch in &self.watches {
            while !watch.is_listed() {
                let problem = self.watches.iter().find_map(|w| {
                    let problem = w.problem()?;
                    (!w.is_listed()).then_some(problem)
                });
                blocker.degrade(problem.as_deref());
                tokio::select! {
                    () = self.shutdown.cancelled() => return false,
                    () = watch.changed() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
        blocker.degrade(None);
        true
    }

    async fn first_pass(&self, blocker: &ReadinessGate) -> bool {
        if !self.wait_for_lists(blocker).await {
            return false;
        }
        self.engine.prepare().await;
        self.engine.absorb();
        self.started.cancel();
        true
    }

    /// Waits until a write is within the budget of its lane.
    async fn spend(&self, per_minute: u32) {
        while let Some(pause) = self.budget.take(per_minute, self.clock.monotonic()) {
            if !self.throttled.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    module = self.module,
                    per_minute,
                    "write budget used up; the rest waits"
                );
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause.min(BUDGET_POLL)) => {}
            }
        }
        self.throttled.store(false, Ordering::Relaxed);
    }

    /// Writes what is desired for a key at this moment: its objects, then its status, which also reports how the objects
    /// went.
    async fn process(&self, key: &E::Key, budget: bool) -> Result<(), ApplyError> {
        let mut writes = self.engine.writes(key);
        let per_minute = self.engine.per_minute(key);
        if budget && per_minute > 0 && writes.changes(&self.writers) {
            self.spend(per_minute).await;
            // Something else may be desired after the wait.
            writes = self.engine.writes(key);
        }
        let outcome = writes.run(&self.writers).await;
        if matches!(outcome, Err(ApplyError::NotLeading { .. })) {
            return outcome;
        }
        let error = outcome.as_ref().err().map(|e| (e.reason(), e.to_string()));
        self.engine.written(key, error);
        let told = self.tell(key).await;
        // What follows does not wait for a status that will never be taken.
        if told.as_ref().is_err_and(|error| !error.is_too_large()) {
            return told;
        }
        if outcome.is_ok() {
            self.engine.done(key);
        }
        outcome.and(told)
    }

    /// Writes the status of a key, a smaller one when it is too large.
    async fn tell(&self, key: &E::Key) -> Result<(), ApplyError> {
        while let Some(status) = self.engine.status(key) {
            match status.write(&self.writers).await {
                Ok(()) => {
                    self.engine.status_written(key, status);
                    break;
                }
                Err(error) if error.is_too_large() && self.engine.shrink_status(key) => {
                    tracing::info!(module = self.module, %key, %error, "a smaller status is written");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Processes a key and queues it again after a backoff when it failed. It waits in the queue while this replica does not
    /// lead.
    async fn work(self: &Arc<Self>, key: E::Key) {
        if !self.admission.leads() {
            return self.engine.queue().defer(&key);
        }
        let result = self.process(&key, true).await;
        if let Err(ApplyError::NotLeading { .. }) = result {
            return self.engine.queue().defer(&key);
        }
        let Some(backoff) = self.engine.queue().done(&key, result.is_ok()) else {
            return;
        };
        match result {
            Ok(()) => {}
            // Its watch has said it once, for all keys.
            Err(error @ ApplyError::NotInstalled { .. }) => {
                tracing::debug!(module = self.module, %key, %error, "write waits for the CRD");
            }
            Err(error) => {
                tracing::warn!(module = self.module, %key, %error, backoff_ms = backoff.as_millis(), "write failed; backing off");
            }
        }
        let driver = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = driver.shutdown.cancelled() => {}
                () = tokio::time::sleep(backoff) => driver.engine.queue().retry(key),
            }
        });
    }
}

#[async_trait]
impl<E: Engine> AnyDriver for Driver<E> {
    async fn follow(self: Arc<Self>, blocker: ReadinessGate) {
        if !self.first_pass(&blocker).await {
            return;
        }
        let mut ready = false;
        loop {
            // Proxies that reconnect keep what they have until then: a resource that rests on nothing would take what
            // works away.
            if !ready && self.engine.is_ready() {
                ready = true;
                blocker.release();
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.engine.changed() => {}
                () = tokio::time::sleep(POLL), if !ready => continue,
            }
            tokio::time::sleep(self.engine.gather()).await;
            self.engine.absorb();
        }
    }

    async fn write(self: Arc<Self>, lane: usize) {
        tokio::select! {
            () = self.shutdown.cancelled() => return,
            () = self.started.cancelled() => {}
        }
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.admission.led() => {}
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                key = self.engine.queue().pop(lane) => self.work(key).await,
            }
        }
    }

    fn lanes(&self) -> usize {
        E::Key::LANES.max(1)
    }

    async fn run_once(&self) -> bool {
        if !self.started.is_cancelled() {
            self.engine.prepare().await;
        }
        self.engine.absorb();
        self.started.cancel();
        self.engine.sample_once().await;
        let mut any = false;
        for lane in 0..self.lanes() {
            while let Some(key) = self.engine.queue().try_pop(lane) {
                any = true;
                let result = self.process(&key, false).await;
                self.engine.queue().done(&key, true);
                if let Err(error) = result {
                    tracing::warn!(module = self.module, %key, %error, "write failed");
                }
            }
        }
        any
    }

    fn answers_changed(&self, changed: &Changed) {
        self.engine.answers_changed(changed);
    }

    fn depth(&self) -> usize {
        if self.admission.leads() {
            self.engine.queue().depth()
        } else {
            0
        }
    }

    fn writers(&self) -> &Writers {
        &self.writers
    }

    fn is_throttled(&self) -> bool {
        self.throttled.load(Ordering::Relaxed)
    }
}

/// Number of writers of each lane.
pub(crate) fn writers_per_lane() -> usize {
    WRITERS
}
