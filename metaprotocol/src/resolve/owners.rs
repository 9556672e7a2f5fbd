//! Who decides on a host, which addresses are its own, and what those are told who are not its owner.

use std::collections::BTreeSet;
use std::net::IpAddr;

use trimtab_kit::problem::Problem;
use trimtab_mesh::owners::{Addresses, Claim};

use super::Mesh;
use super::hosts::Host;
use crate::input::{Endpoint, ServicePortInput, Source};
use crate::owner::Owner;

impl Host {
    /// The Service or ServiceEntry, for messages.
    pub(super) fn object(&self) -> String {
        format!(
            "{} {}/{}",
            self.source.as_str(),
            self.namespace,
            self.service
        )
    }

    /// The namespaces that see it.
    pub(super) fn visible_to(&self) -> Option<BTreeSet<String>> {
        let clients = self.exports.clients(&self.namespace)?;
        Some(clients.map(str::to_owned).collect())
    }
}

/// What an object is told that is not of the host's namespace.
pub(super) fn not_owner(
    mesh: &Mesh,
    owner: Owner,
    field: impl Into<String>,
    what: &str,
    host: &Host,
) -> Problem {
    let of = (host.name.as_str(), &*host.object(), host.namespace.as_str());
    let message = mesh.settings.trust().refusal(&owner.namespace, of, what);
    Problem::new(owner, field, "NotOwner", message)
}

impl Mesh {
    /// Whether an object of `namespace` decides on a host.
    pub(super) fn decides(&self, namespace: Option<&str>, host: &Host) -> bool {
        let trust = self.settings.trust();
        trust.decides(namespace.unwrap_or_default(), &host.namespace)
    }

    /// Takes out of `input` what is another's: addresses, and an older router of somebody who does not decide any more.
    pub(super) fn keep_own(
        &self,
        host: &Host,
        addresses: &Addresses,
        input: &mut ServicePortInput,
        problems: &mut Vec<Problem>,
    ) {
        let last = input.last_good.as_deref();
        if last.is_some_and(|l| !self.decides(Some(&l.owner.namespace), host)) {
            input.last_good = None;
        }
        if !input.managed() {
            return;
        }
        let port = input.port.number;
        let mut own = |address: IpAddr| {
            let id = (&*host.namespace, &*host.service);
            let Some(holder) = addresses.holder(address, port, host.source.as_str(), id) else {
                return true;
            };
            let problem = self.taken(host, address, port, holder);
            if self.tells(&host.name) && !problems.contains(&problem) {
                problems.push(problem);
            }
            false
        };
        input.vips.retain(|vip| own(*vip));
        input.endpoints.retain(|e: &Endpoint| own(e.address));
    }

    fn taken(&self, host: &Host, address: IpAddr, port: u16, holder: &Claim) -> Problem {
        let object = Owner {
            kind: host.source.as_str().to_owned(),
            namespace: host.namespace.clone(),
            name: host.service.clone(),
            ..Owner::default()
        };
        let message = holder.refusal(address, port, &host.namespace, &host.name);
        Problem::new(
            object,
            self.address_field(host, address),
            "AddressTaken",
            message,
        )
    }

    /// The field with an address.
    fn address_field(&self, host: &Host, address: IpAddr) -> String {
        if host.source == Source::Service {
            let field = if host.headless {
                "endpoints"
            } else {
                "spec.clusterIPs"
            };
            return field.to_owned();
        }
        let mut entries = self.service_entries.iter();
        let entry = entries.find(|e| {
            (&*e.id.namespace, &*e.id.name) == (host.namespace.as_str(), host.service.as_str())
        });
        let index = entry.and_then(|e| e.position(address));
        index.map_or_else(
            || "spec.addresses".to_owned(),
            |i| format!("spec.addresses[{i}]"),
        )
    }

    /// Namespaces that a host's objects would be written into and that do not want them.
    pub(super) fn closed_to(&self, host: &Host, input: &ServicePortInput) -> BTreeSet<String> {
        let routers = input.router.iter().chain(input.last_good.as_deref());
        let named = routers.flat_map(|r| &r.export_to);
        let named = named.chain(input.visible_to.iter().flatten());
        let settings = &self.settings.closed_namespaces;
        let closed = |name: &&String| {
            **name != host.namespace
                && (settings.contains(*name) || self.closed_namespaces.contains(*name))
        };
        named.filter(closed).cloned().collect()
    }
}
