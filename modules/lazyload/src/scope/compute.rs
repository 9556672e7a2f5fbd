//! The scope of one fence: what is named and learned, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use trimtab_crds::fence::{DependencyState, DomainState, Strategy};

use trimtab_mesh::names::service_of;

use super::builder::Builder;
use super::domains::{Hosts, add, included};
use super::imported::fill;
use super::merge::settle;
use super::named::{Named, Place, parse, text_of};
use super::services::Services;
use super::strategy::{Held, held, later};
use super::{Reason, Scope, ScopeInput, Warning, remarks};
use crate::object::Evidence;

const STATIC: &str = "spec.host";
const STABLE: &str = "stableHost";
const LEARNED: &str = "learned host";

/// Computes a scope. The same input and mesh give the same scope, in whatever order the mesh was built.
pub fn compute(input: &ScopeInput<'_>, services: &dyn Services) -> Scope {
    let mut builder = Builder {
        input,
        services,
        client: &input.fence.namespace,
        routed: BTreeMap::new(),
        stated: BTreeSet::new(),
        fronts: BTreeSet::new(),
        whole: None,
        out: Scope::default(),
    };
    builder.configured();
    builder.named();
    builder.selected();
    builder.learned();
    builder.fading();
    builder.fronts();
    builder.neighbours();
    let mut out = builder.out;
    settle(&mut out.entries);
    fill(&mut out, input, services);
    remarks::look(input, services, &mut out);
    out
}

/// What all callers know of a host.
struct Known {
    state: DependencyState,
    /// No caller has called it when the mesh knew it.
    unknown: bool,
    evidence: BTreeSet<Evidence>,
}

impl Builder<'_> {
    fn wake(&mut self, at: Option<Timestamp>) {
        let at = at.filter(|at| *at > self.input.now);
        self.out.next = [self.out.next, at].into_iter().flatten().min();
    }

    /// What the configuration puts into every scope.
    fn configured(&mut self) {
        let settings = self.input.settings;
        for namespace in &settings.essentials {
            self.contents(namespace, &Reason::Essential);
        }
        for host in &settings.fallback {
            self.import(host, &Reason::Fallback);
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
        let name = match parse(text, self.client) {
            Some(Named::Host(_, name)) => Some(name),
            _ => None,
        };
        let full = name.and_then(|name| self.find(&name));
        let counted = full.as_deref().map(|host| self.view().counted(host));
        let counted = counted.unwrap_or_default();
        let same =
            |host: &str| host == text || full.as_deref() == Some(host) || counted.contains(host);
        let calls = input.learned.iter().filter(|l| same(&l.host));
        let last = calls.filter_map(|l| l.last_seen).max();
        held(
            strategy,
            last.max(input.created),
            input.settings.grace,
            input.now,
        )
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
        let mut hosts: BTreeMap<&str, Known> = BTreeMap::new();
        for learned in self.input.learned {
            let (state, unknown) = match learned.state {
                DependencyState::Unresolved => (DependencyState::Active, true),
                state => (state, false),
            };
            let known = hosts.entry(&learned.host).or_insert_with(|| Known {
                state,
                unknown,
                evidence: BTreeSet::new(),
            });
            known.state = known.state.min(state);
            known.unknown &= unknown;
            known.evidence.extend(learned.evidence.iter().copied());
        }
        for (host, known) in hosts {
            // Whoever can send a request chooses such names, also ones that look like Services.
            if known.unknown && self.find(host).is_none() {
                self.out.unresolved.insert(host.to_owned());
                continue;
            }
            let state = match known.state {
                DependencyState::Expiring => DomainState::ExpireWait,
                DependencyState::Expired => DomainState::Expire,
                _ => DomainState::Active,
            };
            if included(state) {
                let counted = self.view().counted(host);
                if !counted.is_empty() {
                    self.out.counted.insert(host.to_owned(), counted);
                }
            }
            let reason = Reason::Learned(host.to_owned(), known.evidence);
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
        let (place, name) = match parse(text, self.client) {
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
            Some(Named::Host(place, name)) => (place, name),
        };
        let imported = self.host(&place, &name, reason);
        if !imported.found {
            self.out.unresolved.insert(imported.host.clone());
            let stated = place != Place::Any;
            let kept = self.kept(&imported.host).is_some();
            if is_learned && !kept && !stated {
                return None;
            }
        }
        let mut hosts = Hosts::of([imported.host.clone()]);
        hosts.all.extend(imported.redirects);
        for alias in self.input.settings.aliases(&imported.host) {
            let reason = Reason::Alias(imported.host.clone());
            if let Some(Named::Host(place, name)) = parse(&alias, self.client) {
                let imported = self.host(&place, &name, &reason);
                hosts.aliases.push((alias, imported.redirects));
            } else {
                let (field, host) = ("domainAliases", alias);
                self.out.warnings.insert(Warning::Refused { field, host });
            }
        }
        Some(hosts)
    }
}
