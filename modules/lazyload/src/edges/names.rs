//! Names as small numbers, counted, so that a name nobody uses any more is forgotten.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Numbers for names. Numbers of forgotten names are given again.
#[derive(Debug)]
pub(super) struct Names<K> {
    ids: HashMap<K, u32>,
    slots: Vec<Option<(K, u32)>>,
    free: Vec<u32>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Names<K> {
    /// The number of a name.
    pub(super) fn id<Q>(&self, name: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.ids.get(name).copied()
    }

    /// The name of a number.
    pub(super) fn name(&self, id: u32) -> Option<&K> {
        let slot = self.slots.get(id as usize)?;
        slot.as_ref().map(|(name, _)| name)
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All names, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.ids.iter().map(|(name, id)| (name, *id))
    }

    /// The number of a name, new or not, used once more. `None`: there is no number left.
    pub(super) fn take(&mut self, name: &K) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            if let Some(Some((_, users))) = self.slots.get_mut(*id as usize) {
                *users += 1;
            }
            return Some(*id);
        }
        let slot = Some((name.clone(), 1));
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize] = slot;
            id
        } else {
            let id = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(slot);
            id
        };
        self.ids.insert(name.clone(), id);
        Some(id)
    }

    /// One user less; the last one takes the name along.
    pub(super) fn drop_user(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(id as usize) else {
            return;
        };
        let Some((_, users)) = slot else { return };
        *users -= 1;
        if *users == 0
            && let Some((name, _)) = slot.take()
        {
            self.ids.remove(&name);
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_and_given_again() {
        let mut names: Names<String> = Names::default();
        let a = names.take(&"a".to_owned()).unwrap();
        let b = names.take(&"b".to_owned()).unwrap();
        assert_eq!(names.take(&"a".to_owned()), Some(a));
        names.drop_user(a);
        assert_eq!(names.id("a"), Some(a));
        names.drop_user(a);
        assert_eq!((names.id("a"), names.name(a), names.len()), (None, None, 1));
        assert_eq!(names.take(&"c".to_owned()), Some(a));
        assert_eq!(names.name(b).map(String::as_str), Some("b"));
    }
}
