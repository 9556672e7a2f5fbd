//! Events have two doors in a real cluster, `events.k8s.io/v1` and the core group, and one store behind them.
//!
//! Controllers write through the first, `kubectl get events` and `kubectl describe` read through the second. Here,
//! what is written to the first is copied to the second; writes to the core group are not copied back.

use serde_json::{Value, json};

use crate::handlers::{FieldValidation, Options};
use crate::kinds::Resource;
use crate::meta;
use crate::request::Target;
use crate::server::Server;
use crate::store::Key;

const GROUP: &str = "events.k8s.io";

fn is_event(resource: &Resource) -> bool {
    resource.group() == GROUP && resource.kind == "Event"
}

impl Server {
    fn core_event(&self, event: &Value) -> Option<Target> {
        let (resource, version) = self.registry.read().by_kind("v1", "Event")?;
        Some(Target {
            resource,
            version,
            namespace: Some(meta::namespace(event).to_owned()),
            name: Some(meta::name(event).to_owned()),
            status: false,
        })
    }

    /// Copies a written event to the core group.
    pub(crate) fn copy_event(&self, resource: &Resource, event: &Value) {
        if !is_event(resource) {
            return;
        }
        let Some(target) = self.core_event(event) else {
            return;
        };
        let options = Options {
            dry_run: false,
            force: true,
            manager: String::new(),
            validation: FieldValidation::Ignore,
        };
        if let Err(error) = self.load(&target, core_form(event), &options) {
            tracing::warn!(name = meta::name(event), %error, "event not copied to the core group");
        }
    }

    /// Removes the copy of a removed event.
    pub(crate) fn remove_event_copy(&self, resource: &Resource, event: &Value) {
        if !is_event(resource) {
            return;
        }
        let key = Key::new(meta::namespace(event), meta::name(event));
        let Some(target) = self.core_event(event) else {
            return;
        };
        loop {
            let Some(seen) = self.store.read().get(&target.resource.id, &key) else {
                return;
            };
            if self.try_delete(&target, &key, &seen, false).is_some() {
                return;
            }
        }
    }
}

fn core_form(event: &Value) -> Value {
    let either = |a: &Value, b: &Value| if a.is_null() { b.clone() } else { a.clone() };
    let first = either(&event["deprecatedFirstTimestamp"], &event["eventTime"]);
    let last = either(
        &event["series"]["lastObservedTime"],
        &event["deprecatedLastTimestamp"],
    );
    let count = either(&event["series"]["count"], &event["deprecatedCount"]);
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": meta::name(event), "namespace": meta::namespace(event) },
        "involvedObject": event["regarding"], "related": event["related"], "reason": event["reason"],
        "message": event["note"], "type": event["type"], "action": event["action"],
        "eventTime": event["eventTime"], "series": event["series"],
        "reportingComponent": event["reportingController"], "reportingInstance": event["reportingInstance"],
        "source": { "component": event["reportingController"] },
        "firstTimestamp": seconds(&first), "lastTimestamp": seconds(&either(&last, &first)),
        "count": either(&count, &json!(1)),
    })
}

/// `metav1.Time` has whole seconds, `MicroTime` has fractions.
fn seconds(time: &Value) -> Value {
    time.as_str()
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .map_or(Value::Null, |t| json!(crate::clock::rfc3339(t)))
}
