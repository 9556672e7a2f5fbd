//! Whom AuthorizationPolicies let in: callers that call a target themselves may do what the fallback may not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use trimtab_crds::istio::AuthorizationPolicy;
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_mesh::model::{Identity, Service};
use trimtab_mesh::table::{Known, Row};

use crate::hints::goes_with;

/// A policy that allows or denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which policy.
    pub id: Identity,
    deny: bool,
    selector: BTreeMap<String, String>,
    /// Services of `targetRefs`; `None`: there are no references.
    services: Option<BTreeSet<String>>,
    rules: Vec<Rule>,
}

/// All of `when` and one of `from`; without `from` anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    from: Vec<Source>,
    when: Vec<Source>,
}

/// What is asked of who calls. What does not depend on who passes the call on, such as JWT claims, is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    principals: Words,
    namespaces: Words,
    accounts: Words,
    /// `ipBlocks`: addresses that match.
    inside: bool,
    /// `notIpBlocks`: addresses that do not.
    outside: bool,
}

/// One of `any`, if there are any, and none of `not`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Words {
    any: Vec<String>,
    not: Vec<String>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Trust domain of the mesh.
    pub domain: Arc<str>,
    /// Namespace.
    pub namespace: String,
    /// ServiceAccount.
    pub account: String,
}

impl Peer {
    /// As policies name it.
    pub fn principal(&self) -> String {
        self.principal_of(&self.domain)
    }

    fn principal_of(&self, domain: &str) -> String {
        format!("{domain}/ns/{}/sa/{}", self.namespace, self.account)
    }
}

impl Words {
    fn read(object: &Value, key: &str, not: &str) -> Self {
        let list = |key: &str| texts(object.get(key)).map(str::to_owned).collect();
        Self {
            any: list(key),
            not: list(not),
        }
    }

    fn admit(&self, texts: &[String]) -> bool {
        let one = |pattern: &String| texts.iter().any(|text| matches(pattern, text));
        (self.any.is_empty() || self.any.iter().any(one)) && !self.not.iter().any(one)
    }
}

/// Istio's patterns: exact, `*`, a prefix or a suffix.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => !text.is_empty(),
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn items<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let list = object.get(key).and_then(Value::as_array);
    list.into_iter().flatten()
}

impl Source {
    fn read(source: &Value, own: &str) -> Self {
        let some = |key: &str| texts(source.get(key)).next().is_some();
        let mut accounts = Words::read(source, "serviceAccounts", "notServiceAccounts");
        for account in accounts.any.iter_mut().chain(&mut accounts.not) {
            if !account.contains('/') {
                *account = format!("{own}/{account}");
            }
        }
        Self {
            principals: Words::read(source, "principals", "notPrincipals"),
            namespaces: Words::read(source, "namespaces", "notNamespaces"),
            accounts,
            inside: some("ipBlocks"),
            outside: some("notIpBlocks"),
        }
    }

    fn read_when(condition: &Value) -> Option<Self> {
        let words = Words::read(condition, "values", "notValues");
        let has = (!words.any.is_empty(), !words.not.is_empty());
        Some(match condition.get("key")?.as_str()? {
            "source.principal" => Self {
                principals: words,
                ..Self::default()
            },
            "source.namespace" => Self {
                namespaces: words,
                ..Self::default()
            },
            "source.ip" => Self {
                inside: has.0,
                outside: has.1,
                ..Self::default()
            },
            _ => return None,
        })
    }

    /// `inside`, `outside`: whether the caller's address counts as one of `ipBlocks`, and as none of `notIpBlocks`.
    fn admits(&self, peer: &Peer, inside: bool, outside: bool) -> bool {
        // Istio takes the default name for the own trust domain, whatever that is.
        let principals = [&*peer.domain, DEFAULT_DOMAIN].map(|domain| peer.principal_of(domain));
        let account = format!("{}/{}", peer.namespace, peer.account);
        self.principals.admit(&principals)
            && self.namespaces.admit(std::slice::from_ref(&peer.namespace))
            && self.accounts.admit(&[account])
            && (!self.inside || inside)
            && (!self.outside || outside)
    }
}

