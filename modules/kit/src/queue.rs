//! The work queue between an engine and its writers: a key waits once however often it is added, is processed by one
//! worker at a time, and comes back after a backoff when its write failed (as client-go's rate limiting work queue).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// First backoff after a failure; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What a queue holds: the name of something to reconcile, never the work itself, so that what is written is what is
/// desired when a writer takes the key.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Display + Send + Sync + 'static {
    /// Lanes of the queue; each has its own writers, so that a lane that waits for its budget delays no other.
    const LANES: usize = 1;

    /// The lane of this key, below [`Self::LANES`].
    fn lane(&self) -> usize {
        0
    }
}

#[derive(Debug)]
struct Lane<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<K> {
    order: VecDeque<K>,
    waiting: HashSet<K>,
    processing: HashSet<K>,
    /// Failures in a row, and whether a backoff is running.
    failures: HashMap<K, (u32, bool)>,
}

/// The queue. Its length is bounded by the number of keys.
#[derive(Debug)]
pub struct WorkQueue<K> {
    lanes: Vec<Lane<K>>,
}

impl<K: Key> Default for WorkQueue<K> {
    fn default() -> Self {
        let lane = || Lane {
            state: Mutex::new(State {
                order: VecDeque::new(),
                waiting: HashSet::new(),
                processing: HashSet::new(),
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        };
        Self {
            lanes: std::iter::repeat_with(lane).take(K::LANES.max(1)).collect(),
        }
    }
}

impl<K: Key> WorkQueue<K> {
    fn lane(&self, key: &K) -> Option<&Lane<K>> {
        self.lanes.get(key.lane()).or_else(|| self.lanes.last())
    }

    /// Adds a key unless it waits already.
    pub fn push(&self, key: K) {
        let Some(lane) = self.lane(&key) else { return };
        let mut state = lane.state.lock();
        if state.waiting.insert(key.clone()) && !state.processing.contains(&key) {
            state.order.push_back(key);
        }
        drop(state);
        lane.wake.notify_one();
    }

    /// Takes the next key of a lane; no other worker gets it until [`Self::done`].
    pub async fn pop(&self, lane: usize) -> K {
        let Some(found) = self.lanes.get(lane) else {
            return std::future::pending().await;
        };
        loop {
            let notified = found.wake.notified();
            if let Some(key) = self.try_pop(lane) {
                // Another worker may be asleep while there is more to do.
                found.wake.notify_one();
                return key;
            }
            notified.await;
        }
    }

    /// As [`Self::pop`]; `None` when nothing waits.
    pub fn try_pop(&self, lane: usize) -> Option<K> {
        let mut state = self.lanes.get(lane)?.state.lock();
        let key = state.order.pop_front()?;
        state.waiting.remove(&key);
        state.processing.insert(key.clone());
        Some(key)
    }

    /// The worker is done with a key. After a failure the backoff after which to [`Self::retry`]; `None` when it
    /// succeeded or a backoff is running already.
    pub fn done(&self, key: &K, succeeded: bool) -> Option<Duration> {
        let lane = self.lane(key)?;
        let mut state = lane.state.lock();
        state.processing.remove(key);
        let again = state.waiting.contains(key);
        if again {
            state.order.push_back(key.clone());
        }
        let backoff = if succeeded {
            if state.failures.get(key).is_some_and(|(_, runs)| !runs) {
                state.failures.remove(key);
            }
            None
        } else {
            state.back_off(key)
        };
        drop(state);
        if again {
            lane.wake.notify_one();
        }
        backoff
    }

    /// The worker could not begin: the key waits again, as if it had not been taken.
    pub fn defer(&self, key: &K) {
        let Some(lane) = self.lane(key) else { return };
        let mut state = lane.state.lock();
        state.processing.remove(key);
        state.waiting.insert(key.clone());
        state.order.push_front(key.clone());
        drop(state);
        lane.wake.notify_one();
    }

    /// The backoff of a key is over: it is added again.
    pub fn retry(&self, key: K) {
        if let Some(lane) = self.lane(&key)
            && let Some((_, runs)) = lane.state.lock().failures.get_mut(&key)
        {
            *runs = false;
        }
        self.push(key);
    }

    /// Keys that wait or are being processed.
    pub fn depth(&self) -> usize {
        let depth = |lane: &Lane<K>| {
            let state = lane.state.lock();
            state.waiting.len() + state.processing.len()
        };
        self.lanes.iter().map(depth).sum()
    }
}

impl<K: Key> State<K> {
    fn back_off(&mut self, key: &K) -> Option<Duration> {
        let (failures, runs) = self.failures.entry(key.clone()).or_default();
        if *runs {
            return None;
        }
        *runs = true;
        *failures = failures.saturating_add(1);
        let doubled = FIRST_BACKOFF.saturating_mul(1 << (*failures).min(8).saturating_sub(1));
        Some(doubled.min(LONGEST_BACKOFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Key for &'static str {
        const LANES: usize = 2;

        fn lane(&self) -> usize {
            usize::from(self.starts_with("slow"))
        }
    }

    #[tokio::test]
    async fn a_key_waits_once_and_is_processed_by_one_worker() {
        let queue = WorkQueue::default();
        queue.push("a");
        queue.push("a");
        queue.push("b");
        assert_eq!(queue.pop(0).await, "a");
        queue.push("a");
        assert_eq!(queue.pop(0).await, "b");
        assert_eq!(queue.try_pop(0), None, "a is being processed");
        queue.done(&"a", true);
        assert_eq!(queue.pop(0).await, "a");
        queue.done(&"a", true);
        queue.done(&"b", true);
        assert_eq!(queue.depth(), 0);
    }

    #[test]
    fn a_key_that_could_not_begin_is_the_first_again() {
        let queue = WorkQueue::default();
        queue.push("a");
        queue.push("b");
        assert_eq!(queue.try_pop(0), Some("a"));
        queue.push("a");
        queue.defer(&"a");
        assert_eq!(queue.try_pop(0), Some("a"));
        queue.done(&"a", true);
        assert_eq!(queue.try_pop(0), Some("b"));
        assert_eq!(queue.try_pop(0), None, "it was there once");
        assert_eq!(queue.done(&"b", false), Some(FIRST_BACKOFF));
    }

    #[test]
    fn lanes_do_not_see_each_other() {
        let queue = WorkQueue::default();
        queue.push("slow");
        assert_eq!(queue.try_pop(0), None);
        assert_eq!(queue.try_pop(1), Some("slow"));
    }

    #[test]
    fn backoffs_double_up_to_a_minute_and_one_runs_at_a_time() {
        let queue = WorkQueue::default();
        assert_eq!(queue.done(&"a", false), Some(FIRST_BACKOFF));
        assert_eq!(queue.done(&"a", false), None, "one runs already");
        for _ in 0..10 {
            queue.retry("a");
            assert!(
                queue
                    .done(&"a", false)
                    .is_some_and(|p| p <= LONGEST_BACKOFF)
            );
        }
        queue.retry("a");
        assert_eq!(queue.done(&"a", false), Some(LONGEST_BACKOFF));
        queue.retry("a");
        queue.done(&"a", true);
        assert_eq!(queue.done(&"a", false), Some(FIRST_BACKOFF));
    }
}
