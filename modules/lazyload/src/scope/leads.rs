//! Where calls end: what VirtualServices and ExternalNames make of a host.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::model::route::{HttpRule, Weighted};
use trimtab_mesh::names::service_host;

use super::ScopeReads;
use super::names::find;
use super::services::{HostEntry, Services, VirtualService};
use crate::predict::{Client, applies, applies_to_connections, merged};

/// A destination of a VirtualService, as a client in a namespace has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Led {
    /// Full host.
    pub(super) host: Arc<str>,
    /// Whether requests are led, and not connections.
    pub(super) http: bool,
    /// Whether it gets copies only.
    pub(super) copy: bool,
    /// Whether anything is led there; a share of 0 is none.
    pub(super) used: bool,
}

/// The mesh as one client sees it, and what of it was looked at.
pub(super) struct View<'a> {
    pub(super) services: &'a dyn Services,
    pub(super) client: Client<'a>,
    pub(super) reads: &'a mut ScopeReads,
}

/// Where a name that an ExternalName stands for ends.
pub(super) enum End {
    /// At this host, which is none itself.
    Host(String),
    /// Nowhere: the names lead in a circle.
    Circle,
}

impl View<'_> {
    /// VirtualServices that the client sees with a host that is, covers or, of a wildcard, lies under this one.
    pub(super) fn routes(&self, host: &str) -> Vec<Arc<VirtualService>> {
        let mut routes = self.services.routes(host);
        if host.starts_with('*') {
            let under = self.services.routes_under(host).into_iter();
            let new = |r: &Arc<VirtualService>| !routes.iter().any(|known| Arc::ptr_eq(known, r));
            let new: Vec<Arc<VirtualService>> = under.filter(new).collect();
            routes.extend(new);
        }
        routes.retain(|r| r.exports.visible(&r.id.namespace, self.client.namespace));
        routes
    }

    /// Destinations of the rules that are for the client's namespace, also of those that are delegated.
    pub(super) fn destinations(&mut self, route: &VirtualService) -> BTreeSet<Led> {
        let mut out = BTreeSet::new();
        for rule in &merged(route, self.services, self.reads) {
            let (applied, ends) = applies(rule, &self.client);
            if applied {
                requests(rule, &mut out);
            }
            if ends {
                break;
            }
        }
        for rule in route.tls.iter().chain(&route.tcp) {
            if applies_to_connections(rule, &self.client) {
                weighted(&rule.routes, false, &mut out);
            }
        }
        out.retain(|led| !led.host.is_empty());
        out
    }

    /// Hosts that the rules name, for whomever they are; also those of rules that are delegated to.
    pub(super) fn named(&mut self, route: &VirtualService) -> BTreeSet<String> {
        let text = |host: &Arc<str>| host.to_string();
        let mut out: BTreeSet<String> = route.destinations.iter().map(text).collect();
        for (namespace, name) in &route.delegates {
            let key = (namespace.to_string(), name.to_string());
            self.reads.routes.insert(key);
            let delegate = self.services.route(namespace, name);
            let seen = delegate.filter(|d| d.exports.visible(namespace, &route.id.namespace));
            out.extend(seen.iter().flat_map(|d| d.destinations.iter().map(text)));
        }
        out
    }

    /// The entry that istiod takes for a host: of the client's namespace, else the first that the client sees.
    pub(super) fn entry(&mut self, host: &str) -> Option<Arc<HostEntry>> {
        self.reads.hosts.insert(host.to_owned());
        let entries = self.services.host(host).into_iter();
        let visible = entries.filter(|e| e.exports.visible(&e.namespace, self.client.namespace));
        visible.min_by_key(|e| e.preference(self.client.namespace))
    }

    /// The full host that an ExternalName names; a name without a dot is of its own namespace.
    pub(super) fn target(&mut self, alias: &HostEntry) -> Option<String> {
        let written = alias.target.as_deref()?;
        let name = if written.contains('.') {
            written.to_owned()
        } else {
            service_host(written, &alias.namespace, self.client.domain)
        };
        let found = find(
            self.services,
            &name,
            self.client.namespace,
            self.client.domain,
        );
        self.reads.hosts.extend(found.asked);
        // A wildcard that has the name has no other names: istiod compares the whole.
        let exact = found.host.filter(|host| !host.starts_with('*'));
        let host = exact.unwrap_or(name);
        self.reads.hosts.insert(host.clone());
        Some(host)
    }

    /// The host behind an ExternalName, through any number of others.
    pub(super) fn end(&mut self, alias: &HostEntry) -> End {
        let mut seen = BTreeSet::from([alias.host.to_string()]);
        let mut next = self.target(alias);
        while let Some(host) = next {
            let entry = self
                .services
                .host(&host)
                .into_iter()
                .find(|e| e.target.is_some());
            let Some(entry) = entry else {
                return End::Host(host);
            };
            if !seen.insert(host) {
                break;
            }
            next = self.target(&entry);
        }
        End::Circle
    }

    /// Hosts under which calls to this one are counted, besides itself: where its routes lead, copies excepted, and what it
    /// stands for.
    pub(super) fn counted(&mut self, host: &str) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let mut called = BTreeSet::from([host.to_owned()]);
        let alias = self
            .services
            .host(host)
            .into_iter()
            .find(|e| e.target.is_some());
        if let Some(alias) = alias
            && let End::Host(end) = self.end(&alias)
        {
            out.extend(self.counted_as(&end));
            called.insert(end);
        }
        for host in &called {
            for route in self.routes(host) {
                let led = self.destinations(&route);
                for led in led.iter().filter(|led| led.used && !led.copy) {
                    out.extend(self.counted_as(&led.host));
                }
            }
        }
        out.remove(host);
        out
    }

    /// Names of a destination: its own, that of the service that it stands for, and the wildcard that has it.
    fn counted_as(&mut self, host: &str) -> Vec<String> {
        let mut out = vec![host.to_owned()];
        match self.entry(host) {
            Some(alias) if alias.target.is_some() => out.extend(self.target(&alias)),
            Some(_) => {}
            None => {
                let found = find(
                    self.services,
                    host,
                    self.client.namespace,
                    self.client.domain,
                );
                self.reads.hosts.extend(found.asked);
                out.extend(found.host);
            }
        }
        out
    }
}

fn requests(rule: &HttpRule, out: &mut BTreeSet<Led>) {
    if rule.redirect.is_some() || rule.responds {
        return;
    }
    weighted(&rule.routes, true, out);
    out.extend(rule.copied().map(|to| Led {
        host: to.host.clone(),
        http: true,
        copy: true,
        used: true,
    }));
}

fn weighted(routes: &[Weighted], http: bool, out: &mut BTreeSet<Led>) {
    let alone = routes.len() == 1;
    out.extend(routes.iter().map(|route| Led {
        host: route.to.host.clone(),
        http,
        copy: false,
        used: alone || route.weight > 0,
    }));
}
