//! VirtualServices of a host (R3), and what their destinations need (R4, R5, R7).

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::names::{covers, service_of};

use super::builder::{Builder, Routed};
use super::imported::client;
use super::leads::Led;
use super::services::{HostEntry, Listener, Resolution, VirtualService};
use super::{Reason, Warning};
use crate::predict::unbrought;

/// Port on which istiod has hosts that no service has.
const FRONTS: u16 = 80;

impl Builder<'_> {
    /// An entry for each VirtualService of a host, for an import of the host from its own namespace does not bring those
    /// of others. The host suffices, also for those of a wildcard; of a wildcard, those of hosts under it have entries of
    /// their own.
    pub(super) fn follow(&mut self, host: &str) -> Routed {
        if let Some(known) = self.routed.get(host) {
            return known.clone();
        }
        // What leads in a circle comes back here.
        self.routed.insert(host.to_owned(), Routed::default());
        let mut out = Routed::default();
        for route in self.view().routes(host) {
            if !self.reaches(&route, host) || self.is_of_others(&route, host) {
                continue;
            }
            let wide = |h: &Arc<str>| **h == *host || covers(h, host);
            let hosts: Vec<String> = if route.hosts.iter().any(wide) {
                vec![host.to_owned()]
            } else {
                let under = route.hosts.iter().filter(|h| covers(host, h));
                under.map(ToString::to_string).collect()
            };
            for named in hosts {
                let reason = because(&route, &named);
                self.enter(&route.id.namespace, &named, &reason);
                out.redirects.extend(self.led(&route, &named));
            }
            out.owners.insert(route.id.namespace.to_string());
        }
        self.shadows(host);
        self.routed.insert(host.to_owned(), out.clone());
        out
    }

    /// A route of the Gateway API that is for other clients gives this one nothing, and takes the host away from the
    /// VirtualServices of wildcards all the same.
    fn shadows(&mut self, host: &str) {
        let routes = self.view().routes(host);
        let exact = |r: &Arc<VirtualService>| r.hosts.iter().any(|h| **h == *host);
        let (own, others): (Vec<_>, Vec<_>) =
            routes.into_iter().partition(|r| self.reaches(r, host));
        if own.is_empty() || own.iter().any(exact) {
            return;
        }
        for route in others.iter().filter(|r| exact(r)) {
            self.enter(&route.id.namespace, host, &because(route, host));
        }
    }

    /// Whether istiod gives the host no virtual host for this VirtualService: a wildcard of it is for the services under it
    /// when there are any, and for other hosts only when there is none.
    fn is_of_others(&mut self, route: &VirtualService, host: &str) -> bool {
        let exact = route.hosts.iter().any(|h| **h == *host);
        if exact || host.starts_with('*') || self.kept(host).is_some() || self.served(host) {
            return false;
        }
        let on_port = |e: &Arc<HostEntry>| e.ports.iter().any(|port| port.number == FRONTS);
        let mut wild = route.hosts.iter().filter(|h| covers(h, host));
        let of_others = wild.all(|h| self.taken(self.services.under(h)).iter().any(on_port));
        self.out.consulted.hosts.extend(
            route
                .hosts
                .iter()
                .filter(|h| covers(h, host))
                .map(ToString::to_string),
        );
        of_others
    }

    /// Whether the routes of a host are for this client. Those of the Gateway API are for the namespace of the Service and
    /// their own.
    pub(super) fn reaches(&self, route: &VirtualService, host: &str) -> bool {
        let owner = &*route.id.namespace;
        let service = service_of(host, &self.input.settings.domain);
        let meant = owner == self.client || service.map(|(_, namespace)| namespace) == Some(owner);
        route.exports.visible(owner, self.client) && (meant || !route.kind.is_gateway_api())
    }

    /// What the destinations of a VirtualService of a host need besides its own entry. Gives them.
    pub(super) fn led(&mut self, route: &VirtualService, host: &str) -> BTreeSet<String> {
        let all = self.view().destinations(route);
        let reason = because(route, host);
        for led in all.iter().filter(|led| led.used) {
            self.led_to_alias(led, &reason);
        }
        // istiod gives the client routes to these, and no cluster.
        let client = client(self.input);
        for to in unbrought(&client, route, self.services, &mut self.out.consulted) {
            let entry = self.view().entry(&to);
            if entry.is_some_and(|e| e.resolution != Resolution::Alias) {
                self.import(&to, &reason);
            }
        }
        if !self.served(host) {
            self.listeners(route, host, &all, &reason);
        } else if self.is_beside_wildcards(route, host) {
            self.beside(route, host);
            self.fronts.insert(host.to_owned());
        }
        self.view().named(route)
    }

    /// Whether only wildcards serve a host that the VirtualService names: these do not give it the virtual host.
    fn is_beside_wildcards(&self, route: &VirtualService, host: &str) -> bool {
        let named = route.hosts.iter().any(|h| **h == *host) && !host.starts_with('*');
        let stated = |written: &String| written == host;
        let exact = !self.taken(self.services.host(host)).is_empty();
        named && !exact && !route.http.is_empty() && !self.stated.iter().any(stated)
    }

    /// Services among the other hosts of the VirtualService: istiod has this one on their ports. Whether one has the port of
    /// hosts without a service; `None`: there is no such service.
    fn beside(&mut self, route: &VirtualService, host: &str) -> Option<bool> {
        let because = Reason::Listener(host.to_owned());
        let mut out = None;
        for other in route.hosts.iter().filter(|other| ***other != *host) {
            let entry = self.view().entry(other);
            let ports: BTreeSet<u16> = entry.iter().flat_map(|e| e.http_ports()).collect();
            if !ports.is_empty() {
                self.import(other, &because);
                out = Some(out == Some(true) || ports.contains(&FRONTS));
            }
        }
        out
    }

    /// Whether a service has the host, or may have it.
    fn served(&mut self, host: &str) -> bool {
        let services = self.services;
        self.out.consulted.hosts.insert(host.to_owned());
        let stated = |written: &String| written == host || covers(written, host);
        let seen = |entries: Vec<Arc<HostEntry>>| {
            let visible = |e: &Arc<HostEntry>| e.exports.visible(&e.namespace, self.client);
            entries.iter().any(visible)
        };
        self.stated.iter().any(stated)
            || seen(services.host(host))
            || seen(services.covering(host))
            || (host.starts_with('*') && seen(services.under(host)))
    }

    /// A host that no service has gives no listener: its destinations do, unless the fallback has their ports. With a
    /// service among the other hosts of the VirtualService, istiod has this one on that service's ports.
    fn listeners(
        &mut self,
        route: &VirtualService,
        host: &str,
        all: &BTreeSet<Led>,
        reason: &Reason,
    ) {
        let because = Reason::Listener(host.to_owned());
        let beside = self.beside(route, host);
        let requests: Vec<&Led> = all
            .iter()
            .filter(|led| led.http && led.used && !led.copy)
            .collect();
        if beside == Some(true) || route.http.is_empty() {
            return;
        }
        self.fronts.insert(host.to_owned());
        if beside.is_some() {
            return;
        }
        if requests.is_empty() {
            return;
        }
        let carried = self.carried();
        let mut listens = !carried.is_empty();
        for led in requests {
            let Some(entry) = self.view().entry(&led.host) else {
                continue;
            };
            let ports: BTreeSet<u16> = entry.http_ports().collect();
            listens |= !ports.is_empty() || entry.target.is_some();
            if !ports.is_subset(&carried) {
                self.import(&led.host, &because);
            }
        }
        if let (false, Reason::Route(route, _)) = (listens, reason) {
            let (host, route) = (host.to_owned(), route.clone());
            self.out
                .warnings
                .insert(Warning::NoListener { host, route });
        }
    }

    /// istiod has hosts that no service has on port 80 alone: any service gives that listener.
    pub(super) fn fronts(&mut self) {
        let Some(front) = self.fronts.first().cloned() else {
            return;
        };
        let has = |e: &Arc<HostEntry>| e.http_ports().any(|port| port == FRONTS);
        let gives = |e: &Arc<HostEntry>| {
            // Of a host in several namespaces one counts.
            let mut taken = self.taken(self.services.host(&e.host)).into_iter();
            has(e) && taken.any(|t| t.namespace == e.namespace)
        };
        let mut entries = self.out.entries.keys();
        if entries.any(|entry| self.imported(entry).iter().any(gives)) {
            return;
        }
        let listener = Listener::Shared(FRONTS);
        self.out.consulted.listeners.insert(listener);
        if let Some(entry) = self.services.on_http_port(FRONTS, self.client) {
            self.bring(&entry, &Reason::Listener(front));
        }
    }

    /// HTTP ports that the fallback's Services have.
    fn carried(&self) -> BTreeSet<u16> {
        let hosts = &self.input.settings.fallback;
        let entries = hosts.iter().flat_map(|host| self.services.host(host));
        entries
            .flat_map(|e| e.http_ports().collect::<Vec<_>>())
            .collect()
    }
}

fn because(route: &VirtualService, host: &str) -> Reason {
    let (kind, id) = (route.kind.as_str(), &route.id);
    Reason::Route(
        format!("{kind} {}/{}", id.namespace, id.name),
        host.to_owned(),
    )
}
