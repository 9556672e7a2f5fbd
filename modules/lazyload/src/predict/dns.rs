//! What the proxy's DNS knows (`pkg/dns/server/name_table.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::import::Imported;
use crate::scope::services::Registry;

/// Addresses by host. Hosts without an address of their own are left to other DNS servers; pods of headless services, and
/// addresses that Istio gives to ServiceEntries for proxies that capture DNS, are not predicted.
pub(super) fn table(imported: &Imported) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut out: BTreeMap<String, (Registry, BTreeSet<IpAddr>)> = BTreeMap::new();
    for service in &imported.listed {
        let single = service
            .addresses
            .iter()
            .filter(|a| a.prefix_len() == a.max_prefix_len());
        let addresses: BTreeSet<IpAddr> = single.map(ipnet::IpNet::addr).collect();
        if addresses.is_empty() {
            continue;
        }
        let registry = service.entry.registry;
        match out.get_mut(&**service.host()) {
            None => {
                out.insert(service.host().to_string(), (registry, addresses));
            }
            Some((Registry::Kubernetes, _)) => {}
            Some(old) if registry == Registry::Kubernetes => *old = (registry, addresses),
            Some((_, old)) => old.extend(addresses),
        }
    }
    out.into_iter()
        .map(|(host, (_, addresses))| (host, addresses))
        .collect()
}
