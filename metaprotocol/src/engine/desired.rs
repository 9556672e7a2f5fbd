//! Generated objects that must exist, and what stays although it is not desired.

use trimtab_crds::istio::{EnvoyFilter, VirtualService};

use super::{Engine, Inner};
use crate::index::Name;
use crate::input::{GatewayBinding, ServicePortInput};
use crate::object::ServiceKey;
use crate::translate::{LONGEST_NAME, object_name};

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
        let host = object_name(&input.host.to_ascii_lowercase());
        // A name with a hash does not end in the port.
        let hashed = !object_name(&input.host).ends_with(&host);
        let end = format!("-{}", input.port.number);
        let end = if hashed { String::new() } else { end };
        self.names.push((host, end));
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

impl Inner {
    fn desired(&self, owner: &ServiceKey) -> Option<Desired> {
        let hosts = self.owners.get(owner)?;
        let mut out = Desired::default();
        for state in hosts.iter().filter_map(|h| self.hosts.get(h)) {
            out.filters.extend(state.filters().cloned());
            let services = state.virtual_services();
            out.virtual_services.extend(services.cloned());
            for port in state.ports.values().filter(|p| p.made.retained) {
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
    pub fn is_desired(&self, kind: &'static str, name: &Name) -> bool {
        let inner = self.inner.lock();
        inner.desired.contains_key(&(kind, name.clone()))
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
