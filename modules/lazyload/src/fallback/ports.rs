//! Which ports are HTTP somewhere in the mesh.
//!
//! The fallback's Service lists these ports, which keeps Istio's HTTP listener and route configuration of each alive in
//! every scope, and the EnvoyFilters put their routes there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use trimtab_crds::istio::ServiceEntry;
use trimtab_mesh::Protocol;

use super::{NAME, TCP_PORT};
use crate::config::Fallback;

/// The HTTP ports: `wormholePort`, and with `autoPort` those found.
///
/// Found are TCP ports of Services whose `appProtocol`, else the part of the name before the first `-`, is `http`, and with
/// `supportH2` also `http2`, `grpc` and `grpc-web`, as Istio reads them, and the ports of ServiceEntries by their protocol.
/// Services of the fallback count for nothing: their ports are made of this result. Without `cleanupWormholePort` the
/// result keeps what was found `before`, so that a Service that is deleted and made again does not touch every listener
/// twice.
pub fn discover<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    service_entries: impl IntoIterator<Item = &'a ServiceEntry>,
    fallback: &Fallback,
    before: &BTreeSet<u16>,
) -> BTreeSet<u16> {
    let mut ports: BTreeSet<u16> = fallback
        .wormhole_port
        .iter()
        .filter_map(|port| port.parse().ok())
        .collect();
    if fallback.auto_port {
        if !fallback.cleanup_wormhole_port {
            ports.extend(before);
        }
        let wanted = |protocol: Option<Protocol>| match protocol {
            Some(Protocol::Http) => true,
            Some(Protocol::Http2) => fallback.support_h2,
            _ => false,
        };
        let of_services = services
            .into_iter()
            .filter(|service| service.metadata.name.as_deref() != Some(NAME))
            .filter_map(|service| service.spec.as_ref()?.ports.as_ref())
            .flatten()
            .filter(|port| wanted(of_service_port(port)))
            .filter_map(|port| u16::try_from(port.port).ok());
        ports.extend(of_services);
        let of_entries = service_entries
            .into_iter()
            .flat_map(|entry| &entry.spec.ports)
            .filter(|port| wanted(Protocol::of("TCP", "", port["protocol"].as_str())))
            .filter_map(|port| u16::try_from(port["number"].as_u64()?).ok());
        ports.extend(of_entries);
    }
    ports.remove(&0);
    ports.remove(&TCP_PORT);
    ports
}

fn of_service_port(port: &ServicePort) -> Option<Protocol> {
    let transport = port.protocol.as_deref().unwrap_or("TCP");
    let name = port.name.as_deref().unwrap_or_default();
    Protocol::of(transport, name, port.app_protocol.as_deref())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, ports: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"ports": ports}}))
            .unwrap()
    }

    fn entry(ports: &Value) -> ServiceEntry {
        serde_json::from_value(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "e"},
            "spec": {"hosts": ["e.com"], "ports": ports},
        }))
        .unwrap()
    }

    fn found(ports: &Value, fallback: &Fallback) -> Vec<u16> {
        let services = [service("a", ports)];
        discover(&services, &[], fallback, &BTreeSet::new())
            .into_iter()
            .collect()
    }

    #[test]
    fn names_and_app_protocols_as_istio_reads_them() {
        let ports = json!([
            {"port": 1, "name": "http"},
            {"port": 2, "name": "http-web"},
            {"port": 3, "name": "HTTP2-x"},
            {"port": 4, "name": "grpc"},
            {"port": 5, "name": "grpc-web-x"},
            {"port": 6, "name": "x", "appProtocol": "http"},
            {"port": 7, "name": "http", "appProtocol": "tcp"},
            {"port": 8, "name": "x", "appProtocol": "kubernetes.io/h2c"},
            {"port": 9, "name": "x", "appProtocol": "kubernetes.io/ws"},
            {"port": 10, "name": "x", "appProtocol": "kubernetes.io/wss"},
            {"port": 11, "name": "https"},
            {"port": 12, "name": "tcp-http"},
            {"port": 13, "name": "http", "protocol": "UDP"},
            {"port": 14},
            {"port": 15, "name": "httpx"},
        ]);
        let all = Fallback::default();
        assert_eq!(found(&ports, &all), [1, 2, 3, 4, 5, 6, 8, 9]);
        let old = Fallback {
            support_h2: false,
            ..Fallback::default()
        };
        assert_eq!(found(&ports, &old), [1, 2, 6, 9]);
    }

    #[test]
    fn ports_of_service_entries_by_protocol() {
        let entries = [entry(&json!([
            {"number": 80, "name": "x", "protocol": "HTTP"},
            {"number": 81, "name": "http", "protocol": "TLS"},
            {"number": 82, "name": "x", "protocol": "GRPC-Web"},
        ]))];
        let ports = discover(&[], &entries, &Fallback::default(), &BTreeSet::new());
        assert_eq!(ports, BTreeSet::from([80, 82]));
    }

    #[test]
    fn the_fallback_itself_and_its_tcp_port_are_left_out() {
        let services = [
            service(NAME, &json!([{"port": 9090, "name": "http-9090"}])),
            service("a", &json!([{"port": TCP_PORT, "name": "http"}])),
        ];
        let ports = discover(&services, &[], &Fallback::default(), &BTreeSet::new());
        assert!(ports.is_empty());
    }

    #[test]
    fn what_is_gone_is_dropped_only_when_asked() {
        let before = BTreeSet::from([7000]);
        let keep = Fallback {
            wormhole_port: vec!["9080".to_owned()],
            ..Fallback::default()
        };
        let none: [&Service; 0] = [];
        assert_eq!(
            discover(none, &[], &keep, &before),
            BTreeSet::from([7000, 9080])
        );
        let drop = Fallback {
            cleanup_wormhole_port: true,
            ..keep.clone()
        };
        assert_eq!(discover(none, &[], &drop, &before), BTreeSet::from([9080]));
        let off = Fallback {
            auto_port: false,
            ..keep
        };
        let services = [service("a", &json!([{"port": 80, "name": "http"}]))];
        assert_eq!(
            discover(&services, &[], &off, &before),
            BTreeSet::from([9080])
        );
    }
}
