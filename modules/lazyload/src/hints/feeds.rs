//! Watch events: whose hints they may change.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Resource, ResourceExt};
use trimtab_crds::istio::{AuthorizationPolicy, ServiceEntry};
use trimtab_kit::watch::Feed;

use super::templates::Template;
use super::{Hints, State};
use crate::learn::hints::{Source, policy_hint, template_names};
use crate::mesh::Name;
use crate::object::Directory;

fn name_of<K: Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn kept<K: Resource>(objects: &[Arc<K>], unreadable: &[Name]) -> HashSet<Name> {
    let listed = objects.iter().map(|o| name_of(o.as_ref()));
    listed.chain(unreadable.iter().cloned()).collect()
}

impl State {
    fn mark_sources<'a>(&mut self, sources: impl IntoIterator<Item = &'a Source>) {
        for source in sources {
            let (namespace, account) = match source {
                Source::ServiceAccount { namespace, name } => (namespace, Some(name.as_str())),
                Source::Namespace(namespace) => (namespace, None),
            };
            self.dirty
                .extend(self.templates.callers_in(namespace, account));
        }
    }

    /// A host has come, gone or changed: its first label that is no wildcard finds those that may name it.
    fn mark_host(&mut self, host: &str) {
        let first = host.split('.').find(|label| !label.contains('*'));
        let first = first.unwrap_or_default().to_ascii_lowercase();
        self.dirty.extend(self.templates.naming(&first).cloned());
    }

    fn mark_address(&mut self, address: &str) {
        if let Ok(range) = address.parse::<IpNet>() {
            let named: Vec<String> = self
                .templates
                .addresses()
                .filter(|a| range.contains(*a))
                .map(IpAddr::to_string)
                .collect();
            for address in named {
                self.dirty.extend(self.templates.naming(&address).cloned());
            }
        } else if let Ok(address) = address.parse::<IpAddr>() {
            let text = address.to_string();
            self.dirty.extend(self.templates.naming(&text).cloned());
        }
    }

    fn mark_service(&mut self, service: &Service) {
        self.mark_host(&service.name_any());
        let spec = service.spec.as_ref();
        let all = spec
            .and_then(|s| s.cluster_ips.as_ref())
            .into_iter()
            .flatten();
        for address in all.chain(spec.and_then(|s| s.cluster_ip.as_ref())) {
            self.mark_address(address);
        }
        let sources = self
            .policies
            .sources_in(&service.namespace().unwrap_or_default());
        self.mark_sources(&sources);
    }

    fn mark_entry(&mut self, entry: &ServiceEntry) {
        for host in &entry.spec.hosts {
            self.mark_host(host);
        }
        for address in &entry.spec.addresses {
            self.mark_address(address);
        }
    }

    fn mark_all(&mut self) {
        let all = self.templates.callers();
        self.dirty.extend(all);
    }

    fn set_policy(&mut self, policy: &AuthorizationPolicy, there: bool) {
        let hint = there
            .then(|| serde_json::to_value(policy).ok())
            .flatten()
            .and_then(|value| policy_hint(&value));
        let touched = self.policies.set(&name_of(policy), hint);
        self.mark_sources(&touched);
    }

    fn drop_pod(&mut self, name: &Name) {
        let touched = self.templates.remove(name);
        self.dirty.extend(touched);
    }
}

impl Hints {
    fn put_pod(&self, pod: &Pod) {
        let name = name_of(pod);
        let (Some(spec), Some(caller)) = (&pod.spec, self.index.caller_of_pod(&name.0, &name.1))
        else {
            return;
        };
        let uid = pod.uid().unwrap_or_default();
        if self.state.lock().templates.knows(&name, &uid, &caller) {
            return;
        }
        let account = spec.service_account_name.clone();
        let template = Template {
            account: account.unwrap_or_else(|| "default".to_owned()),
            names: template_names(spec),
        };
        self.change(|s| {
            let touched = s.templates.put(name, uid, caller, template);
            s.dirty.extend(touched);
        });
    }
}

impl Feed<Pod> for Hints {
    fn apply(&self, pod: Arc<Pod>) {
        self.put_pod(&pod);
    }

    fn delete(&self, pod: Arc<Pod>) {
        self.change(|s| s.drop_pod(&name_of(pod.as_ref())));
    }

    fn reset(&self, pods: Vec<Arc<Pod>>, unreadable: &[Name]) {
        let kept = kept(&pods, unreadable);
        self.change(|s| {
            for name in s.templates.pods().iter().filter(|n| !kept.contains(*n)) {
                s.drop_pod(name);
            }
        });
        for pod in &pods {
            self.put_pod(pod);
        }
    }
}

impl Feed<AuthorizationPolicy> for Hints {
    fn apply(&self, policy: Arc<AuthorizationPolicy>) {
        self.change(|s| s.set_policy(&policy, true));
    }

    fn delete(&self, policy: Arc<AuthorizationPolicy>) {
        self.change(|s| s.set_policy(&policy, false));
    }

    fn reset(&self, policies: Vec<Arc<AuthorizationPolicy>>, unreadable: &[Name]) {
        let kept = kept(&policies, unreadable);
        self.change(|s| {
            for name in s.policies.names().iter().filter(|n| !kept.contains(*n)) {
                let touched = s.policies.set(name, None);
                s.mark_sources(&touched);
            }
            for policy in &policies {
                s.set_policy(policy, true);
            }
        });
    }
}

impl Feed<Service> for Hints {
    fn apply(&self, service: Arc<Service>) {
        self.change(|s| s.mark_service(&service));
    }

    fn delete(&self, service: Arc<Service>) {
        self.change(|s| s.mark_service(&service));
    }

    fn reset(&self, _: Vec<Arc<Service>>, _: &[Name]) {
        self.change(State::mark_all);
    }
}

impl Feed<ServiceEntry> for Hints {
    fn apply(&self, entry: Arc<ServiceEntry>) {
        self.change(|s| s.mark_entry(&entry));
    }

    fn delete(&self, entry: Arc<ServiceEntry>) {
        self.change(|s| s.mark_entry(&entry));
    }

    fn reset(&self, _: Vec<Arc<ServiceEntry>>, _: &[Name]) {
        self.change(State::mark_all);
    }
}
