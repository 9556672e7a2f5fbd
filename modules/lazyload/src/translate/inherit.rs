//! What a generated Sidecar takes over from the one that would count without it.

use trimtab_crds::istio::Sidecar;

use crate::mesh::Inherited;

/// The Sidecar with what it inherits. Its own listener is the one of all ports that no other names, so that it comes last.
pub fn inherit(mut sidecar: Sidecar, from: Option<&Inherited>) -> Sidecar {
    let Some(from) = from else {
        return sidecar;
    };
    let spec = &mut sidecar.spec;
    spec.ingress.clone_from(&from.ingress);
    spec.outbound_traffic_policy
        .clone_from(&from.outbound_traffic_policy);
    spec.inbound_connection_pool
        .clone_from(&from.inbound_connection_pool);
    spec.others.extend(from.others.clone());
    for own in &mut spec.egress {
        own.bind.clone_from(&from.bind);
        own.capture_mode.clone_from(&from.capture_mode);
    }
    spec.egress.splice(0..0, from.listeners.iter().cloned());
    sidecar
}
