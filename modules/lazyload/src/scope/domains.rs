//! Dependencies in Slime's form.

use std::collections::BTreeMap;

use trimtab_crds::fence::{Domain, DomainState};

/// The better of two states: what one reason keeps, another does not drop.
fn rank(state: DomainState) -> u8 {
    match state {
        DomainState::Active => 2,
        DomainState::ExpireWait => 1,
        DomainState::Expire => 0,
    }
}

/// Adds a dependency. A key that is there already gets the better state and the hosts of both.
pub(super) fn add(
    domains: &mut BTreeMap<String, Domain>,
    key: &str,
    state: DomainState,
    hosts: impl IntoIterator<Item = String>,
) {
    let fresh = Domain {
        hosts: Vec::new(),
        status: state,
    };
    let domain = domains.entry(key.to_owned()).or_insert(fresh);
    if rank(state) > rank(domain.status) {
        domain.status = state;
    }
    for host in hosts {
        if !domain.hosts.contains(&host) {
            domain.hosts.push(host);
        }
    }
}

/// Whether its hosts are in the Sidecar.
pub(super) fn included(state: DomainState) -> bool {
    state != DomainState::Expire
}
