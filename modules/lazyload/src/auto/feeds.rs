//! Watch events: which names they touch.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::{Resource, ResourceExt};
use trimtab_crds::fence::{
    CREATED_BY, CREATED_BY_LABEL, FENCED_LABEL, LAZY_XDS_ANNOTATION, ServiceFence,
};
use trimtab_kit::watch::Feed;

use super::decide::{WORKLOAD_IDENTITY, label_key};
use super::{AutoFences, FenceFacts, NamespaceFacts, ServiceFacts, State};
use crate::object::FenceKey;

fn key_of<K: Resource>(object: &K) -> FenceKey {
    FenceKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

fn fenced(labels: &BTreeMap<String, String>) -> Option<bool> {
    match labels.get(FENCED_LABEL).map(String::as_str) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    }
}

fn lazy(annotations: &BTreeMap<String, String>) -> bool {
    annotations
        .get(LAZY_XDS_ANNOTATION)
        .is_some_and(|v| v.eq_ignore_ascii_case("true"))
}

impl State {
    fn put_service(&mut self, service: &Service) -> Option<FenceKey> {
        let key = key_of(service);
        let spec = service.spec.as_ref();
        let alias = spec.is_some_and(|s| s.type_.as_deref() == Some("ExternalName"));
        let selector = spec.and_then(|s| s.selector.as_ref());
        let facts = ServiceFacts {
            selects: !alias && selector.is_some_and(|s| !s.is_empty()),
            fenced: fenced(service.labels()),
            lazy: lazy(service.annotations()),
        };
        let names = self.services_of.entry(key.namespace.clone()).or_default();
        names.insert(key.name.clone());
        let old = self.services.insert(key.clone(), facts.clone());
        (old.as_ref() != Some(&facts)).then_some(key)
    }

    fn drop_service(&mut self, key: FenceKey) -> Option<FenceKey> {
        if let Some(names) = self.services_of.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.services_of.remove(&key.namespace);
            }
        }
        self.services.remove(&key).map(|_| key)
    }

    fn of_namespace(&self, namespace: &str) -> Vec<FenceKey> {
        let key = |name: &String| FenceKey {
            namespace: namespace.to_owned(),
            name: name.clone(),
        };
        let services = self
            .services_of
            .get(namespace)
            .into_iter()
            .flatten()
            .map(key);
        let pods = self
            .pods
            .keys()
            .filter(|k| k.namespace == namespace)
            .cloned();
        services.chain(pods).collect()
    }

    fn put_namespace(&mut self, namespace: &Namespace) -> Vec<FenceKey> {
        let name = namespace.name_any();
        let facts = NamespaceFacts {
            fenced: fenced(namespace.labels()),
            lazy: lazy(namespace.annotations()),
            labels: namespace.labels().clone(),
        };
        let old = self.namespaces.insert(name.clone(), facts.clone());
        if old.as_ref() == Some(&facts) {
            return Vec::new();
        }
        self.of_namespace(&name)
    }

    fn put_fence(&mut self, fence: &ServiceFence) -> Option<FenceKey> {
        let key = key_of(fence);
        let facts = FenceFacts {
            ours: fence.labels().get(CREATED_BY_LABEL).map(String::as_str) == Some(CREATED_BY),
            uid: fence.uid().unwrap_or_default(),
            revision: fence.labels().get("istio.io/rev").cloned(),
        };
        let old = self.fences.insert(key.clone(), facts.clone());
        (old.as_ref() != Some(&facts)).then_some(key)
    }

    /// The fence that a pod's label asks for, with the label's value.
    fn put_pod(&mut self, pod: &Pod, label: Option<(&str, &str)>) -> Vec<FenceKey> {
        let Some((label, alias)) = label else {
            return Vec::new();
        };
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        let wanted = pod
            .labels()
            .get(label)
            .filter(|v| !v.is_empty())
            .map(|value| {
                let name = format!("{alias}-{}{WORKLOAD_IDENTITY}", value.to_lowercase());
                let key = FenceKey {
                    namespace: pod.namespace().unwrap_or_default(),
                    name,
                };
                (key, value.clone())
            });
        if self.fence_of_pod.get(&name) == wanted.as_ref() {
            return Vec::new();
        }
        let mut touched = self.drop_pod(&name);
        if let Some((key, value)) = wanted {
            self.pods
                .entry(key.clone())
                .or_default()
                .insert(name.1.clone());
            self.values.insert(key.clone(), value.clone());
            self.fence_of_pod.insert(name, (key.clone(), value));
            touched.push(key);
        }
        touched
    }

    fn drop_pod(&mut self, name: &(String, String)) -> Vec<FenceKey> {
        let Some((key, _)) = self.fence_of_pod.remove(name) else {
            return Vec::new();
        };
        if let Some(pods) = self.pods.get_mut(&key) {
            pods.remove(&name.1);
            if pods.is_empty() {
                self.pods.remove(&key);
                self.values.remove(&key);
            }
        }
        vec![key]
    }
}

