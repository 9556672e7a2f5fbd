//! A scope that is being made.

use std::collections::{BTreeMap, BTreeSet};

use super::imported::client;
use super::leads::View;
use super::names::{find, owner_of};
use super::services::Services;
use super::{Reason, Scope, ScopeInput};

/// A scope that is being made. How a host becomes entries: [`super::hosts`], [`super::routes`], [`super::aliases`] and
/// [`super::neighbours`].
pub(super) struct Builder<'a> {
    pub(super) input: &'a ScopeInput<'a>,
    pub(super) services: &'a dyn Services,
    pub(super) client: &'a str,
    /// VirtualServices of hosts, as far as they were followed.
    pub(super) routed: BTreeMap<String, Routed>,
    /// Hosts that the user wrote with their namespace: a registry that is not seen here may have them.
    pub(super) stated: BTreeSet<String>,
    /// Hosts that only VirtualServices have.
    pub(super) fronts: BTreeSet<String>,
    /// A namespace whose entry for everything is in: what is in it needs none of its own.
    pub(super) whole: Option<String>,
    pub(super) out: Scope,
}

/// What became of a host.
#[derive(Default)]
pub(super) struct Imported {
    /// Full name.
    pub(super) host: String,
    /// Namespace of the service.
    pub(super) owner: Option<String>,
    /// Hosts that its routes lead to.
    pub(super) redirects: BTreeSet<String>,
    /// Whether there is anything to call.
    pub(super) found: bool,
    /// Whether there is a service that the client may not see.
    pub(super) hidden: bool,
}

/// VirtualServices of a host.
#[derive(Clone, Default)]
pub(super) struct Routed {
    /// Their namespaces.
    pub(super) owners: BTreeSet<String>,
    /// Hosts that they lead to.
    pub(super) redirects: BTreeSet<String>,
}

impl Builder<'_> {
    pub(super) fn enter(&mut self, namespace: &str, host: &str, reason: &Reason) {
        if self.whole.as_deref() == Some(namespace) {
            return;
        }
        let reasons = self.out.entries.entry(format!("{namespace}/{host}"));
        reasons.or_default().insert(reason.clone());
    }

    /// The mesh as the client sees it.
    pub(super) fn view(&mut self) -> View<'_> {
        View {
            services: self.services,
            client: client(self.input),
            reads: &mut self.out.consulted,
        }
    }

    pub(super) fn find(&mut self, name: &str) -> Option<String> {
        let found = find(
            self.services,
            name,
            self.client,
            &self.input.settings.domain,
        );
        self.out.consulted.hosts.extend(found.asked);
        found.host
    }

    /// Namespace of the Service that a host is of by its name: its entry is in while the Service is away, so that one that is
    /// deleted and made again changes nothing.
    pub(super) fn kept<'h>(&self, host: &'h str) -> Option<&'h str> {
        let (_, namespace) = owner_of(host, &self.input.settings.domain)?;
        Some(namespace)
    }
}
