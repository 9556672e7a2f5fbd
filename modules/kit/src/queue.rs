//! A work queue in which the latest value of a key wins and a key is worked on by one worker at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
struct State<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    busy: HashSet<K>,
}

/// The queue. Its length is bounded by the number of keys.
#[derive(Debug)]
pub struct LatestQueue<K, V> {
    state: Mutex<State<K, V>>,
    wake: Notify,
}

impl<K: Clone + Eq + Hash, V> Default for LatestQueue<K, V> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                values: HashMap::new(),
                order: VecDeque::new(),
                busy: HashSet::new(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V> LatestQueue<K, V> {
    /// Puts `value` in, in place of an older one that nobody has taken.
    pub fn push(&self, key: K, value: V) {
        let mut state = self.state.lock();
        if state.values.insert(key.clone(), value).is_none() && !state.busy.contains(&key) {
            state.order.push_back(key);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Takes the next value; its key is busy until [`Self::done`].
    pub async fn pop(&self) -> (K, V) {
        loop {
            let notified = self.wake.notified();
            if let Some(item) = self.try_pop() {
                // Another worker may be asleep while there is more to do.
                self.wake.notify_one();
                return item;
            }
            notified.await;
        }
    }

    fn try_pop(&self) -> Option<(K, V)> {
        let mut state = self.state.lock();
        while let Some(key) = state.order.pop_front() {
            if let Some(value) = state.values.remove(&key) {
                state.busy.insert(key.clone());
                return Some((key, value));
            }
        }
        None
    }

    /// Frees a key.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.busy.remove(key);
        if state.values.contains_key(key) {
            state.order.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Values waiting and keys busy.
    pub fn depth(&self) -> usize {
        let state = self.state.lock();
        state.values.len() + state.busy.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_value_wins_and_a_key_is_not_shared() {
        let queue = LatestQueue::default();
        queue.push("a", 1);
        queue.push("a", 2);
        queue.push("b", 3);
        let (key, value) = queue.pop().await;
        assert_eq!((key, value), ("a", 2));
        queue.push("a", 4);
        assert_eq!(queue.pop().await, ("b", 3));
        assert!(queue.try_pop().is_none(), "a is busy");
        queue.done(&"a");
        assert_eq!(queue.pop().await, ("a", 4));
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.depth(), 0);
    }
}
