//! From a host to the entries of its services (R2): exact ones, and wildcards only where a ServiceEntry or the user has one.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::names::{covers, service_host};

use super::builder::{Builder, Imported};
use super::named::Place;
use super::names::find;
use super::services::HostEntry;
use super::{Reason, Warning};

impl Builder<'_> {
    /// A host, or all hosts under a wildcard, as they are written. A wildcard that was learned is the host of a ServiceEntry.
    pub(super) fn host(&mut self, place: &Place, name: &str, reason: &Reason) -> Imported {
        if let Place::In(namespace) = place {
            return self.stated(namespace, name, reason);
        }
        let learned = match reason {
            Reason::Learned(..) => true,
            Reason::Fading(_) => !self.services.host(name).is_empty(),
            _ => false,
        };
        let imported = if name.starts_with('*') && !learned {
            self.under(name, reason)
        } else {
            self.import(name, reason)
        };
        // Another registry of istiod's may have it.
        if *place == Place::Star && !imported.found && self.kept(&imported.host).is_none() {
            self.enter("*", &imported.host, reason);
        }
        imported
    }

    /// A host that is written with its namespace: its entry is as it is written, whether it is known here or not.
    fn stated(&mut self, namespace: &str, name: &str, reason: &Reason) -> Imported {
        let host = self.within(namespace, name);
        self.out.consulted.hosts.insert(host.clone());
        self.enter(namespace, &host, reason);
        self.stated.insert(host.clone());
        let mut entries = if host.starts_with('*') {
            self.services.under(&host)
        } else {
            self.serving(&host)
        };
        entries.retain(|e| *e.namespace == *namespace);
        let all = entries.len();
        entries.retain(|e| e.exports.visible(&e.namespace, self.client));
        let mut out = Imported {
            hidden: all > 0 && entries.is_empty(),
            found: !entries.is_empty(),
            owner: Some(namespace.to_owned()),
            ..Imported::default()
        };
        if out.hidden {
            self.choose(&host, Some(namespace), self.serving(&host));
        }
        for entry in &entries {
            // A wildcard that has the host is another entry.
            if !covers(&host, &entry.host) {
                self.enter(&entry.namespace, &entry.host, reason);
            }
            self.hidden_rules(entry);
            self.widen(entry, reason);
            if entry.target.is_some() {
                self.alias(entry, reason);
            }
        }
        let routed = self.follow(&host);
        out.found |= routed.owners.contains(namespace);
        out.redirects = routed.redirects;
        out.redirects.remove(&host);
        out.host = host;
        out
    }

    /// What a name means in a namespace.
    fn within(&mut self, namespace: &str, name: &str) -> String {
        let domain = &self.input.settings.domain;
        let found = find(self.services, name, namespace, domain);
        self.out.consulted.hosts.extend(found.asked);
        let there = |host: &String| {
            let entries = self.services.host(host);
            !host.starts_with('*') && entries.iter().any(|e| *e.namespace == *namespace)
        };
        match found.host.filter(there) {
            Some(host) => host,
            None if name.contains('.') => name.to_owned(),
            None => service_host(name, namespace, domain),
        }
    }

    /// Entries that serve a host: its own, else those of the longest wildcard that the client sees; what it may not see only
    /// if there is nothing else.
    fn serving(&self, host: &str) -> Vec<Arc<HostEntry>> {
        let entries = self.services.host(host);
        let visible = |e: &&Arc<HostEntry>| e.exports.visible(&e.namespace, self.client);
        if entries.iter().any(|e| visible(&e)) {
            return entries;
        }
        let covering = self.services.covering(host);
        let seen = covering.iter().find(visible);
        if seen.is_none() && !entries.is_empty() {
            return entries;
        }
        let longest = seen.or(covering.first());
        let longest = longest.map(|e| e.host.clone());
        let of_it = covering.into_iter();
        of_it
            .filter(|e| Some(&e.host) == longest.as_ref())
            .collect()
    }

    /// A host by any name.
    pub(super) fn import(&mut self, name: &str, reason: &Reason) -> Imported {
        let host = self.find(name).unwrap_or_else(|| name.to_owned());
        // Of a host under a wildcard only the VirtualServices of that host matter.
        let called = if covers(&host, name) { name } else { &host };
        let called = called.to_owned();
        self.out
            .consulted
            .hosts
            .extend([host.clone(), called.clone()]);
        let entries = self.serving(if host.starts_with('*') {
            &called
        } else {
            &host
        });
        let there = !entries.is_empty();
        let mut out = Imported::default();
        let chosen = self.choose(&host, None, entries);
        let alias = chosen.as_ref().is_some_and(|e| e.target.is_some());
        match &chosen {
            Some(entry) if alias => self.alias(entry, reason),
            Some(entry) => self.service(entry, reason),
            None => {}
        }
        self.around(&called, chosen.as_deref(), reason);
        let kept = self.kept(&host).map(ToOwned::to_owned);
        if let Some(owner) = kept.as_ref().filter(|_| !alias) {
            self.enter(owner, &host, reason);
        }
        let routed = self.follow(&called);
        out.found = chosen.is_some() || !routed.owners.is_empty();
        out.redirects = routed.redirects;
        out.hidden = there && chosen.is_none();
        // Another name is one of the service that is in, not of the wildcard that has it.
        let exact = chosen.filter(|e| *e.host == *host && !host.starts_with('*'));
        out.owner = exact.map(|e| e.namespace.to_string()).or(kept);
        out.redirects.remove(&host);
        out.host = host;
        out
    }

    /// The entry of a service.
    pub(super) fn service(&mut self, entry: &HostEntry, reason: &Reason) {
        self.out.consulted.hosts.insert(entry.host.to_string());
        self.enter(&entry.namespace, &entry.host, reason);
        self.hidden_rules(entry);
        self.widen(entry, reason);
        self.connections(entry);
    }

    /// A service with all that belongs to it.
    pub(super) fn bring(&mut self, entry: &HostEntry, reason: &Reason) -> BTreeSet<String> {
        if entry.target.is_some() {
            self.alias(entry, reason);
        } else {
            self.service(entry, reason);
        }
        let mut redirects = self.follow(&entry.host).redirects;
        redirects.remove(&*entry.host);
        redirects
    }

    /// Everything under a wildcard that a user wrote, one by one, and the wildcard that has the rest.
    fn under(&mut self, pattern: &str, reason: &Reason) -> Imported {
        self.out.consulted.hosts.insert(pattern.to_owned());
        let mut out = Imported {
            host: pattern.to_owned(),
            ..Imported::default()
        };
        let mut entries = self.services.under(pattern);
        if self.services.host(pattern).is_empty() {
            entries.extend(self.serving(pattern));
        }
        entries.retain(|e| e.exports.visible(&e.namespace, self.client));
        for entry in &entries {
            out.found = true;
            if entry.target.is_some() {
                self.alias(entry, reason);
            } else {
                self.service(entry, reason);
            }
        }
        let own = entries
            .iter()
            .filter(|e| covers(&e.host, pattern) || *e.host == *pattern);
        let own = own.max_by_key(|e| e.host.len()).cloned();
        self.around(pattern, own.as_deref(), reason);
        let routed = self.follow(pattern);
        out.found |= !routed.owners.is_empty();
        out.redirects = routed.redirects;
        out
    }

    /// A whole namespace, as istiod has it. Gives the redirects that lead out of it.
    pub(super) fn namespace(&mut self, namespace: &str, reason: &Reason) -> BTreeSet<String> {
        self.enter(namespace, "*", reason);
        let before = self.whole.replace(namespace.to_owned());
        let out = self.contents(namespace, reason);
        self.whole = before;
        out
    }

    /// All services of a namespace, and all of its VirtualServices, one by one.
    pub(super) fn contents(&mut self, namespace: &str, reason: &Reason) -> BTreeSet<String> {
        self.out.consulted.namespaces.insert(namespace.to_owned());
        let mut own = BTreeSet::new();
        let mut redirects = BTreeSet::new();
        for entry in self.services.in_namespace(namespace) {
            if entry.exports.visible(namespace, self.client) {
                own.insert(entry.host.to_string());
                redirects.extend(self.bring(&entry, reason));
            }
        }
        for route in self.services.routes_in(namespace) {
            for host in &route.hosts {
                if self.reaches(&route, host) {
                    self.enter(namespace, host, reason);
                    redirects.extend(self.led(&route, host));
                }
            }
        }
        redirects.retain(|host| !own.contains(host));
        redirects
    }

    /// One of the entries of a host, as istiod would choose.
    pub(super) fn choose(
        &mut self,
        host: &str,
        namespace: Option<&str>,
        entries: Vec<Arc<HostEntry>>,
    ) -> Option<Arc<HostEntry>> {
        let wanted = |e: &Arc<HostEntry>| namespace.is_none_or(|n| n == &*e.namespace);
        let (client, hidden) = (self.client, entries.iter().find(|e| wanted(e)).cloned());
        let visible: Vec<Arc<HostEntry>> = entries
            .into_iter()
            .filter(|e| wanted(e) && e.exports.visible(&e.namespace, client))
            .collect();
        let Some(chosen) = visible.iter().min_by_key(|e| e.preference(client)).cloned() else {
            if let Some(entry) = hidden {
                self.out.warnings.insert(Warning::HiddenService {
                    host: host.to_owned(),
                    client: client.to_owned(),
                    object: entry.object(),
                });
            }
            return None;
        };
        let all: BTreeSet<&str> = visible.iter().map(|e| &*e.namespace).collect();
        if all.len() > 1 {
            self.out.warnings.insert(Warning::Duplicate {
                host: host.to_owned(),
                all: all.into_iter().collect::<Vec<_>>().join(", "),
                chosen: chosen.namespace.to_string(),
            });
        }
        Some(chosen)
    }

    /// DestinationRules beside the service that the client may not see, when it has none of its own.
    fn hidden_rules(&mut self, entry: &HostEntry) {
        let rules = self.services.rules(&entry.host);
        if rules.iter().any(|r| &*r.id.namespace == self.client) {
            return;
        }
        for rule in rules.iter().filter(|r| r.id.namespace == entry.namespace) {
            if !rule.exports.visible(&rule.id.namespace, self.client) {
                self.out.warnings.insert(Warning::HiddenRule {
                    rule: format!("{}/{}", rule.id.namespace, rule.id.name),
                    host: entry.host.to_string(),
                    client: self.client.to_owned(),
                });
            }
        }
    }
}
