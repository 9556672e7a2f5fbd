//! The scope of one fence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use trimtab_crds::fence::{DependencyState, DomainState, Strategy};

use super::domains::{Hosts, add, included};
use super::merge::settle;
use trimtab_mesh::names::{covers, normal, service_of};

use super::names::find;
use super::predict::{destinations, predict};
use super::services::{HostEntry, Registry, Services};
use super::strategy::{Held, held, later};
use super::{Labels, Reason, Scope, ScopeInput, Warning};
use crate::object::Evidence;

/// Names that an ExternalName may lead through.
const CHAIN: usize = 8;

const STATIC: &str = "spec.host";
const STABLE: &str = "stableHost";
const LEARNED: &str = "learned host";

/// Computes a scope. The same input and mesh give the same scope, in whatever order the mesh was built.
pub fn compute(input: &ScopeInput<'_>, services: &dyn Services) -> Scope {
    let mut builder = Builder {
        input,
        services,
        client: &input.fence.namespace,
        out: Scope::default(),
    };
    builder.configured();
    builder.required();
    builder.named();
    builder.selected();
    builder.learned();
    builder.fading();
    let mut out = builder.out;
    settle(&mut out.entries);
    predict(&mut out, &input.fence.namespace, services);
    out
}

pub(super) struct Builder<'a> {
    pub(super) input: &'a ScopeInput<'a>,
    pub(super) services: &'a dyn Services,
    client: &'a str,
    pub(super) out: Scope,
}

/// What became of a host.
#[derive(Default)]
struct Imported {
    /// Full name.
    host: String,
    /// Hosts that its routes lead to.
    redirects: BTreeSet<String>,
    /// Whether there is anything to call.
    found: bool,
}

/// A dependency as it is written: everything, a whole namespace, or a host with or without its namespace.
enum Named {
    Everything,
    Namespace(String),
    Host(Option<String>, String),
}

fn parse(text: &str, client: &str) -> Option<Named> {
    let Some((namespace, host)) = text.split_once('/') else {
        return Some(Named::Host(None, normal(text)?));
    };
    let namespace = if namespace == "." { client } else { namespace };
    match (namespace, host) {
        ("*", "*") => Some(Named::Everything),
        ("" | "~", _) => None,
        ("*", host) => Some(Named::Host(None, normal(host)?)),
        (namespace, "*") => Some(Named::Namespace(namespace.to_owned())),
        (namespace, host) => Some(Named::Host(Some(namespace.to_owned()), normal(host)?)),
    }
}

