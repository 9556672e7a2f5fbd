//! Hosts by address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::registry::Registry;
use crate::scope::services::Services;

/// A host may stand under an address several times, once for each object.
type Hosts = HashMap<IpAddr, Vec<Arc<str>>>;

#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// ClusterIPs and addresses of ServiceEntries.
    virtual_: Hosts,
    /// Ranges of ServiceEntries: a mesh has few.
    ranges: Vec<(IpNet, Arc<str>)>,
    /// Endpoints.
    behind: Hosts,
}

fn add(hosts: &mut Hosts, address: IpAddr, host: &Arc<str>) {
    hosts
        .entry(address.to_canonical())
        .or_default()
        .push(host.clone());
}

fn take(hosts: &mut Hosts, address: IpAddr, host: &Arc<str>) {
    let address = address.to_canonical();
    if let Some(list) = hosts.get_mut(&address) {
        if let Some(at) = list.iter().position(|h| h == host) {
            list.remove(at);
        }
        if list.is_empty() {
            hosts.remove(&address);
        }
    }
}

impl Addresses {
    pub(super) fn set_virtual(&mut self, address: IpAddr, host: &Arc<str>, there: bool) {
        let change = if there { add } else { take };
        change(&mut self.virtual_, address, host);
    }

    pub(super) fn set_behind(&mut self, address: IpAddr, host: &Arc<str>, there: bool) {
        let change = if there { add } else { take };
        change(&mut self.behind, address, host);
    }

    pub(super) fn set_range(&mut self, range: IpNet, host: &Arc<str>, there: bool) {
        if there {
            self.ranges.push((range, host.clone()));
        } else if let Some(at) = self
            .ranges
            .iter()
            .position(|(r, h)| *r == range && h == host)
        {
            self.ranges.remove(at);
        }
    }

    /// See [`crate::object::Directory::hosts_at`].
    pub(super) fn find(&self, address: IpAddr, port: u16, registry: &Registry) -> Vec<Arc<str>> {
        let address = address.to_canonical();
        if let Some(hosts) = self.virtual_.get(&address) {
            return with_port(hosts.iter().collect(), port, registry);
        }
        let covering = || self.ranges.iter().filter(|(r, _)| r.contains(&address));
        if let Some(longest) = covering().map(|(r, _)| r.prefix_len()).max() {
            let hosts = covering().filter(|(r, _)| r.prefix_len() == longest);
            return with_port(hosts.map(|(_, h)| h).collect(), port, registry);
        }
        let behind: BTreeSet<&Arc<str>> = self.behind.get(&address).into_iter().flatten().collect();
        let headless = |h: &&&Arc<str>| registry.host(h).iter().any(|e| e.headless);
        let first: Vec<Arc<str>> = behind
            .iter()
            .filter(headless)
            .map(|h| (*h).clone())
            .collect();
        if first.is_empty() {
            behind.into_iter().cloned().collect()
        } else {
            first
        }
    }
}

/// Those with the port, when there are any: several ServiceEntries may share an address.
fn with_port(hosts: BTreeSet<&Arc<str>>, port: u16, registry: &Registry) -> Vec<Arc<str>> {
    let listens = |host: &&&Arc<str>| {
        let entries = registry.host(host);
        entries
            .iter()
            .flat_map(|e| &e.ports)
            .any(|p| p.number == port)
    };
    let matching: Vec<Arc<str>> = hosts.iter().filter(listens).map(|h| (*h).clone()).collect();
    if matching.is_empty() {
        hosts.into_iter().cloned().collect()
    } else {
        matching
    }
}
