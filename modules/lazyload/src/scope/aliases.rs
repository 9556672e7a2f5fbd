//! ExternalNames (R5, R6). One has no cluster: its names are domains of the service that it stands for in the end, and only
//! the entries of that service's namespace keep them.

use super::builder::Builder;
use super::leads::{End, Led};
use super::services::HostEntry;
use super::{Reason, Warning};

impl Builder<'_> {
    /// Calls to an ExternalName: its host by an entry of the namespace of the service behind it. Its own namespace counts
    /// only where a VirtualService is for the ExternalName, which then has a virtual host of its own.
    pub(super) fn alias(&mut self, alias: &HostEntry, reason: &Reason) {
        let mut own = self.view().routes(&alias.host);
        own.retain(|route| self.reaches(route, &alias.host));
        if !own.is_empty() {
            self.enter(&alias.namespace, &alias.host, reason);
        }
        match self.view().end(alias) {
            End::Host(host) => {
                let because = Reason::Target(alias.host.to_string());
                if let Some(owner) = self.import(&host, &because).owner {
                    self.enter(&owner, &alias.host, reason);
                }
                // Without a service behind it, it is like a host of VirtualServices alone.
                let behind = self.taken(self.services.host(&host));
                if behind.is_empty() && own.iter().any(|route| !route.http.is_empty()) {
                    self.fronts.insert(alias.host.to_string());
                }
            }
            End::Circle => {
                let host = alias.host.to_string();
                self.out.warnings.insert(Warning::Circle { host });
            }
        }
    }

    /// A route to an ExternalName is one to the service behind it when both are in by entries. One step: Istio does not
    /// follow an ExternalName that stands for another.
    pub(super) fn led_to_alias(&mut self, led: &Led, reason: &Reason) {
        let Some(alias) = self.view().entry(&led.host) else {
            return;
        };
        let Some(host) = self.view().target(&alias) else {
            return;
        };
        let next = self.services.host(&host);
        if next.iter().any(|e| e.target.is_some()) {
            if let Reason::Route(route, _) = reason {
                self.out.warnings.insert(Warning::AliasOfAlias {
                    route: route.clone(),
                    host: led.host.to_string(),
                    target: host,
                });
            }
            return;
        }
        if next.is_empty() && self.kept(&host).is_none() {
            return;
        }
        let because = Reason::Target(alias.host.to_string());
        if self.import(&host, &because).owner.is_some() {
            self.enter(&alias.namespace, &alias.host, reason);
        }
    }
}
