//! Hosts that pods need whatever they call.

use trimtab_mesh::names::service_of;

use super::builder::Builder;
use super::{Reason, Warning};

/// A host that pods need whatever they call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Required {
    /// The full host, as a service has it.
    pub host: String,
    /// Namespace of the service; `None`: of those that have the host, the one that a client in the fence's namespace gets.
    pub namespace: Option<String>,
    /// Why.
    pub reason: Reason,
    /// Whether the pods call it: then its VirtualServices count too. Proxies themselves ask its cluster, without routes.
    pub called: bool,
}

impl Builder<'_> {
    /// What pods need whatever they call. Nobody says these names in a client's place, so that short ones mean nothing.
    pub(super) fn required(&mut self) {
        for required in self.input.required {
            let Required {
                host,
                namespace,
                reason,
                called,
            } = required;
            self.out.consulted.hosts.insert(host.clone());
            let mut entries = self.services.host(host);
            let there = !entries.is_empty();
            // An ExternalName has no cluster.
            entries.retain(|entry| *called || entry.target.is_none());
            let wanted = |owner: &str| namespace.as_ref().is_none_or(|n| n == owner);
            let known = entries.iter().any(|e| wanted(&e.namespace));
            if let Some(entry) = self.choose(host, namespace.as_deref(), entries) {
                if *called {
                    self.bring(&entry, reason);
                } else {
                    self.enter(&entry.namespace, &entry.host, reason);
                }
            } else if !known {
                let (of, host) = (reason.to_string(), host.clone());
                // A Service that is deleted and made again changes nothing.
                let service = service_of(&host, &self.input.settings.domain);
                if let Some((_, owner)) = service.filter(|_| !there) {
                    self.enter(owner, &host, reason);
                }
                self.out.warnings.insert(Warning::NoCluster { of, host });
            }
        }
    }
}
