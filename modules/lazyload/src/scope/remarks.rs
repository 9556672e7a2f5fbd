//! Names of users that nothing in the mesh has, each with one remark: a misspelt name imports nothing, or what is not meant.
//!
//! A name may still be right: what is made later, or what only istiod sees. So a remark refuses nothing.

use std::collections::BTreeSet;

use trimtab_crds::fence::DomainState;
use trimtab_mesh::names::{covers, normal, service_of, service_suffix};

use super::named::{Named, Place, parse, text_of};
use super::names::{find, owner_of};
use super::services::{HostEntry, Services};
use super::{Scope, ScopeInput, Warning};

const STATIC: &str = "spec.host";
const STABLE: &str = "stableHost";
const NAMESPACE: &str = "spec.namespaceSelector";

/// Adds the remarks to a scope that is complete otherwise.
pub(super) fn look(input: &ScopeInput<'_>, services: &dyn Services, out: &mut Scope) {
    let mut looker = Looker {
        input,
        services,
        out,
    };
    let (spec, settings) = (input.spec, input.settings);
    for text in spec.host.keys() {
        let domain = looker.out.domains.get(text);
        if domain.is_none_or(|d| d.status != DomainState::Expire) {
            looker.name(STATIC, text);
        }
    }
    for namespace in spec.namespace_selector.iter().filter(|n| !n.is_empty()) {
        looker.namespace(NAMESPACE, namespace, namespace);
    }
    looker.selectors();
    for text in &settings.stable {
        looker.name(STABLE, text);
    }
    looker.configured();
}

struct Looker<'a> {
    input: &'a ScopeInput<'a>,
    services: &'a dyn Services,
    out: &'a mut Scope,
}

/// Where a host is: in which namespaces, and whether the client may see any of it.
#[derive(Default)]
struct Places {
    namespaces: BTreeSet<String>,
    visible: bool,
    hidden: Option<Warning>,
}

