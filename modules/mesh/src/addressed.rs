//! Objects found by the addresses that callers reach them at.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::table::{ByKey, Change, HasKeys, Index, Keyed, Row, Rows};

/// Rows with addresses that callers use.
pub trait Addressed {
    /// Single addresses; one may come twice.
    fn single(&self) -> impl Iterator<Item = IpAddr>;

    /// Ranges of addresses.
    fn ranges(&self) -> impl Iterator<Item = IpNet> {
        std::iter::empty()
    }
}

/// Rows by their addresses. An IPv4 address is found also as it is written in IPv6.
#[derive(Debug)]
pub struct ByAddress<R> {
    single: HashMap<IpAddr, Vec<Arc<R>>>,
    /// A mesh has few.
    ranges: Vec<(IpNet, Arc<R>)>,
}

impl<R> Default for ByAddress<R> {
    fn default() -> Self {
        Self {
            single: HashMap::new(),
            ranges: Vec::new(),
        }
    }
}

impl<R: Addressed + Debug + Send + Sync> Index<R> for ByAddress<R> {
    fn change(&mut self, change: &Change<'_, R>) {
        if let Some(old) = change.old {
            self.ranges.retain(|(_, row)| !Arc::ptr_eq(row, old));
            for address in old.single().map(|a| a.to_canonical()) {
                if let Some(rows) = self.single.get_mut(&address) {
                    rows.retain(|row| !Arc::ptr_eq(row, old));
                    if rows.is_empty() {
                        self.single.remove(&address);
                    }
                }
            }
        }
        let Some(new) = change.new else { return };
        let ranges = new.ranges().map(|range| (range, new.clone()));
        self.ranges.extend(ranges);
        for address in new.single().map(|a| a.to_canonical()) {
            let rows = self.single.entry(address).or_default();
            if !rows.iter().any(|row| Arc::ptr_eq(row, new)) {
                rows.push(new.clone());
            }
        }
    }
}

impl<R> ByAddress<R> {
    /// Rows that have an address, or a range with it, in no order.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<R>> {
        let address = address.to_canonical();
        let ranges = self.ranges.iter();
        let covering = ranges.filter(move |(range, _)| range.contains(&address));
        let single = self.single.get(&address).into_iter().flatten();
        single.chain(covering.map(|(_, row)| row))
    }

    /// Rows with an address in a range, in no order; a row may come several times.
    pub fn within(&self, range: IpNet) -> impl Iterator<Item = &Arc<R>> {
        let single = self.single.iter();
        let inside = single.filter(move |(address, _)| range.contains(*address));
        inside.flat_map(|(_, rows)| rows)
    }
}

/// Rows that are found by keys and by addresses.
#[derive(Debug)]
pub struct KeysAndAddresses<R> {
    keys: ByKey,
    addresses: ByAddress<R>,
}

impl<R> Default for KeysAndAddresses<R> {
    fn default() -> Self {
        Self {
            keys: ByKey::default(),
            addresses: ByAddress::default(),
        }
    }
}

impl<R: Keyed + Addressed + Debug + Send + Sync> Index<R> for KeysAndAddresses<R> {
    fn change(&mut self, change: &Change<'_, R>) {
        self.keys.change(change);
        self.addresses.change(change);
    }
}

impl<R> HasKeys for KeysAndAddresses<R> {
    fn by_key(&self) -> &ByKey {
        &self.keys
    }
}

/// Indexes that find rows by their addresses.
pub trait HasAddresses<R> {
    /// Rows by addresses.
    fn by_address(&self) -> &ByAddress<R>;
}

impl<R> HasAddresses<R> for ByAddress<R> {
    fn by_address(&self) -> &ByAddress<R> {
        self
    }
}

impl<R> HasAddresses<R> for KeysAndAddresses<R> {
    fn by_address(&self) -> &ByAddress<R> {
        &self.addresses
    }
}

impl<R: Row<Index: HasAddresses<R>>> Rows<R> {
    /// Rows by the addresses that callers reach them at.
    pub fn by_address(&self) -> &ByAddress<R> {
        self.index().by_address()
    }
}
