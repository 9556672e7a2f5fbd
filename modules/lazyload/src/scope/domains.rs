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

/// Hosts of one dependency, in Slime's order.
#[derive(Default)]
pub(super) struct Hosts {
    /// Itself, and where its routes lead.
    pub(super) all: Vec<String>,
    /// Its aliases.
    pub(super) aliases: Vec<String>,
}

impl Hosts {
    /// Without aliases.
    pub(super) fn of(hosts: impl IntoIterator<Item = String>) -> Self {
        Self {
            all: hosts.into_iter().collect(),
            aliases: Vec::new(),
        }
    }

    /// Adds the dependency with all its hosts and, as in Slime, each alias besides, with the host that it stands for.
    pub(super) fn add(self, domains: &mut BTreeMap<String, Domain>, key: &str, state: DomainState) {
        for alias in &self.aliases {
            let host = self.all.first().cloned();
            add(
                domains,
                alias,
                state,
                [alias.clone()].into_iter().chain(host),
            );
        }
        add(
            domains,
            key,
            state,
            self.all.into_iter().chain(self.aliases),
        );
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
