//! What writes of special kinds bring with them: CRDs register resources, owners and namespaces take their
//! content along.

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::crd;
use crate::error::ApiError;
use crate::kinds::{CRD_GROUP, Resource};
use crate::meta;
use crate::request::Target;
use crate::server::Server;
use crate::store::ResourceId;

fn is_crd(resource: &Resource) -> bool {
    resource.group() == CRD_GROUP
}

impl Server {
    /// Checks a CRD and gives it the status of an established one.
    pub(crate) fn before_write(&self, target: &Target, new: &mut Value) -> Result<(), ApiError> {
        if !is_crd(&target.resource) {
            return Ok(());
        }
        crd::from_crd(new)?;
        let names = crd::accepted_names(new);
        let storage: Vec<Value> = new["spec"]["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|v| v["storage"] == true)
            .map(|v| v["name"].clone())
            .collect();
        let since = meta::text(new, "creationTimestamp")
            .map_or_else(|| rfc3339(self.clock.now()), str::to_owned);
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since,
            })
        };
        new["status"] = json!({
            "acceptedNames": names,
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
            "storedVersions": storage,
        });
        Ok(())
    }

    pub(crate) fn after_write(&self, target: &Target, stored: &Value, created: bool) {
        if is_crd(&target.resource)
            && let Ok(resource) = crd::from_crd(stored)
        {
            self.registry.write().insert(resource);
        }
        self.copy_event(&target.resource, stored);
        if created {
            self.collect_if_ownerless(target, stored);
        }
    }

    /// Runs after an object is gone: its dependents, its kind, its namespace.
    pub(crate) fn after_removal(&self, resource: &Resource, last: &Value) {
        if is_crd(resource) {
            let text = |path: &str| {
                last.pointer(path)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let id = ResourceId::new(text("/spec/group"), text("/spec/names/plural"));
            self.registry.write().remove(&id);
        }
        self.remove_event_copy(resource, last);
        if let Some(uid) = meta::uid(last) {
            self.collect_dependents(uid);
        }
        let namespace = meta::namespace(last);
        if !namespace.is_empty() {
            self.finish_namespace(namespace);
        }
    }

    /// Whether a terminating object has nothing that holds it.
    pub(crate) fn may_vanish(&self, target: &Target, object: &Value) -> bool {
        meta::is_terminating(object) && self.may_vanish_now(target, object)
    }

    /// Whether deleting the object may remove it at once.
    pub(crate) fn may_vanish_now(&self, target: &Target, object: &Value) -> bool {
        meta::finalizers(object).is_empty() && !self.has_content(target, object)
    }
}
