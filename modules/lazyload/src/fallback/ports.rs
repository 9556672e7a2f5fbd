//! Which ports are HTTP somewhere in the mesh.
//!
//! The fallback's Service lists these ports, which keeps Istio's HTTP listener and route configuration of each alive in
//! every scope, and the EnvoyFilters put their routes there.

use std::collections::BTreeSet;

use trimtab_crds::istio::ServiceEntryPort;
use trimtab_mesh::Protocol;
use trimtab_mesh::model::{Service, ServiceEntry, port_protocol};

use super::{NAME, TCP_PORT};
use crate::config::Fallback;

/// The ports of `wormholePort`.
pub fn fixed(fallback: &Fallback) -> BTreeSet<u16> {
    let written = fallback.wormhole_port.iter();
    usable(written.filter_map(|port| port.parse().ok()))
}

/// The HTTP ports of a Service: by `appProtocol`, else by the part of the name before the first `-`, `http` and with
/// `supportH2` also `http2`, `grpc` and `grpc-web`, as Istio reads them.
///
/// Services of the fallback count for nothing: their ports are made of this result.
pub fn of_service(service: &Service, fallback: &Fallback) -> BTreeSet<u16> {
    if *service.id.name == *NAME {
        return BTreeSet::new();
    }
    let ports = service.ports.iter();
    let http = ports.filter(|port| counts(port.protocol(), fallback));
    usable(http.map(|port| port.number))
}

/// The HTTP ports of a ServiceEntry, by their protocol.
pub fn of_entry(entry: &ServiceEntry, fallback: &Fallback) -> BTreeSet<u16> {
    let ports = entry.spec.ports.iter();
    let http = ports.filter(|port| counts(port_protocol(port), fallback));
    usable(http.filter_map(ServiceEntryPort::number))
}

fn counts(protocol: Option<Protocol>, fallback: &Fallback) -> bool {
    match protocol {
        Some(Protocol::Http) => true,
        Some(Protocol::Http2) => fallback.support_h2,
        _ => false,
    }
}

fn usable(ports: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    ports.filter(|p| *p != 0 && *p != TCP_PORT).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use trimtab_mesh::table::{Row, Table};

    use super::*;

    fn row<R: Row<Object: serde::de::DeserializeOwned>>(object: Value) -> Arc<R> {
        let table = Table::<R>::new("cluster.local");
        table.put(&Arc::new(serde_json::from_value(object).unwrap()));
        table.get("", "x").unwrap()
    }

    fn entry(ports: &Value) -> Arc<ServiceEntry> {
        row(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "x"},
            "spec": {"hosts": ["e.com"], "ports": ports},
        }))
    }

    fn found(ports: &Value, fallback: &Fallback) -> Vec<u16> {
        let service = row(json!({"metadata": {"name": "x"}, "spec": {"ports": ports}}));
        of_service(&service, fallback).into_iter().collect()
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
        let entry = entry(&json!([
            {"number": 80, "name": "x", "protocol": "HTTP"},
            {"number": 81, "name": "http", "protocol": "TLS"},
            {"number": 82, "name": "x", "protocol": "GRPC-Web"},
        ]));
        let ports = of_entry(&entry, &Fallback::default());
        assert_eq!(ports, BTreeSet::from([80, 82]));
    }

    #[test]
    fn the_fallback_itself_and_its_tcp_port_are_left_out() {
        let port = json!([{"port": 9090, "name": "http-9090"}]);
        let table = Table::<Service>::new("cluster.local");
        let own = json!({"metadata": {"name": NAME}, "spec": {"ports": port}});
        table.put(&Arc::new(serde_json::from_value(own).unwrap()));
        let own = table.get("", NAME).unwrap();
        assert!(of_service(&own, &Fallback::default()).is_empty());
        let tcp = json!([{"port": TCP_PORT, "name": "http"}]);
        assert!(found(&tcp, &Fallback::default()).is_empty());
        let written = Fallback {
            wormhole_port: vec!["9080".to_owned(), TCP_PORT.to_string(), "0".to_owned()],
            ..Fallback::default()
        };
        assert_eq!(fixed(&written), BTreeSet::from([9080]));
    }
}
