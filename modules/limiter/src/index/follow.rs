//! Which limiters a change touches, kind by kind.

use std::sync::Arc;

use trimtab_mesh::Name;
use trimtab_mesh::model::{
    DestinationRule, Labels, LimitPatches, Namespace, Pod, Service, ServiceEntry, VirtualService,
};
use trimtab_mesh::names::full_host;
use trimtab_mesh::table::{Change, Follower};

use super::targets::ports;
use super::{DefaultLimits, FirstForm, Form, Index, LimiterKey, LimiterObject, State, V1alpha2};
use crate::owner::Owner;

impl State {
    fn put_limiter(&mut self, key: &LimiterKey, object: LimiterObject) {
        if let Some(old) = self.limiters.get_mut(key)
            && old.owner == object.owner
            && old.spec == object.spec
            && old.undecodable == object.undecodable
        {
            let changed = old.latest.descriptors != object.latest.descriptors
                || old.latest.observed_generation != object.latest.observed_generation;
            old.latest = object.latest;
            // Else it is a status write of our own: nothing to decide (no loop).
            if self.follows_leader && changed {
                self.dirty.insert(key.clone());
            }
            return;
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
        let Some(old) = self.limiters.remove(key) else {
            return;
        };
        let place = self.unregister(key);
        self.touch_place(key, place.as_ref());
        let touched = self.peers.leave(key);
        self.dirty.extend(touched);
        self.outbound.forget(key);
        if let Some(host) = &old.spec.host {
            let full = full_host(host, &key.namespace, &self.targets.domain);
            if let Some(keys) = self.by_entry_host.get_mut(&full) {
                keys.remove(key);
            }
        }
        self.dirty.remove(key);
        self.gone.push(key.clone());
        self.touch_name(&key.namespace, &key.name);
    }

    /// Another replica begins or ceases to decide: each limiter goes on from what its status says now.
    pub(super) fn turn(&mut self, follows_leader: bool) {
        self.follows_leader = follows_leader;
        for (key, limiter) in &mut self.limiters {
            limiter.status = limiter.latest.clone();
            self.dirty.insert(key.clone());
        }
    }

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
                latest: Arc::default(),
                undecodable: None,
            });
        object.undecodable = Some(error.to_owned());
        self.dirty.insert(key);
    }

    /// Touches the limiters of Services with these very pods that are for one port: another Service may take it.
    fn touch_neighbours(&mut self, namespace: &str, selector: &Labels) {
        for (label, value) in selector {
            let pair = (namespace.to_owned(), label.clone(), value.clone());
            let keys = self.by_pair.get(&pair).into_iter().flatten();
            let same = keys.filter(|key| {
                let registered = self.registered.get(key).map(|r| r.place.selector());
                let limiter = self.limiters.get(key);
                registered == Some(selector) && limiter.is_some_and(LimiterObject::names_port)
            });
            self.dirty.extend(same.cloned());
        }
    }

    /// Touches the limiters of a ServiceEntry's hosts.
    fn touch_entry(&mut self, entry: &ServiceEntry) {
        for host in &entry.spec.hosts {
            let full = full_host(host, &entry.id.namespace, &self.targets.domain);
            let keys = self.by_entry_host.get(&full).into_iter().flatten();
            self.dirty.extend(keys.cloned());
            self.dirty.extend(self.outbound.naming(host));
        }
    }
}

/// Both forms are followed alike.
macro_rules! follow_limiters {
    ($row:ty, $form:expr) => {
        impl Follower<$row> for Index {
            fn changed(&self, change: Change<'_, $row>) {
                let key = LimiterKey::new(change.name, $form);
                self.with(|s| match change.new {
                    Some(row) => s.put_limiter(&key, row.0.clone()),
                    None => s.drop_limiter(&key),
                });
            }

            fn undecodable(&self, name: &Name, error: &str) {
                self.with(|s| s.mark_undecodable(LimiterKey::new(name, $form), error));
            }
        }
    };
}

follow_limiters!(V1alpha2, Form::V1alpha2);
follow_limiters!(FirstForm, Form::First);

impl Follower<Service> for Index {
    fn changed(&self, change: Change<'_, Service>) {
        let matters = |s: &Arc<Service>| (s.selector.clone(), ports(s));
        if change.old.map(matters) != change.new.map(matters) {
            self.touch(&change.name.0, &change.name.1);
            self.with(|s| {
                for service in change.rows() {
                    s.touch_neighbours(&change.name.0, &service.selector);
                    s.dirty.extend(s.outbound.naming(&service.host));
                    // A limiter may name it by its short name, which a message then corrects.
                    s.dirty.extend(s.outbound.naming(&service.id.name));
                }
            });
        }
    }
}

impl Follower<Pod> for Index {
    fn changed(&self, change: Change<'_, Pod>) {
        let matters = |pod: &Arc<Pod>| {
            let group = pod.group.clone();
            (group, pod.ready, pod.resources, pod.capture.clone())
        };
        if change.old.map(matters) == change.new.map(matters) {
            return;
        }
        self.with(|s| {
            for pod in change.rows() {
                s.touch_pairs(&change.name.0, &pod.group.labels);
            }
        });
    }
}

impl Follower<Namespace> for Index {
    fn changed(&self, change: Change<'_, Namespace>) {
        let mode = |n: Option<&Arc<Namespace>>| Some(n?.dataplane_mode()?.to_owned());
        if mode(change.old) == mode(change.new) {
            return;
        }
        self.touch_namespace(&change.name.1);
    }
}

impl Index {
    /// Touches the limiters of pods of a namespace.
    fn touch_namespace(&self, namespace: &str) {
        self.with(|s| {
            let keys = s.limiters.keys();
            let keys = keys.filter(|k| k.namespace == *namespace || self.is_root(&k.namespace));
            s.dirty.extend(keys.cloned());
        });
    }
}

/// There are few of them.
impl Follower<LimitPatches> for Index {
    fn changed(&self, change: Change<'_, LimitPatches>) {
        let namespace = &change.name.0;
        if self.is_root(namespace) {
            self.with(|s| s.dirty.extend(s.limiters.keys().cloned()));
        } else {
            self.touch_namespace(namespace);
        }
    }
}

/// They are of interest when a limiter is first seen only; what is written later is our own.
impl Follower<DefaultLimits> for Index {
    fn changed(&self, _: Change<'_, DefaultLimits>) {}
}

impl Follower<DestinationRule> for Index {
    fn changed(&self, change: Change<'_, DestinationRule>) {
        self.with(|s| {
            for rule in change.rows() {
                s.touch_host(&rule.host);
                if let Some(meant) = &rule.meant {
                    s.touch_host(meant);
                }
            }
        });
    }
}

impl Follower<ServiceEntry> for Index {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        self.with(|s| change.rows().for_each(|entry| s.touch_entry(entry)));
    }
}

impl Follower<VirtualService> for Index {
    fn changed(&self, change: Change<'_, VirtualService>) {
        if change.old.map(|rule| &rule.hosts) == change.new.map(|rule| &rule.hosts) {
            return;
        }
        self.with(|s| {
            let row = |rule: Option<&Arc<VirtualService>>| rule.cloned();
            let (old, new) = (row(change.old), row(change.new));
            s.outbound.route(old.as_deref(), new.as_deref());
            for host in change.rows().flat_map(|rule| &rule.hosts) {
                s.dirty.extend(s.outbound.naming(host));
            }
        });
    }
}
