//! Names with their variants, sorted, in chunks that copies share.
//!
//! A copy costs nothing and stays as it was while the original changes, so a stream remembers what its client holds by
//! keeping the roster of that moment: no memory for each name and stream.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::entry::Variants;

/// Most names in a chunk. A change copies one chunk and the list of chunks if a stream still holds the state before.
const CHUNK: usize = 128;

type Chunk = Arc<Vec<Variants>>;

fn first(chunk: &Chunk) -> &[u8] {
    chunk.first().map_or(&[], Variants::key)
}

/// A set of names; lookups and changes are O(log n), a change of a shared roster also copies O(chunk + n / chunk) pointers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    chunks: Arc<Vec<Chunk>>,
    len: usize,
}

/// A place in a roster, between two names or at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    chunk: usize,
    item: usize,
}

impl Place {
    /// After all names of any roster.
    pub(crate) const END: Self = Self {
        chunk: usize::MAX,
        item: 0,
    };
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where a name is, or where it would be: in an existing chunk if there is any.
    fn place(&self, key: &[u8]) -> Result<Place, Place> {
        let chunk = self.chunks.partition_point(|chunk| first(chunk) <= key);
        let chunk = chunk.saturating_sub(1);
        let items = self.chunks.get(chunk).map_or(&[][..], |items| items);
        match items.binary_search_by(|variants| variants.key().cmp(key)) {
            Ok(item) => Ok(Place { chunk, item }),
            Err(item) => Err(Place { chunk, item }),
        }
    }

    /// What a name has, and where it is.
    pub(crate) fn find(&self, name: &str) -> Option<(Place, &Variants)> {
        let place = self.place(name.as_bytes()).ok()?;
        Some((place, self.chunks.get(place.chunk)?.get(place.item)?))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Variants> {
        self.find(name).map(|(_, variants)| variants)
    }

    /// Returns what the name had before.
    pub(crate) fn insert(&mut self, variants: Variants) -> Option<Variants> {
        let place = self.place(variants.key());
        let chunks = Arc::make_mut(&mut self.chunks);
        match place {
            Ok(Place { chunk, item }) => {
                let old = Arc::make_mut(chunks.get_mut(chunk)?).get_mut(item)?;
                return Some(std::mem::replace(old, variants));
            }
            Err(Place { chunk, item }) => {
                self.len += 1;
                let Some(items) = chunks.get_mut(chunk) else {
                    chunks.push(Arc::new(vec![variants]));
                    return None;
                };
                if items.len() < CHUNK {
                    Arc::make_mut(items).insert(item, variants);
                } else if item == CHUNK {
                    // Names often come sorted, and then chunks become full.
                    chunks.insert(chunk + 1, Arc::new(vec![variants]));
                } else {
                    let mut low = items.to_vec();
                    let mut high = low.split_off(CHUNK / 2);
                    match item.checked_sub(CHUNK / 2) {
                        Some(item) => high.insert(item, variants),
                        None => low.insert(item, variants),
                    }
                    *items = Arc::new(low);
                    chunks.insert(chunk + 1, Arc::new(high));
                }
            }
        }
        None
    }

    /// Returns what the name had.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Variants> {
        let Place { chunk, item } = self.place(name.as_bytes()).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let items = Arc::make_mut(chunks.get_mut(chunk)?);
        let old = items.remove(item);
        let left = items.len();
        self.len -= 1;
        // Neighbours that fit well into one become one, so that a roster that shrinks has fewer chunks.
        let next = chunks.get(chunk + 1).map_or(CHUNK, |next| next.len());
        if left == 0 {
            chunks.remove(chunk);
        } else if left + next <= CHUNK / 2 {
            let next = chunks.remove(chunk + 1);
            Arc::make_mut(chunks.get_mut(chunk)?).extend(next.iter().cloned());
        }
        Some(old)
    }

