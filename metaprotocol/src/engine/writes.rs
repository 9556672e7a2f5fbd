//! What the writers ask of the engine, and what they report back.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use trimtab_crds::istio::{EnvoyFilter, VirtualService};

use super::{Engine, Inner};
use crate::index::Name;
use crate::input::{GatewayBinding, ServicePortInput};
use crate::object::{Kind, ObjectKey, ServiceKey};
use crate::status::{object_status, router_status};
use crate::translate::{LONGEST_NAME, object_name};

/// First pause after a failed write; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// The generated objects of a Service or ServiceEntry.
    Objects(ServiceKey),
    /// The status of a user's object.
    Status(ObjectKey),
}

/// Generated objects that must exist.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Sorted as translated.
    pub filters: Vec<EnvoyFilter>,
    /// Sorted as translated.
    pub virtual_services: Vec<VirtualService>,
    /// What stays although it is not wanted.
    pub held: Held,
}

/// Objects of ports whose outputs are left as they are.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Part and end of the names of each such port; names end in the port, see [`crate::translate`].
    names: Vec<(String, String)>,
    /// Ends of the names of objects at gateways.
    ends: Vec<String>,
}

impl Held {
    fn add(&mut self, input: &ServicePortInput) {
        let host = object_name(&input.host);
        self.names.push((host, format!("-{}", input.port.number)));
        for gateway in &input.gateways {
            let GatewayBinding {
                namespace,
                name,
                port,
                ..
            } = gateway;
            let ends = [
                format!("-gateway-outbound-{name}.{namespace}-{port}"),
                format!("aeraki-vs-{namespace}.{name}-{port}"),
            ];
            self.ends.extend(ends.map(|end| object_name(&end)));
        }
    }

    /// Whether an object stays. One whose name was cut stays while any port is left as it is: it cannot be told whose it
    /// is.
    pub fn holds(&self, name: &str) -> bool {
        let cut = name.len() == LONGEST_NAME && !self.names.is_empty();
        let of_port = |(host, end): &(String, String)| {
            name.ends_with(end.as_str()) && name.contains(host.as_str())
        };
        cut || self.names.iter().any(of_port)
            || self.ends.iter().any(|e| name.ends_with(e.as_str()))
    }
}

#[derive(Debug, Default)]
struct Attempt {
    failures: u32,
    waits: bool,
}

/// How writes went.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) errors: HashMap<ServiceKey, (&'static str, String)>,
    attempts: HashMap<Work, Attempt>,
}

impl Inner {
    fn desired(&self, owner: &ServiceKey) -> Option<Desired> {
        let hosts = self.owners.get(owner)?;
        let mut out = Desired::default();
        for state in hosts.iter().filter_map(|h| self.hosts.get(h)) {
            out.filters.extend(state.filters().cloned());
            let services = state.virtual_services();
            out.virtual_services.extend(services.cloned());
            for port in state.ports.values().filter(|p| p.made.frozen) {
                out.held.add(&port.input);
            }
        }
        Some(out)
    }
}

impl Engine {
    /// Objects of an owner that must exist now, all of them; `None`: leave them as they are, since nobody knows whether
    /// the owner is gone.
    pub fn desired(&self, owner: &ServiceKey) -> Option<Desired> {
        let desired = self.inner.lock().desired(owner);
        desired.or_else(|| self.index.may_collect(owner).then(Desired::default))
    }

    /// Whether any host wants a generated object: one that moves from owner to owner must not be deleted by the first.
    pub fn is_wanted(&self, kind: &'static str, name: &Name) -> bool {
        let inner = self.inner.lock();
        inner.wanted.contains_key(&(kind, name.clone()))
    }

    /// How a write of objects went: a failure shows in the status of those who have a part in them.
    pub fn note_objects(&self, owner: &ServiceKey, error: Option<&(&'static str, String)>) {
        let mut inner = self.inner.lock();
        let before = match error {
            Some(error) => inner.writes.errors.insert(owner.clone(), error.clone()),
            None => inner.writes.errors.remove(owner),
        };
        if before.as_ref() == error {
            return;
        }
        let hosts = inner.owners.get(owner).into_iter().flatten();
        let states = hosts.filter_map(|h| inner.hosts.get(h));
        let objects: Vec<ObjectKey> = states.flat_map(|s| s.objects.iter().cloned()).collect();
        drop(inner);
        for object in objects {
            self.queue.push(Work::Status(object), ());
        }
    }

    /// The status of an object to write now; `None`: it is gone, or its status says the same.
    pub fn status_to_write(&self, key: &ObjectKey) -> Option<Value> {
        let seen = self.index.seen(key)?;
        let facts = self.facts(key, &seen);
        let conditions = seen.status.get("conditions").cloned();
        let before = conditions
            .and_then(|c| serde_json::from_value::<Vec<_>>(c).ok())
            .unwrap_or_default();
        let now = self.clock.now();
        let status = if key.kind == Kind::MetaRouter {
            serde_json::to_value(router_status(&facts, &before, now))
        } else {
            serde_json::to_value(object_status(&facts, &before, now))
        };
        status.ok().filter(|s| *s != seen.status)
    }

    /// Whether a failed write is to be tried again, and after which pause: `None` when a try is under way already.
    pub fn retry_after(&self, work: &Work) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let attempt = inner.writes.attempts.entry(work.clone()).or_default();
        if attempt.waits {
            return None;
        }
        attempt.waits = true;
        attempt.failures = attempt.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << attempt.failures.min(8).saturating_sub(1));
        Some(doubled.min(LONGEST_PAUSE))
    }

    /// The pause is over: what is to be written is written as it is now.
    pub fn retry_now(&self, work: Work) {
        if let Some(attempt) = self.inner.lock().writes.attempts.get_mut(&work) {
            attempt.waits = false;
        }
        self.queue.push(work, ());
    }

    /// Something is written.
    pub fn note_success(&self, work: &Work) {
        let mut inner = self.inner.lock();
        let attempts = &mut inner.writes.attempts;
        if attempts.get(work).is_some_and(|a| !a.waits) {
            attempts.remove(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_objects_of_ports_that_are_left_as_they_are_stay() {
        let input: ServicePortInput = serde_json::from_value(json!({
            "host": "a.x.svc", "namespace": "x", "service": "a", "port": {"number": 80, "name": "tcp-dubbo"},
            "protocol": {"kind": "dubbo"},
            "gateways": [{"namespace": "istio", "name": "edge", "selector": {}, "port": 9000}],
        }))
        .unwrap();
        let mut held = Held::default();
        let cut = "a".repeat(LONGEST_NAME);
        assert!(!held.holds("aeraki-inbound-a.x.svc-80") && !held.holds(&cut));
        held.add(&input);
        for kept in [
            "aeraki-inbound-a.x.svc-80",
            "aeraki-outbound-a.x.svc-10.0.0.1-80",
            "aeraki-gateway-outbound-edge.istio-9000",
            "aeraki-vs-istio.edge-9000",
            &cut,
        ] {
            assert!(held.holds(kept), "{kept}");
        }
        for gone in [
            "aeraki-inbound-a.x.svc-8080",
            "aeraki-inbound-b.x.svc-80",
            "aeraki-vs-istio.edge-9001",
        ] {
            assert!(!held.holds(gone), "{gone}");
        }
    }
}
