//! Garbage collection by owner references, and the content of namespaces and CRDs.
//!
//! Collection runs inside the request that made it necessary, so it is complete when the answer is given.
//! A real cluster does the same work a moment later. What was loaded to stay is left alone: a folder has few of the owners
//! that its objects name, and none with their UIDs.

use std::sync::Arc;

use serde_json::Value;

use crate::kinds::CRD_GROUP;
use crate::meta;
use crate::request::Target;
use crate::server::Server;
use crate::store::{Key, Place, ResourceId, Stored};

impl Server {
    fn target_of(&self, id: &ResourceId, key: &Key) -> Option<Target> {
        let resource = Arc::clone(self.registry.read().by_id(id)?);
        Some(Target {
            version: resource.storage.clone(),
            namespace: resource.namespaced.then(|| key.namespace.clone()),
            name: Some(key.name.clone()),
            status: false,
            resource,
        })
    }

    /// Deletes what has no owner left after `uid` is gone.
    pub(crate) fn collect_dependents(&self, uid: &str) {
        let places = self.store.read().dependents_of(uid);
        for place in places {
            self.collect(&place);
        }
    }

    /// An object that is created with owners that do not exist is collected too.
    pub(crate) fn collect_if_ownerless(&self, target: &Target, stored: &Value) {
        if !meta::owner_uids(stored).is_empty() {
            self.collect(&(target.resource.id.clone(), target.key(meta::name(stored))));
        }
    }

    fn collect(&self, place: &Place) {
        if self.held.lock().contains(place) {
            return;
        }
        let (id, key) = place;
        let Some(target) = self.target_of(id, key) else {
            return;
        };
        loop {
            let seen = {
                let store = self.store.read();
                let Some(seen) = store.get(id, key) else {
                    return;
                };
                let owners = meta::owner_uids(&seen.value);
                if owners.is_empty() || owners.iter().any(|uid| store.has_uid(uid)) {
                    return;
                }
                seen
            };
            if self.try_delete(&target, key, &seen, false).is_some() {
                return;
            }
        }
    }

    /// Takes the owner reference away from all dependents, so that they stay.
    pub(crate) fn orphan_dependents(&self, uid: &str) {
        let places = self.store.read().dependents_of(uid);
        for (id, key) in places {
            loop {
                let Some(seen) = self.store.read().get(&id, &key) else {
                    break;
                };
                let mut value = seen.value.clone();
                if let Some(Value::Array(owners)) = meta::of(&mut value).get_mut("ownerReferences")
                {
                    owners.retain(|o| o["uid"] != uid);
                }
                if self
                    .store
                    .write()
                    .put(&id, &key, Some(&seen), value)
                    .is_ok()
                {
                    break;
                }
            }
        }
    }

    /// What an object contains, up to `limit`: the objects of a namespace, or the custom resources of a CRD.
    fn content(&self, target: &Target, object: &Value, limit: usize) -> Vec<(Place, Arc<Stored>)> {
        let store = self.store.read();
        let of = |id: &ResourceId, namespace: Option<&str>| -> Vec<(Place, Arc<Stored>)> {
            store
                .scan(id, namespace, None)
                .take(limit)
                .map(|(key, stored)| ((id.clone(), key.clone()), Arc::clone(stored)))
                .collect()
        };
        match (target.resource.group(), target.resource.kind.as_str()) {
            ("", "Namespace") => {
                let name = meta::name(object);
                store
                    .resources()
                    .flat_map(|id| of(id, Some(name)))
                    .collect()
            }
            (CRD_GROUP, _) => {
                let text = |path: &str| {
                    object
                        .pointer(path)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                of(
                    &ResourceId::new(text("/spec/group"), text("/spec/names/plural")),
                    None,
                )
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn has_content(&self, target: &Target, object: &Value) -> bool {
        !self.content(target, object, 1).is_empty()
    }

    /// Deletes the content of a terminating namespace or CRD, and then the object itself if nothing is left.
    pub(crate) fn finish_if_container(&self, target: &Target, key: &Key) -> bool {
        let id = &target.resource.id;
        let Some(stored) = self.store.read().get(id, key) else {
            return true;
        };
        for ((id, key), seen) in self.content(target, &stored.value, usize::MAX) {
            if let Some(inner) = self.target_of(&id, &key) {
                let mut seen = Some(seen);
                while let Some(object) = seen {
                    if self.try_delete(&inner, &key, &object, false).is_some() {
                        break;
                    }
                    seen = self.store.read().get(&id, &key);
                }
            }
        }
        self.finish(target, key)
    }

    /// Removes a terminating object that nothing holds any more; returns whether it is gone.
    fn finish(&self, target: &Target, key: &Key) -> bool {
        loop {
            let Some(seen) = self.store.read().get(&target.resource.id, key) else {
                return true;
            };
            if !self.may_vanish(target, &seen.value) {
                return false;
            }
            let removed =
                self.store
                    .write()
                    .remove(&target.resource.id, key, &seen, seen.value.clone());
            if let Ok(last) = removed {
                self.after_removal(&target.resource, &last.value);
                return true;
            }
        }
    }

    /// A terminating namespace goes when its last object is gone.
    pub(crate) fn finish_namespace(&self, name: &str) {
        if self
            .namespace(name)
            .is_some_and(|ns| meta::is_terminating(&ns.value))
        {
            let key = Key::new("", name);
            if let Some(target) = self.target_of(&ResourceId::new("", "namespaces"), &key) {
                self.finish(&target, &key);
            }
        }
    }
}