impl Rule {
    fn read(rule: &Value, own: &str) -> Self {
        let from = items(rule, "from").filter_map(|from| from.get("source"));
        Self {
            from: from.map(|source| Source::read(source, own)).collect(),
            when: items(rule, "when").filter_map(Source::read_when).collect(),
        }
    }
}

impl Row for Policy {
    type Object = AuthorizationPolicy;
    type Index = ();

    /// Of `AUDIT` and `CUSTOM` nothing is known that depends on who calls.
    fn read(object: &Arc<AuthorizationPolicy>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let deny = match spec.action.as_deref() {
            None | Some("" | "ALLOW") => false,
            Some("DENY") => true,
            Some(_) => return None,
        };
        let id = Identity::of(object.as_ref());
        let references = spec.targets.references();
        let services = references
            .filter(|target| target.get("kind").and_then(Value::as_str) == Some("Service"))
            .filter_map(|target| target.get("name")?.as_str().map(str::to_owned));
        let rules = spec
            .rules
            .iter()
            .map(|rule| Rule::read(rule, &id.namespace));
        Some(Self {
            deny,
            selector: spec.targets.labels(),
            services: spec.targets.references().next().map(|_| services.collect()),
            rules: rules.collect(),
            id,
        })
    }
}

impl Policy {
    /// Whether a rule may match: `inside`, `outside` as in [`Source::admits`].
    fn matches(&self, peer: &Peer, inside: bool, outside: bool) -> bool {
        let one = |source: &Source| source.admits(peer, inside, outside);
        let mut rules = self.rules.iter();
        rules.any(|rule| {
            (rule.from.is_empty() || rule.from.iter().any(one)) && rule.when.iter().all(one)
        })
    }

    /// Whether it stops the fallback, for all that it says by itself. Addresses that it names are not the fallback's.
    pub fn stops(&self, fallback: &Peer) -> bool {
        self.matches(fallback, false, true) == self.deny
    }

    /// Whether it lets a caller in, if its address is a right one.
    fn passes(&self, caller: &Peer) -> bool {
        let right = !self.deny;
        self.matches(caller, right, right) != self.deny
    }

    /// Whether it is for the pods of a Service, as far as labels tell. Those of the root namespace are for all namespaces.
    pub fn is_for(&self, service: &Service, root: &str) -> bool {
        let own = self.id.namespace == service.id.namespace;
        match &self.services {
            Some(names) => own && names.contains(&*service.id.name),
            None if own || *self.id.namespace == *root => {
                self.selector.is_empty() || goes_with(&self.selector, &service.selector)
            }
            None => false,
        }
    }
}