impl Looker<'_> {
    fn warn(&mut self, warning: Warning) {
        self.out.warnings.insert(warning);
    }

    /// The fence's own namespace is there although nothing else may be in it.
    fn has_namespace(&mut self, namespace: &str) -> bool {
        if namespace == self.input.fence.namespace {
            return true;
        }
        self.out.consulted.spaces.insert(namespace.to_owned());
        self.services.has_namespace(namespace)
    }

    /// A namespace as a whole.
    fn namespace(&mut self, field: &'static str, text: &str, namespace: &str) {
        if !self.has_namespace(namespace) {
            self.warn(Warning::NoNamespace {
                field,
                text: text.to_owned(),
                namespace: namespace.to_owned(),
            });
        }
    }

    fn name(&mut self, field: &'static str, text: &str) {
        match parse(text, &self.input.fence.namespace) {
            // What is no name, and everything, has a remark already.
            None | Some(Named::Everything) => {}
            Some(Named::Namespace(namespace)) => self.namespace(field, text, &namespace),
            Some(Named::Host(place, name)) => self.host(field, text, &place, &name),
        }
    }

    fn host(&mut self, field: &'static str, text: &str, place: &Place, name: &str) {
        let namespace = match place {
            Place::In(namespace) => Some(namespace.clone()),
            Place::Any | Place::Star => None,
        };
        let domain = &self.input.settings.domain;
        let from = namespace.as_deref().unwrap_or(&self.input.fence.namespace);
        let found = find(self.services, name, from, domain);
        let host = found.host.unwrap_or_else(|| name.to_owned());
        let places = self.places(&host);
        let there = match &namespace {
            None => !places.namespaces.is_empty(),
            Some(wanted) => places.namespaces.contains(wanted),
        };
        if there {
            // A host that is there and not for this client has that remark alone.
            let hidden = places.hidden.filter(|_| !places.visible);
            self.out.warnings.extend(hidden);
            return;
        }
        let text = text.to_owned();
        let owner = owner_of(&host, domain);
        let wanted = namespace.as_deref().or(owner.map(|(_, owner)| owner));
        if let Some(wanted) = wanted
            && !self.has_namespace(wanted)
        {
            self.namespace(field, &text, wanted);
            return;
        }
        self.warn(match (namespace, owner) {
            (Some(namespace), _) => Warning::NotInNamespace {
                field,
                text,
                namespace,
                elsewhere: places.namespaces.into_iter().collect(),
            },
            (None, Some((service, owner))) => Warning::NoService {
                field,
                text,
                service: service.to_owned(),
                namespace: owner.to_owned(),
            },
            (None, None) if *place == Place::Star => Warning::Nowhere { field, text },
            (None, None) => Warning::Unknown { field, host: text },
        });
    }

    /// Services and VirtualServices of a host, or under a wildcard.
    fn places(&self, host: &str) -> Places {
        let client = &self.input.fence.namespace;
        let (entries, routes) = if host.starts_with('*') {
            (self.services.under(host), self.services.routes_under(host))
        } else {
            let exact = self.services.host(host);
            let covering = || self.services.covering(host);
            let entries = if exact.is_empty() { covering() } else { exact };
            (entries, self.services.routes(host))
        };
        let mut out = Places::default();
        for entry in &entries {
            out.namespaces.insert(entry.namespace.to_string());
            if entry.exports.visible(&entry.namespace, client) {
                out.visible = true;
            } else if out.hidden.is_none() {
                out.hidden = Some(hidden(entry, client));
            }
        }
        for route in routes {
            let named = |h: &str| h != "*" && (h == host || covers(h, host) || covers(host, h));
            if route.hosts.iter().any(|h| named(h)) {
                out.namespaces.insert(route.id.namespace.to_string());
                out.visible = true;
            }
        }
        out
    }

    fn selectors(&mut self) {
        let domain = &self.input.settings.domain;
        for (index, selector) in self.input.spec.label_selector.iter().enumerate() {
            let labels = &selector.selector;
            let selected = self.services.labelled(labels);
            let any = selected
                .iter()
                .any(|e| service_of(&e.host, domain).is_some());
            if !labels.is_empty() && !any {
                let labels = text_of(labels);
                self.warn(Warning::NothingSelected { index, labels });
            }
        }
    }

    /// Names of the configuration.
    fn configured(&mut self) {
        let settings = self.input.settings;
        for (key, namespace) in &settings.namespaces {
            if !self.has_namespace(namespace) {
                self.warn(Warning::NoConfiguredNamespace {
                    key: key.clone(),
                    namespace: namespace.clone(),
                });
            }
        }
        for (key, domain) in &settings.dispatched {
            if self.is_dispatched_to_nobody(domain) {
                let (key, domain) = (key.clone(), domain.clone());
                self.warn(Warning::NoDispatched { key, domain });
            }
        }
        for index in self.services.unused_aliases() {
            let mut hosts = self.out.domains.values().flat_map(|d| &d.hosts);
            if !hosts.any(|h| settings.alias_matches(index, h)) {
                let pattern = settings.alias_pattern(index).to_owned();
                self.warn(Warning::UnusedAlias { index, pattern });
            }
        }
    }

    /// Whether the domain is the name of a Service, or a wildcard for such names, and there is none. A dispatch is mostly
    /// for hosts that the mesh does not know, so that of other names nothing can be said.
    fn is_dispatched_to_nobody(&mut self, domain: &str) -> bool {
        let name = domain.rsplit_once(':').map_or(domain, |(name, _)| name);
        let Some(name) = normal(name) else {
            return false;
        };
        let suffix = service_suffix(&self.input.settings.domain);
        if name.starts_with('*') {
            let inside = name.ends_with(&suffix) && name.len() > suffix.len() + 1;
            if inside {
                self.out.consulted.hosts.insert(name.clone());
            }
            return inside
                && self.services.under(&name).is_empty()
                && self.services.routes_under(&name).is_empty();
        }
        let long = name.ends_with(".svc") || name.ends_with(&suffix);
        // `name.namespace` is short for a Service if there is such a namespace.
        let (_, namespace) = name.split_once('.').unwrap_or_default();
        if !long && (namespace.is_empty() || !self.has_namespace(namespace)) {
            return false;
        }
        let found = find(self.services, &name, "", &self.input.settings.domain);
        self.out.consulted.hosts.extend(found.asked);
        found.host.is_none()
    }
}

fn hidden(entry: &HostEntry, client: &str) -> Warning {
    Warning::HiddenService {
        host: entry.host.to_string(),
        client: client.to_owned(),
        object: entry.object(),
    }
}
