//! What istiod decides by the order of a Go map, so that each push may decide it anew.
//!
//! Services of one ServiceEntry (one for each address), and of several with one host, namespace and age, sort alike
//! (`SortServicesByCreationTime`), and come from a map. Of ServiceEntries of one age in several namespaces a route leads to
//! the one that a walk through a map finds first (`pickBestVisibleNamespace`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scope::services::{HostEntry, Registry, Services};

/// Of more, each comes first once.
const ALL_ORDERS: usize = 3;

/// Something that istiod may decide in several ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undecided {
    /// The order of services of a host in a namespace.
    Order(Arc<str>, Arc<str>),
    /// Which namespace's services of a host a route leads to.
    Namespace(Arc<str>),
}

impl Undecided {
    /// The host.
    pub fn host(&self) -> &str {
        match self {
            Self::Order(_, host) | Self::Namespace(host) => host,
        }
    }
}

/// How it is decided, and what was asked. Whatever is not said is decided in the first way.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    said: BTreeMap<Undecided, usize>,
    asked: RefCell<BTreeMap<Undecided, usize>>,
}

impl Decisions {
    /// One thing is decided in another way than the first.
    pub(super) fn but(what: Undecided, way: usize) -> Self {
        Self {
            said: BTreeMap::from([(what, way)]),
            ..Self::default()
        }
    }

    /// One of several ways.
    pub(super) fn way(&self, what: Undecided, ways: usize) -> usize {
        if ways < 2 {
            return 0;
        }
        let said = self.said.get(&what).copied().unwrap_or_default();
        self.asked.borrow_mut().insert(what, ways);
        said.min(ways - 1)
    }

    /// What was asked, and in how many ways it may be decided.
    pub(super) fn into_asked(self) -> BTreeMap<Undecided, usize> {
        self.asked.into_inner()
    }
}

/// Places of the services of an entry, one for each address, among those that sort alike.
pub(super) fn places(
    entry: &Arc<HostEntry>,
    services: &dyn Services,
    decisions: &Decisions,
) -> Vec<usize> {
    let own = entry.addresses.len().max(1);
    if entry.registry == Registry::Kubernetes {
        return vec![0];
    }
    let all = services.host(&entry.host);
    let alike = all.iter().filter(|e| {
        let same = |e: &HostEntry| (e.registry, e.namespace.clone(), e.created);
        same(e) == same(entry)
    });
    let (mut before, mut count) = (0, 0);
    for other in alike {
        if Arc::ptr_eq(other, entry) {
            before = count;
        }
        count += other.addresses.len().max(1);
    }
    let what = Undecided::Order(entry.namespace.clone(), entry.host.clone());
    let way = decisions.way(what, ways(count));
    (before..before + own)
        .map(|at| place(at, count, way))
        .collect()
}

fn ways(count: usize) -> usize {
    if count <= ALL_ORDERS {
        (1..=count).product()
    } else {
        count
    }
}

/// Where the one at `at` of `count` comes in one of the ways.
fn place(at: usize, count: usize, way: usize) -> usize {
    if count > ALL_ORDERS {
        return (at + way) % count;
    }
    // The digits of the way say for each place which of those that are left takes it.
    let mut left: Vec<usize> = (0..count).collect();
    let mut way = way;
    for place in 0..count {
        let taken = left.remove(way % left.len());
        way /= left.len() + 1;
        if taken == at {
            return place;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{place, ways};

    #[test]
    fn each_way_is_another_order() {
        for count in 1..6 {
            let order = |way| {
                (0..count)
                    .map(|at| place(at, count, way))
                    .collect::<Vec<_>>()
            };
            let orders: BTreeSet<Vec<usize>> = (0..ways(count)).map(order).collect();
            assert_eq!(orders.len(), ways(count), "{count}");
            for order in orders {
                let places: BTreeSet<usize> = order.iter().copied().collect();
                assert_eq!(places, (0..count).collect());
            }
            assert_eq!(order(0), (0..count).collect::<Vec<_>>(), "as written");
        }
    }
}