impl Builder<'_> {
    pub(super) fn enter(&mut self, namespace: &str, host: &str, reason: &Reason) {
        let reasons = self.out.entries.entry(format!("{namespace}/{host}"));
        reasons.or_default().insert(reason.clone());
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        let at = at.filter(|at| *at > self.input.now);
        self.out.next = [self.out.next, at].into_iter().flatten().min();
    }

    /// What the configuration puts into every scope.
    fn configured(&mut self) {
        let settings = self.input.settings;
        for namespace in &settings.essentials {
            self.namespace(namespace, &Reason::Essential);
        }
        for host in &settings.fallback {
            self.import(host, None, &Reason::Fallback, 0);
        }
        for text in &settings.stable {
            let reason = Reason::Stable(text.clone());
            self.dependency(text, STABLE, &reason);
        }
    }

    /// `spec.host` and `spec.namespaceSelector`.
    fn named(&mut self) {
        let spec = self.input.spec;
        for (text, strategy) in &spec.host {
            let held = self.held(text, strategy);
            self.wake(held.next);
            if let Some(what) = held.untimed {
                let host = text.clone();
                self.out.warnings.insert(Warning::Untimed { host, what });
            }
            self.domain(text, STATIC, held.state, &Reason::Static(text.clone()));
        }
        for namespace in spec.namespace_selector.iter().filter(|n| !n.is_empty()) {
            let key = format!("{namespace}/*");
            let reason = Reason::Namespace(namespace.clone());
            self.domain(&key, "spec.namespaceSelector", DomainState::Active, &reason);
        }
    }

    fn held(&mut self, text: &str, strategy: &Strategy) -> Held {
        let input = self.input;
        let full = normal(text).and_then(|name| self.find(&name));
        let same = |host: &str| host == text || full.as_deref() == Some(host);
        let calls = input.learned.iter().filter(|l| same(&l.host));
        let last = calls.filter_map(|l| l.last_seen).max();
        held(
            strategy,
            last.max(input.created),
            input.settings.grace,
            input.now,
        )
    }

    fn find(&mut self, name: &str) -> Option<String> {
        let found = find(
            self.services,
            name,
            self.client,
            &self.input.settings.domain,
        );
        self.out.consulted.hosts.extend(found.asked);
        found.host
    }

    /// `spec.labelSelector`.
    fn selected(&mut self) {
        for (index, selector) in self.input.spec.label_selector.iter().enumerate() {
            let labels = &selector.selector;
            if labels.is_empty() {
                self.out.warnings.insert(Warning::EmptySelector { index });
                continue;
            }
            self.out.consulted.selectors.insert(labels.clone());
            let reason = Reason::Label(text_of(labels));
            let domain = self.input.settings.domain.clone();
            for entry in self.services.labelled(labels) {
                if service_of(&entry.host, &domain).is_some() {
                    self.domain(
                        &entry.host,
                        "spec.labelSelector",
                        DomainState::Active,
                        &reason,
                    );
                }
            }
        }
    }

    fn learned(&mut self) {
        type Known = (DependencyState, BTreeSet<Evidence>);
        let mut hosts: BTreeMap<&str, Known> = BTreeMap::new();
        for learned in self.input.learned {
            let state = match learned.state {
                DependencyState::Unresolved => DependencyState::Active,
                state => state,
            };
            let known = hosts
                .entry(&learned.host)
                .or_insert_with(|| (state, BTreeSet::new()));
            known.0 = known.0.min(state);
            known.1.extend(learned.evidence.iter().copied());
        }
        for (host, (state, evidence)) in hosts {
            let state = match state {
                DependencyState::Expiring => DomainState::ExpireWait,
                DependencyState::Expired => DomainState::Expire,
                _ => DomainState::Active,
            };
            let reason = Reason::Learned(host.to_owned(), evidence);
            self.domain(host, LEARNED, state, &reason);
        }
    }

    /// Dependencies that were there and that nothing names any more stay for the grace.
    fn fading(&mut self) {
        let (input, now) = (self.input, self.input.now);
        for (key, before) in input.before {
            if self.out.domains.contains_key(key) || !included(before.status) {
                continue;
            }
            let since = input.fading.get(key).copied().unwrap_or(now).min(now);
            let end = later(since, input.settings.grace);
            if now >= end {
                continue;
            }
            self.wake(Some(end));
            self.out.fading.insert(key.clone(), since);
            let reason = Reason::Fading(key.clone());
            self.domain(key, LEARNED, DomainState::ExpireWait, &reason);
        }
    }

    /// A dependency with its line in `domains`.
    fn domain(&mut self, text: &str, field: &'static str, state: DomainState, reason: &Reason) {
        if !included(state) {
            let hosts = (!text.ends_with("/*")).then(|| text.to_owned());
            add(&mut self.out.domains, text, state, hosts);
            return;
        }
        let Some(found) = self.dependency(text, field, reason) else {
            return;
        };
        found.add(&mut self.out.domains, text, state);
    }

    /// Imports a dependency. `None`: it is refused, or learned and unknown.
    fn dependency(&mut self, text: &str, field: &'static str, reason: &Reason) -> Option<Hosts> {
        let is_learned = matches!(reason, Reason::Learned(..) | Reason::Fading(_));
        let named = parse(text, self.client);
        let (namespace, name) = match named {
            None => {
                let host = text.to_owned();
                self.out.warnings.insert(Warning::Refused { field, host });
                return None;
            }
            Some(Named::Everything) => {
                self.enter("*", "*", reason);
                self.out.warnings.insert(Warning::Everything { field });
                return Some(Hosts::default());
            }
            Some(Named::Namespace(namespace)) => {
                let redirects = self.namespace(&namespace, reason);
                return Some(Hosts::of(redirects));
            }
            Some(Named::Host(namespace, name)) => (namespace, name),
        };
        let imported = if name.starts_with('*') && !is_learned {
            self.under(&name, namespace.as_deref(), reason)
        } else {
            self.import(&name, namespace.as_deref(), reason, 0)
        };
        if !imported.found {
            self.out.unresolved.insert(imported.host.clone());
            let kept = service_of(&imported.host, &self.input.settings.domain).is_some();
            if is_learned && !kept {
                return None;
            }
            if !is_learned && !kept {
                let host = text.to_owned();
                self.out.warnings.insert(Warning::Unknown { field, host });
            }
        }
        let mut hosts = Hosts::of([imported.host.clone()]);
        hosts.all.extend(imported.redirects);
        for alias in self.input.settings.aliases(&imported.host) {
            let reason = Reason::Alias(imported.host.clone());
            if let Some(Named::Host(namespace, name)) = parse(&alias, self.client) {
                self.import(&name, namespace.as_deref(), &reason, 0);
                hosts.aliases.push(alias);
            } else {
                let (field, host) = ("domainAliases", alias);
                self.out.warnings.insert(Warning::Refused { field, host });
            }
        }
        Some(hosts)
    }

    /// All hosts of a namespace and all of its VirtualServices. Gives the redirects that lead out of it.
    fn namespace(&mut self, namespace: &str, reason: &Reason) -> BTreeSet<String> {
        self.out.consulted.namespaces.insert(namespace.to_owned());
        let mut own = BTreeSet::new();
        let mut redirects = BTreeSet::new();
        for entry in self.services.in_namespace(namespace) {
            if !entry.exports.visible(namespace, self.client) {
                continue;
            }
            own.insert(entry.host.to_string());
            redirects.extend(self.take(&entry, reason, 0));
        }
        for route in self.services.routes_in(namespace) {
            if !route.exports.visible(namespace, self.client) {
                continue;
            }
            for host in route.hosts.iter().filter(|h| &***h != "*") {
                self.enter(namespace, host, reason);
            }
            let all = destinations(&route, self.services, &mut self.out);
            redirects.extend(all.iter().map(ToString::to_string));
        }
        redirects.retain(|host| !own.contains(host));
        redirects
    }

    /// Everything under a wildcard that a user wrote.
    fn under(&mut self, pattern: &str, namespace: Option<&str>, reason: &Reason) -> Imported {
        self.out.consulted.hosts.insert(pattern.to_owned());
        let mut out = Imported {
            host: pattern.to_owned(),
            ..Imported::default()
        };
        let client = self.client;
        let wanted = |owner: &str| namespace.is_none_or(|n| n == owner);
        for entry in self.services.under(pattern) {
            if wanted(&entry.namespace) && entry.exports.visible(&entry.namespace, client) {
                out.found = true;
                out.redirects.extend(self.take(&entry, reason, 0));
            }
        }
        for route in self.services.routes_under(pattern) {
            if wanted(&route.id.namespace) && route.exports.visible(&route.id.namespace, client) {
                let hosts = route.hosts.iter();
                for host in hosts.filter(|h| covers(pattern, h) && &***h != "*") {
                    out.found = true;
                    self.enter(&route.id.namespace, host, reason);
                }
                let all = destinations(&route, self.services, &mut self.out);
                out.redirects.extend(all.iter().map(ToString::to_string));
            }
        }
        out
    }

    /// A host by any name. `namespace`: of the entry, when it is given.
    fn import(
        &mut self,
        name: &str,
        namespace: Option<&str>,
        reason: &Reason,
        depth: usize,
    ) -> Imported {
        let host = self.find(name).unwrap_or_else(|| name.to_owned());
        self.out.consulted.hosts.insert(host.clone());
        let mut redirects = BTreeSet::new();
        let mut found = false;
        let mut entries = self.services.host(&host);
        if entries.is_empty() {
            // An exact VirtualService on a host of a wildcard ServiceEntry needs that one too.
            let covering = self.services.covering(&host);
            let visible = |e: &Arc<HostEntry>| e.exports.visible(&e.namespace, self.client);
            let longest = covering.iter().find(|e| visible(e)).or(covering.first());
            let longest = longest.map(|e| e.host.clone());
            entries = covering
                .into_iter()
                .filter(|e| Some(&e.host) == longest.as_ref())
                .collect();
        }
        if let Some(entry) = self.choose(&host, namespace, entries) {
            found = true;
            redirects.extend(self.take(&entry, reason, depth));
        }
        // Always in, so that a Service that is deleted and made again changes nothing.
        if let Some((_, owner)) = service_of(&host, &self.input.settings.domain) {
            self.enter(owner, &host, reason);
        }
        let (routed, more) = self.follow(&host);
        redirects.extend(more);
        redirects.remove(&host);
        Imported {
            host,
            redirects,
            found: found || routed,
        }
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
                    object: object_of(&entry),
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

    /// An entry with all that it brings: its VirtualServices, and the host that it stands for. Gives its redirects.
    pub(super) fn take(
        &mut self,
        entry: &HostEntry,
        reason: &Reason,
        depth: usize,
    ) -> BTreeSet<String> {
        self.out.consulted.hosts.insert(entry.host.to_string());
        self.enter(&entry.namespace, &entry.host, reason);
        self.hidden_rules(entry);
        if let Some(target) = &entry.target {
            if depth < CHAIN {
                let reason = Reason::Target(entry.host.to_string());
                self.import(target, None, &reason, depth + 1);
            } else {
                self.out.warnings.insert(Warning::LongChain {
                    host: entry.host.to_string(),
                    limit: CHAIN,
                });
            }
        }
        let (_, mut redirects) = self.follow(&entry.host);
        redirects.remove(&*entry.host);
        redirects
    }

    /// VirtualServices of a host: an entry for each, for an import of the host from its own namespace does not bring those
    /// of others. Gives whether there are any, and where they lead.
    fn follow(&mut self, host: &str) -> (bool, BTreeSet<String>) {
        let mut redirects = BTreeSet::new();
        let mut any = false;
        for route in self.services.routes(host) {
            if !route.exports.visible(&route.id.namespace, self.client) {
                continue;
            }
            let name = format!("{}/{}", route.id.namespace, route.id.name);
            let reason = Reason::Route(name, host.to_owned());
            let named = |h: &&Arc<str>| ***h == *host || (covers(h, host) && &***h != "*");
            for pattern in route.hosts.iter().filter(named) {
                any = true;
                self.enter(&route.id.namespace, pattern, &reason);
            }
            let all = destinations(&route, self.services, &mut self.out);
            redirects.extend(all.iter().map(ToString::to_string));
        }
        (any, redirects)
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

fn object_of(entry: &HostEntry) -> String {
    let kind = match entry.registry {
        Registry::Kubernetes => "Service",
        Registry::ServiceEntry => "ServiceEntry",
    };
    format!("{kind} {}/{}", entry.namespace, entry.name)
}

fn text_of(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}
