//! What writes of special kinds bring with them: CRDs register resources, owners and namespaces take their
//! content along.

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::crd;
use crate::error::{ApiError, Cause};
use crate::kinds::{CRD_GROUP, Resource};
use crate::meta;
use crate::request::Target;
use crate::server::Server;
use crate::store::{Key, ResourceId};

fn is_crd(resource: &Resource) -> bool {
    resource.group() == CRD_GROUP
}

/// What an established CRD keeps as long as it is there.
const FIXED: [(&str, &str); 4] = [
    ("/spec/group", "spec.group"),
    ("/spec/scope", "spec.scope"),
    ("/spec/names/kind", "spec.names.kind"),
    ("/spec/names/plural", "spec.names.plural"),
];

fn stored_versions(crd: &Value) -> Vec<Value> {
    let versions = crd.pointer("/status/storedVersions");
    versions
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// A cause for each field that an established CRD may not change, and for each version that objects may be stored in and
/// that is gone.
fn changes_what_stays(old: &Value, new: &Value, stored: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (pointer, field) in FIXED {
        let value = new.pointer(pointer).unwrap_or(&Value::Null);
        if old.pointer(pointer) != Some(value) {
            let message = format!("Invalid value: {value}: field is immutable");
            causes.push(Cause::new("FieldValueInvalid", field, message));
        }
    }
    let versions = new["spec"]["versions"].as_array();
    let known: Vec<&Value> = versions.into_iter().flatten().map(|v| &v["name"]).collect();
    for (i, version) in stored.iter().enumerate() {
        if !known.contains(&version) {
            causes.push(Cause::new(
                "FieldValueInvalid",
                format!("status.storedVersions[{i}]"),
                format!("Invalid value: {version}: missing from spec.versions"),
            ));
        }
    }
    causes
}

impl Server {
    /// Checks a CRD and gives it the status of an established one.
    pub(crate) fn before_write(
        &self,
        target: &Target,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !is_crd(&target.resource) {
            return Ok(());
        }
        crd::from_crd(new)?;
        let mut stored = old.map_or_else(Vec::new, stored_versions);
        if let Some(old) = old {
            target.refuse(meta::name(new), changes_what_stays(old, new, &stored))?;
        }
        let names = crd::accepted_names(new);
        let versions = new["spec"]["versions"].as_array();
        let storage = versions.into_iter().flatten();
        for version in storage.filter(|v| v["storage"] == true) {
            if !stored.contains(&version["name"]) {
                stored.push(version["name"].clone());
            }
        }
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
            "storedVersions": stored,
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
        let key = Key::new(meta::namespace(last), meta::name(last));
        self.held.lock().remove(&(resource.id.clone(), key));
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