/// The policies that refuse the fallback and let a caller in, of those that are for one target; none: both fare alike.
pub fn refusing<'a>(
    policies: &[&'a Arc<Policy>],
    caller: &Peer,
    fallback: &Peer,
) -> Vec<&'a Arc<Policy>> {
    let (deny, allow): (Vec<_>, Vec<_>) = policies.iter().copied().partition(|p| p.deny);
    let passes = |policy: &&Arc<Policy>| policy.passes(caller);
    if !deny.iter().all(passes) || !(allow.is_empty() || allow.iter().any(passes)) {
        return Vec::new();
    }
    let mut out: Vec<_> = deny.into_iter().filter(|p| p.stops(fallback)).collect();
    if allow.iter().all(|p| p.stops(fallback)) {
        out.extend(allow.into_iter().filter(passes));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: &Value) -> Arc<Policy> {
        let object = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        trimtab_mesh::table::read::<Policy>("", [Arc::new(object)]).remove(0)
    }

    fn from(action: &str, source: &Value) -> Value {
        json!({"action": action, "rules": [{"from": [{"source": source}]}]})
    }

    fn peer(namespace: &str, account: &str) -> Peer {
        Peer {
            domain: "mesh.example".into(),
            namespace: namespace.to_owned(),
            account: account.to_owned(),
        }
    }

    /// Whether the first call of `web/front` fails where later ones do not.
    fn refused(specs: &[Value]) -> bool {
        let policies: Vec<_> = specs.iter().map(policy).collect();
        let policies: Vec<_> = policies.iter().collect();
        let fallback = peer("istio-system", "global-sidecar");
        !refusing(&policies, &peer("web", "front"), &fallback).is_empty()
    }

    #[test]
    fn fault_t15_policies_that_tell_the_fallback_from_the_caller() {
        let allow = |source: Value| from("ALLOW", &source);
        let deny = |source: Value| from("DENY", &source);
        for spec in [
            allow(json!({"principals": ["mesh.example/ns/web/sa/front"]})),
            allow(json!({"principals": ["cluster.local/ns/web/sa/front"]})),
            allow(json!({"principals": ["*/ns/web/sa/front"]})),
            allow(json!({"principals": ["mesh.example/ns/web/*"]})),
            allow(json!({"namespaces": ["we*"]})),
            allow(json!({"serviceAccounts": ["web/front"]})),
            allow(json!({"notNamespaces": ["istio-system"]})),
            allow(json!({"ipBlocks": ["10.0.0.0/24"]})),
            deny(json!({"principals": ["*/sa/global-sidecar"]})),
            deny(json!({"notPrincipals": ["mesh.example/ns/web/sa/front"]})),
            deny(json!({"notNamespaces": ["web"]})),
            deny(json!({"notServiceAccounts": ["web/front"]})),
            deny(json!({"notIpBlocks": ["10.0.0.0/24"]})),
            json!({"rules": [{"when": [{"key": "source.namespace", "values": ["web"]}]}]}),
            json!({"action": "DENY", "rules": [{"when": [{"key": "source.principal", "notValues": ["*/ns/web/sa/front"]}]}]}),
        ] {
            assert!(refused(std::slice::from_ref(&spec)), "{spec}");
        }
        for spec in [
            // All come in, or neither of the two.
            json!({}),
            json!({"rules": [{}]}),
            json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}),
            allow(json!({"principals": ["*"]})),
            allow(json!({"namespaces": ["other"]})),
            allow(json!({"namespaces": ["web", "istio-system"]})),
            allow(json!({"requestPrincipals": ["*"]})),
            deny(json!({"namespaces": ["web", "istio-system"]})),
            deny(json!({"notNamespaces": ["other"]})),
            deny(json!({"ipBlocks": ["10.9.0.0/16"]})),
        ] {
            assert!(!refused(std::slice::from_ref(&spec)), "{spec}");
        }
    }

    #[test]
    fn policies_of_one_target_count_together() {
        let caller = from("ALLOW", &json!({"namespaces": ["web"]}));
        let nobody = json!({});
        let fallback = from("ALLOW", &json!({"namespaces": ["istio-system"]}));
        assert!(refused(&[nobody.clone(), caller.clone()]));
        assert!(!refused(&[nobody, caller.clone(), fallback]));
        let closed = from("DENY", &json!({"namespaces": ["web"]}));
        assert!(!refused(&[caller, closed]), "the caller does not come in");
    }

    #[test]
    fn a_policy_is_for_what_it_selects() {
        let service = Service {
            id: Identity {
                namespace: "shop".into(),
                name: "a".into(),
                ..Identity::default()
            },
            selector: [("app".to_owned(), "a".to_owned())].into(),
            ..Service::default()
        };
        let is_for = |spec: Value| policy(&spec).is_for(&service, "istio-system");
        assert!(is_for(json!({})));
        assert!(is_for(
            json!({"selector": {"matchLabels": {"app": "a", "version": "1"}}})
        ));
        assert!(!is_for(json!({"selector": {"matchLabels": {"app": "b"}}})));
        assert!(is_for(
            json!({"targetRefs": [{"kind": "Service", "name": "a"}]})
        ));
        assert!(!is_for(
            json!({"targetRefs": [{"kind": "Gateway", "name": "a"}]})
        ));
        let elsewhere = Service {
            id: Identity {
                namespace: "other".into(),
                ..service.id.clone()
            },
            ..service.clone()
        };
        let all = policy(&json!({}));
        assert!(!all.is_for(&elsewhere, "istio-system"));
        assert!(all.is_for(&elsewhere, "shop"), "of the root namespace");
    }
}
