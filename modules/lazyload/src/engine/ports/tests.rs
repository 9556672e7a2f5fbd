use serde_json::{Value, json};
use trimtab_mesh::Mesh;

use super::*;

fn ports(config: &Fallback) -> (Arc<Mesh>, Arc<HttpPorts>) {
    let mesh = Mesh::new("");
    let ports = HttpPorts::new(config, Arc::default());
    mesh.table::<Service>().follow(&ports);
    mesh.table::<ServiceEntry>().follow(&ports);
    (mesh, ports)
}

fn put(mesh: &Mesh, namespace: &str, name: &str, exports: &str, port: &Value) {
    let object = json!({"metadata": {"namespace": namespace, "name": name,
        "annotations": {"networking.istio.io/exportTo": exports}}, "spec": {"ports": [port]}});
    mesh.put::<Service>(serde_json::from_value(object).unwrap());
}

fn list(ports: &HttpPorts, client: Option<&str>) -> Vec<u16> {
    ports.of(client).into_iter().collect()
}

#[test]
#[allow(
    clippy::too_many_lines,
    reason = "one mesh and what each of its parts must give"
)]
fn fault_s10_ports_are_http_for_those_who_see_an_http_service() {
    let (mesh, ports) = ports(&Fallback::default());
    put(
        &mesh,
        "store",
        "web",
        "",
        &json!({"name": "http", "port": 80}),
    );
    put(&mesh, "store", "old", "", &json!({"port": 8000}));
    put(
        &mesh,
        "store",
        "odd",
        "",
        &json!({"name": "site", "port": 8001, "appProtocol": "acme"}),
    );
    put(
        &mesh,
        "store",
        "log",
        "",
        &json!({"name": "http", "port": 514, "protocol": "UDP"}),
    );
    put(
        &mesh,
        "attic",
        "diary",
        ".",
        &json!({"name": "http", "port": 5432}),
    );
    put(
        &mesh,
        "attic",
        "list",
        "store, shop",
        &json!({"name": "http", "port": 7000}),
    );
    put(
        &mesh,
        "stock",
        "db",
        "",
        &json!({"name": "tcp-sql", "port": 5432}),
    );
    assert_eq!(list(&ports, None), [80, 8000, 8001]);
    assert_eq!(list(&ports, Some("attic")), [80, 5432, 8000, 8001]);
    assert_eq!(list(&ports, Some("store")), [80, 7000, 8000, 8001]);
    let own = |client: &str| {
        let found = ports.tcp_on(&ports.of(Some(client)), client).into_iter();
        found
            .map(|s| format!("{}/{}:{}", s.namespace, s.host, s.port))
            .collect::<Vec<_>>()
    };
    assert_eq!(own("attic"), ["stock/db.stock.svc.cluster.local:5432"]);
    assert_eq!(own("store"), [""; 0]);
    let named = ports.not_on(&ports.of(None), "store", 8, |_| false);
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(
        named[0].starts_with("db.stock.svc.cluster.local:5432"),
        "{named:?}"
    );
    assert!(
        named[1].starts_with("list.attic.svc.cluster.local:7000"),
        "{named:?}"
    );
    assert_eq!(ports.not_on(&ports.of(None), "store", 8, |_| true), [""; 0]);
}

#[test]
fn fault_s10_a_port_without_protocol_beside_tcp_is_not_http() {
    let (mesh, ports) = ports(&Fallback::default());
    put(&mesh, "store", "old", "", &json!({"port": 9000}));
    assert_eq!(list(&ports, None), [9000]);
    put(
        &mesh,
        "stock",
        "db",
        ".",
        &json!({"name": "tcp", "port": 9000}),
    );
    assert_eq!(list(&ports, None), [0; 0], "somebody sees TCP there");
    assert_eq!(list(&ports, Some("store")), [9000]);
    put(
        &mesh,
        "store",
        "web",
        "",
        &json!({"name": "http", "port": 9000}),
    );
    assert_eq!(list(&ports, None), [9000]);
    let (scopes, _) = ports.drain_changes();
    assert!(scopes.all);
    put(
        &mesh,
        "store",
        "more",
        "",
        &json!({"name": "http", "port": 9000}),
    );
    assert_eq!(
        ports.drain_changes(),
        <_>::default(),
        "nothing is different for a fence"
    );
    put(
        &mesh,
        "stock",
        "two",
        "shop",
        &json!({"name": "tcp", "port": 9000}),
    );
    let (scopes, _) = ports.drain_changes();
    assert!(!scopes.all && scopes.namespaces.contains("shop"));
}

#[test]
fn fault_s10_ports_of_service_entries_and_ports_that_stay() {
    let (mesh, ports) = ports(&Fallback::default());
    let entry = |protocol: &str| {
        let object = json!({"metadata": {"namespace": "out", "name": "e"}, "spec": {
            "hosts": ["a.example", "b.example"], "exportTo": ["*"],
            "ports": [{"number": 8443, "name": "x", "protocol": protocol}]}});
        mesh.put::<ServiceEntry>(serde_json::from_value(object).unwrap());
    };
    entry("HTTP");
    assert_eq!(list(&ports, None), [8443]);
    entry("TCP");
    assert_eq!(list(&ports, None), [0; 0]);
    assert_eq!(ports.not_on(&<_>::default(), "x", 8, |_| false).len(), 2);
    assert_eq!(ports.not_on(&<_>::default(), "x", 1, |_| false).len(), 1);
    entry("GRPC");
    mesh.remove::<ServiceEntry>("out", "e");
    assert_eq!(list(&ports, None), [8443], "found once");
    ports.reconfigure(&Fallback {
        cleanup_wormhole_port: true,
        ..Fallback::default()
    });
    assert_eq!(list(&ports, None), [0; 0]);
}
