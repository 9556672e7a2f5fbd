//! Addresses for hosts that have none. Pure: who has which address goes in, what to change comes out.
//!
//! The addresses stand in the objects themselves (`spec.addresses` of a ServiceEntry), so that nothing else has to be
//! kept: after a restart the same objects give no change. A host keeps its address for as long as its object has it.
//! New addresses start at a place that depends on the host, so that replicas and a second run agree.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trimtab_kit::problem::Problem;
use xxhash_rust::xxh3::xxh3_64;

/// Ranges to take from; an absent one gives no address of that family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Ranges {
    /// For example `240.241.0.0/16`; istiod itself uses `240.240.0.0/16`.
    pub v4: Option<Ipv4Net>,
    /// For example `fd00:7472:696d::/64`.
    pub v6: Option<Ipv6Net>,
}

/// An object that may need addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it was made: of two with one address, the older keeps it.
    pub created: Option<Timestamp>,
    /// What it has.
    pub addresses: Vec<IpAddr>,
    /// Whether it may be given addresses; else it only has what it has.
    pub managed: bool,
}

/// A change of one object's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// All addresses that it shall have.
    pub addresses: Vec<IpAddr>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Sorted by namespace and name.
    pub assignments: Vec<Assignment>,
    /// Objects for which a range is full.
    pub problems: Vec<Problem>,
}

/// Gives addresses to `entries` that have none, and new ones to the younger of two with the same. `taken` are addresses
/// of Services.
///
/// An object with addresses that are all out of the ranges belongs to its user and is left alone.
pub fn allocate(ranges: &Ranges, entries: &[Entry], taken: &BTreeSet<IpAddr>) -> Allocation {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    // Objects without a time are new: they are last.
    sorted.sort_by_key(|e| (e.created.is_none(), e.created, &e.namespace, &e.name));
    let mut used: BTreeSet<IpAddr> = taken.clone();
    for entry in entries {
        used.extend(entry.addresses.iter().filter(|a| !ranges.contains(**a)));
    }
    // First everyone keeps what they may keep, oldest first; only then new addresses are taken.
    let mut kept: Vec<(&Entry, Vec<IpAddr>)> = Vec::new();
    for entry in sorted {
        if !entry.managed {
            used.extend(&entry.addresses);
            continue;
        }
        let own = entry.addresses.iter().copied();
        let addresses = own
            .filter(|a| !ranges.contains(*a) || used.insert(*a))
            .collect();
        kept.push((entry, addresses));
    }
    kept.sort_by_key(|(e, _)| (&e.namespace, &e.name));
    let mut out = Allocation::default();
    for (entry, mut addresses) in kept {
        let users_own =
            !entry.addresses.is_empty() && entry.addresses.iter().all(|a| !ranges.contains(*a));
        if !users_own {
            fill(ranges, entry, &mut addresses, &mut used, &mut out.problems);
        }
        if addresses != entry.addresses {
            out.assignments.push(Assignment {
                namespace: entry.namespace.clone(),
                name: entry.name.clone(),
                addresses,
            });
        }
    }
    out
}

/// Adds an address of each family that has a range and none yet.
fn fill(
    ranges: &Ranges,
    entry: &Entry,
    addresses: &mut Vec<IpAddr>,
    used: &mut BTreeSet<IpAddr>,
    problems: &mut Vec<Problem>,
) {
    let seed = xxh3_64(format!("{}/{}", entry.namespace, entry.name).as_bytes());
    if let Some(net) = ranges.v4
        && !addresses.iter().any(IpAddr::is_ipv4)
    {
        match free_v4(net, seed, used) {
            Some(address) => addresses.push(address),
            None => problems.push(full(entry, &net.to_string())),
        }
    }
    if let Some(net) = ranges.v6
        && !addresses.iter().any(IpAddr::is_ipv6)
    {
        match free_v6(net, seed, used) {
            Some(address) => addresses.push(address),
            None => problems.push(full(entry, &net.to_string())),
        }
    }
}

fn full(entry: &Entry, range: &str) -> Problem {
    Problem::new(
        format!("ServiceEntry {}/{}", entry.namespace, entry.name),
        "spec.addresses",
        "RangeFull",
        format!("no address of {range} is free: configure a larger range, or set spec.addresses"),
    )
}

/// Numbers of a range that may be given: not the first and, for IPv4, not the last.
fn free_v4(net: Ipv4Net, seed: u64, used: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
    let base = u32::from(net.network());
    let all = 1_u64 << (32 - u32::from(net.prefix_len()));
    let usable = all.checked_sub(2)?;
    probe(usable, seed, used, |n| {
        let offset = u32::try_from(n + 1).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from(base.saturating_add(offset)))
    })
}

fn free_v6(net: Ipv6Net, seed: u64, used: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
    let base = u128::from(net.network());
    let bits = 128 - u32::from(net.prefix_len());
    let usable = if bits >= 64 {
        u64::MAX
    } else {
        (1_u64 << bits) - 1
    };
    probe(usable, seed, used, |n| {
        IpAddr::V6(Ipv6Addr::from(base.saturating_add(u128::from(n) + 1)))
    })
}

/// The first free number from `seed` on. There are at most as many used ones as there are tries.
fn probe(
    usable: u64,
    seed: u64,
    used: &mut BTreeSet<IpAddr>,
    address: impl Fn(u64) -> IpAddr,
) -> Option<IpAddr> {
    let start = seed.checked_rem(usable)?;
    let tries = usable.min(used.len() as u64 + 1);
    for i in 0..tries {
        let n = u64::try_from((u128::from(start) + u128::from(i)) % u128::from(usable)).ok()?;
        let found = address(n);
        if used.insert(found) {
            return Some(found);
        }
    }
    None
}

impl Ranges {
    /// Whether `address` is of one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.is_some_and(|net| net.contains(&a)),
            IpAddr::V6(a) => self.v6.is_some_and(|net| net.contains(&a)),
        }
    }
}

#[cfg(test)]
mod tests;
