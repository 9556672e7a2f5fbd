//! One budget for all answers that are in memory: those that are being read, and those that are not used up yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes of all answers together.
pub const TOTAL: usize = 64 << 20;
/// One part of this many is what the answers for one owner may take.
const OWNERS: usize = 8;
/// One part of this many is what the answers for all owners may take: what the configuration asks comes first.
const OWNED: usize = 2;

/// Bounds the memory of answers. Clones share it.
#[derive(Clone, Debug)]
pub struct AnswerBudget {
    state: Arc<Mutex<State>>,
    total: usize,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// What namespaces use whose limiters ask themselves. Empty: the configuration.
    owned: BTreeMap<Arc<str>, usize>,
}

/// A part of the budget; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: AnswerBudget,
    owner: Option<Arc<str>>,
    bytes: usize,
}

impl Default for AnswerBudget {
    fn default() -> Self {
        Self::new(TOTAL)
    }
}

impl AnswerBudget {
    /// A budget of so many bytes.
    pub fn new(total: usize) -> Self {
        Self {
            state: Arc::default(),
            total,
        }
    }

    /// Nothing yet, for an answer that is about to be read. `owner` is the namespace whose limiter asks; `None`: the
    /// configuration does.
    pub fn open(&self, owner: Option<Arc<str>>) -> Held {
        Held {
            budget: self.clone(),
            owner,
            bytes: 0,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }
}

impl Held {
    /// Takes more. False: the budget does not have it.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut state = self.budget.state.lock();
        if state.used.saturating_add(bytes) > self.budget.total {
            return false;
        }
        if let Some(owner) = &self.owner {
            let all: usize = state.owned.values().sum();
            let own = state.owned.get(owner).copied().unwrap_or_default();
            if all + bytes > self.budget.total / OWNED || own + bytes > self.budget.total / OWNERS {
                return false;
            }
            *state.owned.entry(owner.clone()).or_default() += bytes;
        }
        state.used += bytes;
        self.bytes += bytes;
        true
    }

    /// Gives all back but so many.
    pub fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        let mut state = self.budget.state.lock();
        state.used -= back;
        if let Some(owner) = &self.owner
            && let Some(own) = state.owned.get_mut(owner)
        {
            *own -= back;
            if *own == 0 {
                state.owned.remove(owner);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_t5_no_owner_takes_what_others_need_and_all_comes_back() {
        let budget = AnswerBudget::new(800);
        let mut greedy: Vec<Held> = (0..9).map(|_| budget.open(Some("a".into()))).collect();
        let grown = greedy
            .iter_mut()
            .filter_map(|held| held.grow(50).then_some(()));
        assert_eq!(grown.count(), 2, "an eighth of it");
        let mut others: Vec<Held> = ["b", "c", "d", "e", "f"]
            .map(|name| budget.open(Some(name.into())))
            .into();
        let grown = others
            .iter_mut()
            .filter_map(|held| held.grow(100).then_some(()));
        assert_eq!(grown.count(), 3, "half of it for all owners");
        let mut own = budget.open(None);
        assert!(own.grow(400));
        assert!(!own.grow(1));
        own.shrink_to(100);
        assert_eq!(budget.used(), 500);
        drop((greedy, others, own));
        assert_eq!(budget.used(), 0);
        assert!(budget.state.lock().owned.is_empty());
    }
}