    /// All names with their variants, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Variants> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The names from a place on, each with the place after it.
    pub(crate) fn from(&self, place: Place) -> impl Iterator<Item = (Place, &Variants)> {
        let chunks = self.chunks.iter().enumerate().skip(place.chunk);
        chunks.flat_map(move |(number, chunk)| {
            let skip = if number == place.chunk { place.item } else { 0 };
            let items = chunk.iter().enumerate().skip(skip);
            items.map(move |(item, variants)| {
                let after = Place {
                    chunk: number,
                    item: item + 1,
                };
                (after, variants)
            })
        })
    }

    /// Every name of which two rosters differ, and perhaps some others: O(differing chunks + n / chunk).
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut found = Vec::new();
        let (mut mine, mut theirs) = (
            self.chunks.iter().peekable(),
            other.chunks.iter().peekable(),
        );
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                    mine.next();
                    theirs.next();
                    continue;
                }
                (Some(a), Some(b)) => first(a).cmp(first(b)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return found,
            };
            let chunk = if order == Ordering::Greater {
                theirs.next()
            } else {
                mine.next()
            };
            found.extend(
                chunk
                    .iter()
                    .flat_map(|chunk| chunk.iter())
                    .map(Variants::name),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Instant;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Entry;
    use crate::scope::Scope;
    use crate::table::Resource;

    fn variants(name: &str, version: &str) -> Variants {
        let resource = Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            body: Bytes::new(),
            origin: String::new(),
        };
        let entry = Entry::new(&resource, Scope::All, Instant::now());
        Variants::One(Arc::new(entry))
    }

    fn content(roster: &Roster) -> BTreeMap<String, String> {
        let text = |variants: &Variants| variants.all()[0].version().to_owned();
        let content = roster.iter().map(|v| (v.name().to_owned(), text(v)));
        content.collect()
    }

    proptest! {
        /// Runs of names, as chunks only split and merge when there are many.
        #[test]
        fn a_roster_is_a_map_and_its_copies_stay(
            steps in prop::collection::vec((0..900_u32, 1..300_u32, any::<bool>(), any::<bool>()), 1..25)
        ) {
            let mut roster = Roster::default();
            let mut model = BTreeMap::new();
            for (number, (start, run, set, backwards)) in steps.into_iter().enumerate() {
                let before = (roster.clone(), model.clone());
                for index in 0..run {
                    let index = start + if backwards { run - index } else { index };
                    let (name, version) = (format!("n{index:05}"), number.to_string());
                    let old = if set {
                        let old = roster.insert(variants(&name, &version));
                        prop_assert_eq!(roster.get(&name).map(Variants::name), Some(&*name));
                        old.is_some() == model.insert(name, version).is_some()
                    } else {
                        roster.remove(&name).is_some() == model.remove(&name).is_some()
                    };
                    prop_assert!(old);
                }
                prop_assert_eq!(content(&roster), model.clone());
                prop_assert_eq!(content(&before.0), before.1.clone());
                prop_assert_eq!(roster.len(), model.len());
                let told: BTreeSet<&str> = roster.differing(&before.0).into_iter().collect();
                let names = model.keys().chain(before.1.keys());
                for name in names.filter(|name| model.get(*name) != before.1.get(*name)) {
                    prop_assert!(told.contains(name.as_str()), "{name}");
                }
            }
            let names: Vec<&str> = model.keys().map(String::as_str).collect();
            let mut place = Place::default();
            for (number, name) in names.iter().enumerate() {
                let rest: Vec<&str> = roster.from(place).map(|(_, v)| v.name()).collect();
                prop_assert_eq!(&rest, &names[number..]);
                prop_assert!(roster.find(name).is_some_and(|(at, _)| at >= place));
                let next = roster.from(place).next().map(|(after, _)| after);
                place = next.unwrap_or(Place::END);
                prop_assert!(roster.find(name).is_some_and(|(at, _)| at < place));
                if number > 40 { break; }
            }
            prop_assert!(roster.differing(&roster.clone()).is_empty());
        }
    }
}
