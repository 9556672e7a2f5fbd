//! Watch events into the index, kind by kind.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use trimtab_crds::istio::{DestinationRule, ServiceEntry};
use trimtab_crds::limiter::{LimiterSpec, LimiterStatus, first_form, v1alpha2};
use trimtab_kit::watch::Feed;

use trimtab_mesh::names::{full_host, meant};

use super::{
    DestinationRuleFacts, Form, Index, LimiterKey, LimiterObject, Name, ServiceEntryFacts,
    ServiceFacts, State,
};
use crate::input::ServicePort;
use crate::owner::Owner;

fn name_of<K: Resource>(object: &K) -> Name {
    (
        object.meta().namespace.clone().unwrap_or_default(),
        object.meta().name.clone().unwrap_or_default(),
    )
}

impl State {
    fn put_limiter(&mut self, key: &LimiterKey, object: LimiterObject) {
        if let Some(old) = self.limiters.get(key)
            && old.owner == object.owner
            && old.spec == object.spec
            && old.undecodable == object.undecodable
        {
            return; // a status write of our own: nothing to decide (no loop)
        }
        let uid = self.limiters.get(key).map(|old| old.owner.uid.clone());
        if uid.is_some_and(|uid| !uid.is_empty() && uid != object.owner.uid) {
            // Deleted and made anew while nobody looked: nothing of the old one is of use.
            self.gone.push(key.clone());
        }
        self.limiters.insert(key.clone(), object);
        // A limiter of the other form may be shadowed now.
        self.touch_name(&key.namespace, &key.name);
    }

    fn drop_limiter(&mut self, key: &LimiterKey) {
        if let Some(old) = self.limiters.remove(key) {
            self.unregister(key);
            let touched = self.peers.leave(key);
            self.dirty.extend(touched);
            if let Some(keys) = old.spec.host.as_ref().and_then(|h| {
                self.by_entry_host
                    .get_mut(&full_host(h, &key.namespace, &self.domain))
            }) {
                keys.remove(key);
            }
            self.dirty.remove(key);
            self.gone.push(key.clone());
            self.touch_name(&key.namespace, &key.name);
        }
    }

    fn drop_rule(&mut self, name: &Name) {
        if let Some(old) = self.rules.remove(name) {
            if let Some(names) = self.rules_by_host.get_mut(&old.host) {
                names.remove(name);
            }
            if let Some(meant) = meant(&old.host, &self.domain)
                && let Some(hosts) = self.misread.get_mut(&meant)
            {
                hosts.remove(&old.host);
                self.touch_host(&meant);
            }
            self.touch_host(&old.host);
        }
    }

    fn drop_entry(&mut self, name: &Name) {
        if let Some(old) = self.entries.remove(name) {
            for host in old.hosts {
                if let Some(keys) = self
                    .by_entry_host
                    .get(&full_host(&host, &name.0, &self.domain))
                {
                    self.dirty.extend(keys.iter().cloned());
                }
                if let Some(names) = self.entries_by_host.get_mut(&(name.0.clone(), host)) {
                    names.remove(name);
                }
            }
        }
    }

    fn put_rule(&mut self, rule: &DestinationRule) {
        let name = name_of(rule);
        self.drop_rule(&name);
        let host = full_host(&rule.spec.host, &name.0, &self.domain);
        if let Some(meant) = meant(&host, &self.domain) {
            self.misread
                .entry(meant.clone())
                .or_default()
                .insert(host.clone());
            self.touch_host(&meant);
        }
        self.rules_by_host
            .entry(host.clone())
            .or_default()
            .insert(name.clone());
        self.touch_host(&host);
        self.rules.insert(
            name,
            DestinationRuleFacts {
                host,
                subsets: rule.spec.subsets.clone(),
            },
        );
    }

    fn put_entry(&mut self, entry: &ServiceEntry) {
        let name = name_of(entry);
        self.drop_entry(&name);
        let spec = &entry.spec;
        let selector = spec
            .workload_selector
            .as_ref()
            .map(|s| s.labels.clone())
            .filter(|l| !l.is_empty());
        // Slime's default of `seLabelSelectorKeys`.
        let by_label = || {
            entry
                .labels()
                .get("app")
                .map(|v| ("app".to_owned(), v.clone()))
                .into_iter()
                .collect()
        };
        let count = spec.endpoints.len().max(1) * spec.ports.len().max(1);
        let facts = ServiceEntryFacts {
            hosts: spec.hosts.clone(),
            selector: selector.unwrap_or_else(by_label),
            endpoints: if spec.endpoints.is_empty() {
                0
            } else {
                i64::try_from(count).unwrap_or(i64::MAX)
            },
        };
        for host in &facts.hosts {
            self.entries_by_host
                .entry((name.0.clone(), host.clone()))
                .or_default()
                .insert(name.clone());
            if let Some(keys) = self
                .by_entry_host
                .get(&full_host(host, &name.0, &self.domain))
            {
                self.dirty.extend(keys.iter().cloned());
            }
        }
        self.entries.insert(name, facts);
    }

    fn put_service(&mut self, service: &Service) {
        let name = name_of(service);
        let spec = service.spec.as_ref();
        let facts = ServiceFacts {
            selector: spec.and_then(|s| s.selector.clone()).unwrap_or_default(),
            ports: spec.map(ports).unwrap_or_default(),
        };
        if self.services.get(&name) != Some(&facts) {
            self.services.insert(name.clone(), facts);
            self.touch_name(&name.0, &name.1);
        }
    }

    fn drop_service(&mut self, name: &Name) {
        if self.services.remove(name).is_some() {
            self.touch_name(&name.0, &name.1);
        }
    }

