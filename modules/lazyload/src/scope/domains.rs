//! Dependencies in Slime's form.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Its aliases, each with where its routes lead.
    pub(super) aliases: Vec<(String, BTreeSet<String>)>,
}

impl Hosts {
    /// Without aliases.
    pub(super) fn of(hosts: impl IntoIterator<Item = String>) -> Self {
        Self {
            all: hosts.into_iter().collect(),
            aliases: Vec::new(),
        }
    }

    /// Adds the dependency with all its hosts and, as in Slime, each alias besides, as a dependency of its own.
    pub(super) fn add(self, domains: &mut BTreeMap<String, Domain>, key: &str, state: DomainState) {
        for (alias, redirects) in &self.aliases {
            let own = std::iter::once(alias).chain(redirects);
            add(domains, alias, state, own.cloned());
        }
        let aliases = self.aliases.into_iter().map(|(alias, _)| alias);
        add(domains, key, state, self.all.into_iter().chain(aliases));
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
