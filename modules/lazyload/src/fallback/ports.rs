//! What services speak on their ports, as far as the fallback is concerned.
//!
//! The fallback's Service lists these ports, which keeps Istio's HTTP listener and route configuration of each alive in
//! every scope, and the EnvoyFilters put their routes there.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_mesh::Protocol;
use trimtab_mesh::model::{Service, ServiceEntry, port_protocol};

use super::{NAME, TCP_PORT};
use crate::config::Fallback;

/// What a service speaks on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaks {
    /// HTTP that is carried.
    Http,
    /// Not said: Istio looks at the first bytes.
    Auto,
    /// TLS, or HTTP/2 where it is not wanted.
    Tls,
    /// TCP, where the server may be the first to speak.
    Tcp,
}

impl Speaks {
    /// Why such a port is not carried when it is not.
    pub fn why(self) -> &'static str {
        match self {
            Self::Http => "HTTP on a port that the fallback does not have",
            Self::Auto => "a port without a protocol, which the fallback does not have",
            Self::Tls | Self::Tcp => "no HTTP, see lazyload.fallback.tcp",
        }
    }
}

/// The ports of `wormholePort`.
pub fn fixed(fallback: &Fallback) -> BTreeSet<u16> {
    let written = fallback.wormhole_port.iter();
    usable(written.filter_map(|port| port.parse().ok()))
}

/// The ports of a Service: by `appProtocol`, else by the part of the name before the first `-`, as Istio reads them. With
/// `supportH2` HTTP/2 counts as HTTP.
///
/// Services of the fallback count for nothing: their ports are made of this result. An ExternalName has none of its own.
pub fn of_service(service: &Service, fallback: &Fallback) -> BTreeMap<u16, Speaks> {
    if *service.id.name == *NAME || service.external_name.is_some() {
        return BTreeMap::new();
    }
    let ports = service.ports.iter();
    let ports = ports.filter_map(|p| Some((p.number, speaks(p.protocol()?, fallback))));
    ports.filter(|(port, _)| is_usable(*port)).collect()
}

/// The ports of a ServiceEntry, by their protocol.
pub fn of_entry(entry: &ServiceEntry, fallback: &Fallback) -> BTreeMap<u16, Speaks> {
    let ports = entry.spec.ports.iter();
    let ports = ports.filter_map(|p| Some((p.number()?, speaks(port_protocol(p)?, fallback))));
    ports.filter(|(port, _)| is_usable(*port)).collect()
}

fn speaks(protocol: Protocol, fallback: &Fallback) -> Speaks {
    match protocol {
        Protocol::Http => Speaks::Http,
        Protocol::Http2 if fallback.support_h2 => Speaks::Http,
        Protocol::Auto => Speaks::Auto,
        Protocol::Http2 | Protocol::Tls => Speaks::Tls,
        Protocol::Tcp => Speaks::Tcp,
    }
}

fn is_usable(port: u16) -> bool {
    port != 0 && port != TCP_PORT
}

fn usable(ports: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    ports.filter(|port| is_usable(*port)).collect()
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
        http(of_service(&service, fallback))
    }

    fn http(ports: BTreeMap<u16, Speaks>) -> Vec<u16> {
        let http = ports.into_iter().filter(|(_, s)| *s == Speaks::Http);
        http.map(|(port, _)| port).collect()
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
        assert_eq!(ports[&81], Speaks::Tls);
        assert_eq!(http(ports), [80, 82]);
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