    fn put_pod(&mut self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        for labels in self.pods.apply(pod) {
            self.touch_pairs(&namespace, &labels);
        }
    }

    fn drop_pod(&mut self, name: &Name) {
        if let Some(labels) = self.pods.remove(name) {
            self.touch_pairs(&name.0, &labels);
        }
    }
}

/// Ports of a Service, sorted. As for the API server, a `targetPort` of 0 or "" is an absent one.
fn ports(spec: &ServiceSpec) -> Box<[ServicePort]> {
    let sorted: BTreeSet<ServicePort> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| {
            let port = u16::try_from(p.port).ok()?;
            let target = match &p.target_port {
                None | Some(IntOrString::Int(0)) => Some(port),
                Some(IntOrString::Int(number)) => Some(u16::try_from(*number).ok()?),
                Some(IntOrString::String(name)) => name.is_empty().then_some(port),
            };
            Some(ServicePort { port, target })
        })
        .collect();
    sorted.into_iter().collect()
}

fn key_of<K: Resource>(object: &K, form: Form) -> LimiterKey {
    let (namespace, name) = name_of(object);
    LimiterKey {
        namespace,
        name,
        form,
    }
}

fn limiter<K: ResourceExt>(
    object: &K,
    form: Form,
    spec: LimiterSpec,
    status: Option<&LimiterStatus>,
) -> (LimiterKey, LimiterObject) {
    let key = key_of(object, form);
    let owner = Owner {
        api_version: form.api_version().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: object.uid().unwrap_or_default(),
        generation: object.meta().generation.unwrap_or_default(),
        revision: object.labels().get("istio.io/rev").cloned(),
    };
    let object = LimiterObject {
        owner,
        spec: Arc::new(spec),
        status: Arc::new(status.cloned().unwrap_or_default()),
        undecodable: None,
    };
    (key, object)
}

/// Both forms feed alike.
macro_rules! limiter_feed {
    ($kind:ty, $form:expr) => {
        impl Feed<$kind> for Index {
            fn apply(&self, object: Arc<$kind>) {
                let (key, value) = limiter(
                    object.as_ref(),
                    $form,
                    (&object.spec).into(),
                    object.status.as_ref(),
                );
                self.with(|s| s.put_limiter(&key, value));
            }

            fn delete(&self, object: Arc<$kind>) {
                let key = key_of(object.as_ref(), $form);
                self.with(|s| s.drop_limiter(&key));
            }

            fn reset(&self, objects: Vec<Arc<$kind>>, unreadable: &[Name]) {
                self.with(|s| {
                    let kept: HashSet<LimiterKey> =
                        objects.iter().map(|o| key_of(o.as_ref(), $form)).collect();
                    let known = |k: &LimiterKey| {
                        kept.contains(k)
                            || unreadable.contains(&(k.namespace.clone(), k.name.clone()))
                    };
                    let gone: Vec<LimiterKey> = s
                        .limiters
                        .keys()
                        .filter(|k| k.form == $form && !known(*k))
                        .cloned()
                        .collect();
                    for key in &gone {
                        s.drop_limiter(key);
                    }
                    for object in &objects {
                        let (key, value) = limiter(
                            object.as_ref(),
                            $form,
                            (&object.spec).into(),
                            object.status.as_ref(),
                        );
                        s.put_limiter(&key, value);
                    }
                });
            }

            fn undecodable(&self, namespace: &str, name: &str, error: &str) {
                let key = LimiterKey {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    form: $form,
                };
                self.with(|s| s.mark_undecodable(key, error));
            }
        }
    };
}

limiter_feed!(v1alpha2::SmartLimiter, Form::V1alpha2);
limiter_feed!(first_form::SmartLimiter, Form::First);

impl State {
    fn mark_undecodable(&mut self, key: LimiterKey, error: &str) {
        let object = self
            .limiters
            .entry(key.clone())
            .or_insert_with(|| LimiterObject {
                owner: Owner {
                    api_version: key.form.api_version().to_owned(),
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    ..Owner::default()
                },
                spec: Arc::default(),
                status: Arc::default(),
                undecodable: None,
            });
        object.undecodable = Some(error.to_owned());
        self.dirty.insert(key);
    }
}

/// The kinds that limiters point at: put, drop, and a relist that drops what is gone.
macro_rules! facts_feed {
    ($kind:ty, $put:ident, $drop:ident, $names:expr) => {
        impl Feed<$kind> for Index {
            fn apply(&self, object: Arc<$kind>) {
                self.with(|s| s.$put(&object));
            }

            fn delete(&self, object: Arc<$kind>) {
                self.with(|s| s.$drop(&name_of(object.as_ref())));
            }

            fn reset(&self, objects: Vec<Arc<$kind>>, unreadable: &[Name]) {
                self.with(|s| {
                    let kept: HashSet<Name> = objects.iter().map(|o| name_of(o.as_ref())).collect();
                    let names: fn(&State) -> Vec<Name> = $names;
                    let gone: Vec<Name> = names(s)
                        .into_iter()
                        .filter(|n| !kept.contains(n) && !unreadable.contains(n))
                        .collect();
                    for name in &gone {
                        s.$drop(name);
                    }
                    for object in &objects {
                        s.$put(object);
                    }
                });
            }
        }
    };
}

facts_feed!(Service, put_service, drop_service, |s| s
    .services
    .keys()
    .cloned()
    .collect());
facts_feed!(Pod, put_pod, drop_pod, |s| s.pods.names());
facts_feed!(DestinationRule, put_rule, drop_rule, |s| s
    .rules
    .keys()
    .cloned()
    .collect());
facts_feed!(ServiceEntry, put_entry, drop_entry, |s| s
    .entries
    .keys()
    .cloned()
    .collect());