/// Keys that a complete list no longer has.
fn gone<'a, K: Resource + 'a>(
    known: impl Iterator<Item = &'a FenceKey>,
    listed: &[Arc<K>],
    unreadable: &[(String, String)],
) -> Vec<FenceKey> {
    let listed: std::collections::HashSet<FenceKey> =
        listed.iter().map(|o| key_of(o.as_ref())).collect();
    let unreadable = |k: &FenceKey| {
        unreadable
            .iter()
            .any(|(namespace, name)| *namespace == k.namespace && *name == k.name)
    };
    known
        .filter(|k| !listed.contains(*k) && !unreadable(k))
        .cloned()
        .collect()
}

impl Feed<Service> for AutoFences {
    fn apply(&self, service: Arc<Service>) {
        let touched = self.state.lock().put_service(&service);
        self.mark(touched);
    }

    fn delete(&self, service: Arc<Service>) {
        let touched = self.state.lock().drop_service(key_of(service.as_ref()));
        self.mark(touched);
    }

    fn reset(&self, services: Vec<Arc<Service>>, unreadable: &[(String, String)]) {
        let mut state = self.state.lock();
        let gone = gone(state.services.keys(), &services, unreadable);
        let mut touched: Vec<FenceKey> = gone
            .into_iter()
            .filter_map(|k| state.drop_service(k))
            .collect();
        touched.extend(services.iter().filter_map(|s| state.put_service(s)));
        drop(state);
        self.mark(touched);
    }
}

impl Feed<Namespace> for AutoFences {
    fn apply(&self, namespace: Arc<Namespace>) {
        let touched = self.state.lock().put_namespace(&namespace);
        self.mark(touched);
    }

    fn delete(&self, namespace: Arc<Namespace>) {
        let name = namespace.name_any();
        let mut state = self.state.lock();
        state.namespaces.remove(&name);
        let touched = state.of_namespace(&name);
        drop(state);
        self.mark(touched);
    }

    fn reset(&self, namespaces: Vec<Arc<Namespace>>, unreadable: &[(String, String)]) {
        let mut state = self.state.lock();
        let listed: std::collections::HashSet<String> =
            namespaces.iter().map(|n| n.name_any()).collect();
        let mut gone: Vec<String> = state.namespaces.keys().cloned().collect();
        gone.retain(|n| !listed.contains(n) && !unreadable.iter().any(|(_, name)| name == n));
        let mut touched = Vec::new();
        for name in gone {
            state.namespaces.remove(&name);
            touched.extend(state.of_namespace(&name));
        }
        for namespace in &namespaces {
            touched.extend(state.put_namespace(namespace));
        }
        drop(state);
        self.mark(touched);
    }
}

impl Feed<ServiceFence> for AutoFences {
    fn apply(&self, fence: Arc<ServiceFence>) {
        let touched = self.state.lock().put_fence(&fence);
        self.mark(touched);
    }

    fn delete(&self, fence: Arc<ServiceFence>) {
        let key = key_of(fence.as_ref());
        self.state.lock().fences.remove(&key);
        self.mark([key]);
    }

    fn reset(&self, fences: Vec<Arc<ServiceFence>>, unreadable: &[(String, String)]) {
        let mut state = self.state.lock();
        let mut touched = gone(state.fences.keys(), &fences, unreadable);
        for key in &touched {
            state.fences.remove(key);
        }
        touched.extend(fences.iter().filter_map(|f| state.put_fence(f)));
        drop(state);
        self.mark(touched);
    }
}

impl Feed<Pod> for AutoFences {
    fn apply(&self, pod: Arc<Pod>) {
        let config = self.config.lock().clone();
        let touched = self.state.lock().put_pod(&pod, label_key(&config));
        self.mark(touched);
    }

    fn delete(&self, pod: Arc<Pod>) {
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        let touched = self.state.lock().drop_pod(&name);
        self.mark(touched);
    }

    fn reset(&self, pods: Vec<Arc<Pod>>, unreadable: &[(String, String)]) {
        let config = self.config.lock().clone();
        let mut state = self.state.lock();
        let listed: std::collections::HashSet<(String, String)> = pods
            .iter()
            .map(|p| (p.namespace().unwrap_or_default(), p.name_any()))
            .collect();
        let mut gone: Vec<(String, String)> = state.fence_of_pod.keys().cloned().collect();
        gone.retain(|n| !listed.contains(n) && !unreadable.contains(n));
        let mut touched: Vec<FenceKey> = gone.iter().flat_map(|n| state.drop_pod(n)).collect();
        for pod in &pods {
            touched.extend(state.put_pod(pod, label_key(&config)));
        }
        drop(state);
        self.mark(touched);
    }
}
