//! Which writes may begin.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::timing::Timing;
use crate::clock::Clock;

/// Time limit of one call to the API server where nobody else writes: kube's client has none of its own and retries in silence.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// That this process leads; times are of its monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Grows with each change of the leader.
    pub epoch: i32,
    /// Writes begin before then: the renew deadline.
    pub begin_until: Duration,
    /// Another replica may lead from then on, at the earliest.
    pub valid_until: Duration,
}

impl Leadership {
    /// Whether a write of this length may begin.
    pub fn admits(&self, now: Duration, limit: Duration) -> bool {
        now < self.begin_until && now + limit <= self.valid_until
    }
}

/// A write may not begin: another replica leads, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead")]
pub struct NotLeading;

/// All writes of the process pass [`Self::admit`].
#[derive(Clone)]
pub struct WriteAdmission(Option<Arc<Elected>>);

struct Elected {
    leadership: watch::Receiver<Option<Leadership>>,
    running: watch::Sender<Running>,
    clock: Arc<dyn Clock>,
    limit: Duration,
}

#[derive(Debug, Default)]
struct Running {
    writes: usize,
    /// None begins any more.
    closed: bool,
}

impl Debug for WriteAdmission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteAdmission")
            .field("elected", &self.0.is_some())
            .field("leads", &self.leads())
            .finish()
    }
}

impl Default for WriteAdmission {
    fn default() -> Self {
        Self::always()
    }
}

impl WriteAdmission {
    /// Of the only replica.
    pub fn always() -> Self {
        Self(None)
    }

    /// While `leadership` says so.
    pub fn elected(
        leadership: watch::Receiver<Option<Leadership>>,
        timing: &Timing,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Some(Arc::new(Elected {
            leadership,
            running: watch::Sender::default(),
            clock,
            limit: timing.write_limit,
        })))
    }

    /// Whether leaders are elected.
    pub fn is_elected(&self) -> bool {
        self.0.is_some()
    }

    /// Leave to begin one write now. It must end within the time limit of the permit.
    pub fn admit(&self) -> Result<Permit, NotLeading> {
        let Some(elected) = &self.0 else {
            return Ok(Permit {
                limit: CALL_LIMIT,
                elected: None,
            });
        };
        if !elected.admits() {
            return Err(NotLeading);
        }
        let begun = elected.running.send_if_modified(|running| {
            running.writes += usize::from(!running.closed);
            !running.closed
        });
        if !begun {
            return Err(NotLeading);
        }
        Ok(Permit {
            limit: elected.limit,
            elected: Some(elected.clone()),
        })
    }

    /// Whether a write could begin now.
    pub fn leads(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|elected| elected.admits() && !elected.running.borrow().closed)
    }

    /// Waits until a write could begin.
    pub async fn led(&self) {
        let Some(elected) = &self.0 else { return };
        let mut leadership = elected.leadership.clone();
        loop {
            // Marked as seen before it is looked at, so that no change between the two is missed.
            leadership.borrow_and_update();
            if self.leads() {
                return;
            }
            if leadership.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until this replica leads no more.
    pub async fn deposed(&self) {
        let Some(elected) = &self.0 else {
            return std::future::pending().await;
        };
        let mut leadership = elected.leadership.clone();
        // The sender ends with the process.
        let _ = leadership.wait_for(Option::is_none).await;
    }

    /// Waits until this replica begins or ceases to lead.
    pub async fn turned(&self, led: bool) {
        if led {
            self.deposed().await;
        } else {
            self.led().await;
        }
    }

    /// Lets no write begin any more and waits for those under way.
    pub(super) async fn close(&self) {
        let Some(elected) = &self.0 else { return };
        elected.running.send_modify(|running| running.closed = true);
        let mut running = elected.running.subscribe();
        // Each has a time limit.
        let _ = running.wait_for(|running| running.writes == 0).await;
    }
}

impl Elected {
    fn admits(&self) -> bool {
        let leadership = *self.leadership.borrow();
        leadership.is_some_and(|l| l.admits(self.clock.monotonic(), self.limit))
    }
}

/// Leave for one write, for as long as it lives.
pub struct Permit {
    limit: Duration,
    elected: Option<Arc<Elected>>,
}

impl Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Permit").field(&self.limit).finish()
    }
}

impl Permit {
    /// Time limit of the write.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(elected) = &self.elected {
            elected.running.send_modify(|running| running.writes -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn leadership(begin: u64, valid: u64) -> Leadership {
        Leadership {
            epoch: 1,
            begin_until: Duration::from_secs(begin),
            valid_until: Duration::from_secs(valid),
        }
    }

    #[tokio::test]
    async fn a_write_begins_only_if_it_can_end_in_time() {
        let clock = ManualClock::default();
        let (sender, receiver) = watch::channel(None);
        let timing = Timing::default();
        let admission = WriteAdmission::elected(receiver, &timing, Arc::new(clock.clone()));
        assert_eq!(admission.admit().err(), Some(NotLeading));
        sender.send_replace(Some(leadership(10, 15)));
        admission.led().await;
        let permit = admission.admit().unwrap();
        assert_eq!(permit.limit(), timing.write_limit);
        // Nobody has said yet that it is over: a process that was stopped looks at the clock itself.
        clock.advance(Duration::from_secs(10));
        assert_eq!(admission.admit().err(), Some(NotLeading));
        sender.send_replace(Some(leadership(20, 13)));
        assert!(!admission.leads(), "another may lead in three seconds");
        sender.send_replace(Some(leadership(20, 25)));
        assert!(admission.leads());
        let closing = admission.close();
        let mut closing = std::pin::pin!(closing);
        assert!(
            futures::poll!(&mut closing).is_pending(),
            "a write is under way"
        );
        assert!(!admission.leads());
        assert_eq!(admission.admit().err(), Some(NotLeading));
        drop(permit);
        closing.await;
    }

    #[tokio::test]
    async fn the_only_replica_always_writes() {
        let admission = WriteAdmission::always();
        admission.led().await;
        assert_eq!(admission.admit().unwrap().limit(), CALL_LIMIT);
        assert!(futures::poll!(std::pin::pin!(admission.deposed())).is_pending());
    }
}
