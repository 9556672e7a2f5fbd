//! What pods would lose by a Sidecar of their own: Istio merges nothing, so that it takes this over from the one that would
//! count without it.

use std::collections::BTreeMap;

use serde_json::Value;
use trimtab_crds::istio::{self, SidecarEgress};

/// What a Sidecar for a whole namespace says besides which hosts are seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Whose it is, `namespace/name`.
    pub from: String,
    /// `spec.ingress`.
    pub ingress: Vec<Value>,
    /// `spec.outboundTrafficPolicy`.
    pub outbound_traffic_policy: Option<Value>,
    /// `spec.inboundConnectionPool`.
    pub inbound_connection_pool: Option<Value>,
    /// Fields of `spec` that this version does not know.
    pub others: BTreeMap<String, Value>,
    /// Outbound listeners of a port or a socket of their own, with the hosts of each.
    pub listeners: Vec<SidecarEgress>,
    /// `bind` of the listener of all other ports.
    pub bind: Option<String>,
    /// `captureMode` of the listener of all other ports.
    pub capture_mode: Option<String>,
}

impl Inherited {
    /// Of a Sidecar; `None`: it says nothing but which hosts are seen.
    pub(super) fn read(from: String, spec: &istio::SidecarSpec) -> Option<Self> {
        let rest = spec.egress.iter().find(|e| e.port.is_none());
        let listeners = spec.egress.iter().filter(|e| e.port.is_some());
        let new = Self {
            ingress: spec.ingress.clone(),
            outbound_traffic_policy: spec.outbound_traffic_policy.clone(),
            inbound_connection_pool: spec.inbound_connection_pool.clone(),
            others: spec.others.clone(),
            listeners: listeners.cloned().collect(),
            bind: rest.and_then(|e| e.bind.clone()),
            capture_mode: rest.and_then(|e| e.capture_mode.clone()),
            ..Self::default()
        };
        (new != Self::default()).then_some(Self { from, ..new })
    }

    fn mode(&self) -> Option<&str> {
        let policy = self.outbound_traffic_policy.as_ref()?;
        // Istio's default value of the field.
        Some(
            policy
                .get("mode")
                .and_then(Value::as_str)
                .unwrap_or("REGISTRY_ONLY"),
        )
    }

    /// Whether calls to what the mesh does not know are rejected; `None`: as the MeshConfig says.
    pub fn registry_only(&self) -> Option<bool> {
        Some(self.mode()? != "ALLOW_ANY")
    }

    /// Host of the proxy to which calls go that the mesh does not know.
    pub fn egress_proxy(&self) -> Option<&str> {
        if self.registry_only()? {
            return None;
        }
        let policy = self.outbound_traffic_policy.as_ref()?;
        policy.pointer("/egressProxy/host")?.as_str()
    }

    /// The fields, as the status names them.
    pub fn fields(&self) -> Vec<&str> {
        let mut out = Vec::new();
        let mut say = |name, there| {
            if there {
                out.push(name);
            }
        };
        let listeners = !self.listeners.is_empty();
        say(
            "egress",
            listeners || self.bind.is_some() || self.capture_mode.is_some(),
        );
        say(
            "inboundConnectionPool",
            self.inbound_connection_pool.is_some(),
        );
        say("ingress", !self.ingress.is_empty());
        say(
            "outboundTrafficPolicy",
            self.outbound_traffic_policy.is_some(),
        );
        out.extend(self.others.keys().map(String::as_str));
        out
    }
}
