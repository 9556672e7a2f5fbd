use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;
use trimtab_crds::fence::ScopeSize;
use trimtab_mesh::model::{GrpcRoute, HttpRoute, Service, ServiceEntry, VirtualService};

use super::*;
use crate::config::LazyloadConfig;
use crate::mesh::Index;
use crate::scope::Services as _;
use crate::scope::services::HostEntry;

struct Fixture {
    mesh: Arc<trimtab_mesh::Mesh>,
    index: Arc<Index>,
    since: Arc<KnownSince>,
    windows: Arc<AtomicU64>,
}

fn meta(name: &str) -> Value {
    let (name, namespace) = name.split_once('.').unwrap();
    json!({"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"})
}

impl Fixture {
    fn new() -> Self {
        let mesh = trimtab_mesh::Mesh::new("cluster.local");
        let index = Index::new(&LazyloadConfig::default(), &mesh);
        index.attach(&mesh);
        let windows = Arc::new(AtomicU64::new(0));
        let since = KnownSince::new(windows.clone(), Arc::new(Notify::new()));
        mesh.table::<Service>().follow(&since);
        mesh.table::<ServiceEntry>().follow(&since);
        mesh.table::<VirtualService>().follow(&since);
        mesh.table::<HttpRoute>().follow(&since);
        mesh.table::<GrpcRoute>().follow(&since);
        Self {
            mesh,
            index,
            since,
            windows,
        }
    }

    /// `NAME.NAMESPACE` with one port.
    fn service(&self, name: &str, port: (&str, u16)) {
        let spec = json!({"selector": {"app": name}, "ports": [{"name": port.0, "port": port.1}]});
        self.service_of(name, &spec);
    }

    fn service_of(&self, name: &str, spec: &Value) {
        let object = json!({"metadata": meta(name), "spec": spec});
        self.mesh
            .put::<Service>(serde_json::from_value(object).unwrap());
    }

    fn entry(&self, name: &str, spec: &Value) {
        let object = json!({"metadata": meta(name), "spec": spec});
        self.mesh
            .put::<ServiceEntry>(serde_json::from_value(object).unwrap());
    }

    fn route(&self, name: &str, hosts: &[&str], to: &[&str]) {
        let route: Vec<Value> = to
            .iter()
            .map(|to| json!({"destination": {"host": to}}))
            .collect();
        self.route_of(name, &json!({"hosts": hosts, "http": [{"route": route}]}));
    }

    fn route_of(&self, name: &str, spec: &Value) {
        let object = json!({"metadata": meta(name), "spec": spec});
        self.mesh
            .put::<VirtualService>(serde_json::from_value(object).unwrap());
    }

    /// What a client in `client` does without; `needed` are entries of its scope.
    fn unused_by(
        &self,
        client: &str,
        needed: &[&str],
        proven: impl Fn(&HostEntry) -> bool,
    ) -> Vec<String> {
        let registry = self.index.services();
        let mesh = Mesh {
            services: &*registry,
            all: registry.all().cloned().collect(),
            catching: self.since.catching(),
        };
        let entries: Vec<String> = needed.iter().map(|e| (*e).to_owned()).collect();
        let mut needed = Needed::default();
        needed.add(&entries);
        unused(client, &mesh, &needed, proven).into_iter().collect()
    }

    fn unused(&self, needed: &[&str]) -> Vec<String> {
        self.unused_by("books", needed, |_| true)
    }

    fn size(&self, excluded: &[&str]) -> (i64, i64) {
        let registry = self.index.services();
        let totals = registry.totals("books");
        let mesh = ScopeSize {
            mesh_services: i64::try_from(totals.services).unwrap(),
            mesh_bytes: i64::try_from(totals.bytes).unwrap(),
            ..ScopeSize::default()
        };
        let excluded: BTreeSet<String> = excluded.iter().map(|e| (*e).to_owned()).collect();
        let out = size::size(
            "books",
            &*registry,
            &registry.all_routes(),
            &excluded,
            &mesh,
        );
        (out.services, out.mesh_bytes - out.bytes)
    }

    fn known_since(&self, host: &str) -> Option<u64> {
        let entries = self.index.services().host(host);
        self.since.of(entries.first()?)
    }
}

fn shop() -> Fixture {
    let fixture = Fixture::new();
    fixture.service("shelf.books", ("http", 80));
    fixture.service("archive.attic", ("http", 80));
    fixture.service("stockdb.stock", ("tcp-sql", 5432));
    fixture
}

const SHELF: &str = "books/shelf.books.svc.cluster.local";
const ARCHIVE: &str = "attic/archive.attic.svc.cluster.local";
const STOCKDB: &str = "stock/stockdb.stock.svc.cluster.local";

#[test]
fn fault_s16_what_is_not_in_the_scope_and_proven_is_left_out() {
    let fixture = shop();
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, STOCKDB]);
    let not = |text: &'static str| move |e: &HostEntry| !e.host.starts_with(text);
    assert_eq!(
        fixture.unused_by("books", &[SHELF], not("archive")),
        [STOCKDB]
    );
    assert_eq!(fixture.unused(&[SHELF, "attic/*"]), [STOCKDB]);
    assert_eq!(fixture.unused(&["attic/*.svc.cluster.local"]), [""; 0]);
    assert_eq!(fixture.unused(&["*/*"]), [""; 0]);
    assert_eq!(fixture.unused(&["~/*"]).len(), 3);
}

#[test]
fn fault_s16_what_the_namespace_does_not_see_is_not_named() {
    let fixture = shop();
    let mut hidden = json!({"hosts": ["own.example"], "resolution": "DNS", "exportTo": ["."],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]});
    fixture.entry("own.attic", &hidden);
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, STOCKDB]);
    hidden["exportTo"] = json!(["books"]);
    fixture.entry("own.attic", &hidden);
    assert_eq!(
        fixture.unused(&[SHELF]),
        [ARCHIVE, "attic/own.example", STOCKDB]
    );
}

#[test]
fn fault_s16_wildcards_and_external_names_stay() {
    let fixture = shop();
    let ports = json!([{"number": 443, "name": "tls", "protocol": "TLS"}]);
    fixture.entry(
        "paper.outside",
        &json!({"hosts": ["*.paper.example"], "ports": ports}),
    );
    fixture.entry(
        "orders.outside",
        &json!({"hosts": ["orders.paper.example"], "resolution": "DNS", "ports": ports}),
    );
    let alias = json!({"type": "ExternalName", "externalName": "archive.attic.svc.cluster.local", "ports": [{"name": "http", "port": 80}]});
    fixture.service_of("old.attic", &alias);
    let orders = "outside/orders.paper.example";
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, orders, STOCKDB]);
    assert_eq!(
        fixture.unused(&[SHELF, "outside/*.paper.example"]),
        [ARCHIVE, STOCKDB]
    );
}

#[test]
fn fault_s16_a_host_of_several_namespaces_goes_as_a_whole() {
    let fixture = shop();
    let spec = json!({"hosts": ["twice.example"], "resolution": "DNS", "addresses": ["10.9.9.9"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]});
    fixture.entry("a.one", &spec);
    fixture.entry("a.two", &spec);
    let (one, two) = ("one/twice.example", "two/twice.example");
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, one, STOCKDB, two]);
    assert_eq!(fixture.unused(&[SHELF, one]), [ARCHIVE, STOCKDB]);
    let new = |e: &HostEntry| *e.namespace != *"two";
    assert_eq!(
        fixture.unused_by("books", &[SHELF], new),
        [ARCHIVE, STOCKDB]
    );
}

#[test]
fn fault_s16_what_leads_to_a_host_in_use_stays() {
    let fixture = shop();
    fixture.service("old.attic", ("http", 80));
    fixture.service("older.attic", ("http", 80));
    fixture.route("old.attic", &["old"], &["shelf.books.svc.cluster.local"]);
    fixture.route("older.attic", &["older"], &["old"]);
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, STOCKDB]);
    // By a delegate too, and gone it counts again.
    fixture.route_of(
        "old.attic",
        &json!({"hosts": ["old"], "http": [{"delegate": {"name": "part"}}]}),
    );
    fixture.route_of(
        "part.attic",
        &json!({"http": [{"route": [{"destination": {"host": "shelf.books.svc.cluster.local"}}]}]}),
    );
    assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, STOCKDB]);
    fixture.route_of(
        "part.attic",
        &json!({"http": [{"route": [{"destination": {"host": "archive"}}]}]}),
    );
    let old = ["old", "older"].map(|n| format!("attic/{n}.attic.svc.cluster.local"));
    assert_eq!(
        fixture.unused(&[SHELF]),
        [ARCHIVE, &old[0], &old[1], STOCKDB]
    );
}

#[test]
fn fault_s16_a_listener_of_all_addresses_keeps_its_neighbours() {
    let fixture = shop();
    let spec = |protocol: &str, addresses: Value, resolution: &str| {
        json!({"hosts": ["ledger.bank.example"], "resolution": resolution, "addresses": addresses,
            "ports": [{"number": 5432, "name": "p", "protocol": protocol}]})
    };
    let ledger = "till/ledger.bank.example";
    for (protocol, addresses, resolution, caught) in [
        ("TCP", json!([]), "DNS", true),
        ("MYSQL", json!([]), "STATIC", true),
        ("TCP", json!(["10.96.0.0/16"]), "STATIC", true),
        ("TCP", json!(["10.9.9.9"]), "DNS", false),
        ("TCP", json!([]), "NONE", false),
        ("TLS", json!([]), "DNS", false),
        ("HTTP", json!([]), "DNS", false),
    ] {
        fixture.entry("ledger.till", &spec(protocol, addresses, resolution));
        let used = fixture.unused(&[SHELF, ledger]);
        let wanted: &[&str] = if caught {
            &[ARCHIVE]
        } else {
            &[ARCHIVE, STOCKDB]
        };
        assert_eq!(used, wanted, "{protocol} {resolution}");
        // When it is left out itself, it takes nothing.
        assert_eq!(fixture.unused(&[SHELF]), [ARCHIVE, STOCKDB, ledger]);
    }
}

#[test]
fn fault_s16_exclusions_of_a_huge_mesh_have_a_bound() {
    let fixture = shop();
    for n in 0..9000 {
        fixture.service(&format!("{}-{n:05}.attic", "n".repeat(60)), ("http", 80));
    }
    let all = fixture.unused(&[SHELF]);
    let bytes: usize = all.iter().map(|e| e.len() + 8).sum();
    assert!((600_000..=700_000).contains(&bytes), "{bytes}");
}

#[test]
fn fault_s16_the_size_knows_what_comes_back() {
    let fixture = shop();
    assert_eq!(fixture.size(&[]), (3, 0));
    let (services, saved) = fixture.size(&[ARCHIVE]);
    assert!(services == 2 && saved > 0);
    // Of its own namespace, by that host alone: it goes with the service.
    fixture.route("archive.attic", &["archive"], &["archive"]);
    assert_eq!(fixture.size(&[ARCHIVE]).0, 2);
    assert!(fixture.size(&[ARCHIVE]).1 > saved, "and its rules");
    // With another host it stays, and so does its destination.
    fixture.route(
        "archive.attic",
        &["archive", "papers.example"],
        &["archive"],
    );
    assert_eq!(fixture.size(&[ARCHIVE]), (3, 0));
    fixture.route("archive.attic", &["archive"], &["archive"]);
    fixture.route(
        "mine.books",
        &["archive.attic.svc.cluster.local"],
        &["archive.attic.svc.cluster.local"],
    );
    assert_eq!(
        fixture.size(&[ARCHIVE]).0,
        3,
        "a VirtualService of another namespace"
    );
    fixture.route_of(
        "mine.books",
        &json!({"hosts": ["x.example"], "gateways": ["door"],
        "http": [{"route": [{"destination": {"host": "archive.attic.svc.cluster.local"}}]}]}),
    );
    assert_eq!(fixture.size(&[ARCHIVE]).0, 2, "for a gateway");
}

#[test]
fn fault_s16_a_service_is_known_since_it_is_what_it_is() {
    let fixture = shop();
    let archive = "archive.attic.svc.cluster.local";
    assert_eq!(fixture.known_since(archive), Some(1));
    fixture.since.watch();
    fixture.windows.store(5, Ordering::Relaxed);
    fixture.service("archive.attic", ("http", 80));
    assert_eq!(fixture.known_since(archive), Some(1), "the same");
    let labelled = json!({"metadata": {"name": "archive", "namespace": "attic", "labels": {"version": "2"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"selector": {"app": "archive.attic"}, "ports": [{"name": "http", "port": 80}]}});
    fixture
        .mesh
        .put::<Service>(serde_json::from_value(labelled).unwrap());
    assert_eq!(fixture.known_since(archive), Some(1), "labels say nothing");
    assert!(fixture.since.drain_changes().is_empty());
    fixture.mesh.remove::<Service>("attic", "archive");
    assert!(fixture.since.drain_changes().has(archive), "it is gone");
    fixture.service("archive.attic", ("http", 80));
    assert_eq!(fixture.known_since(archive), Some(6), "made again");
    assert!(!fixture.since.any(Some(6), 9) && fixture.since.any(Some(5), 6));
    fixture.windows.store(8, Ordering::Relaxed);
    fixture.service("archive.attic", ("http", 8080));
    assert_eq!(fixture.known_since(archive), Some(9), "another port");
    fixture.windows.store(10, Ordering::Relaxed);
    fixture.route(
        "all.attic",
        &["*.attic.svc.cluster.local"],
        &["shelf.books.svc.cluster.local"],
    );
    assert_eq!(fixture.known_since(archive), Some(11), "it leads elsewhere");
    assert!(fixture.since.drain_changes().has(archive));
    assert_eq!(
        fixture.known_since("shelf.books.svc.cluster.local"),
        Some(1)
    );
    fixture.route_of(
        "root.stock",
        &json!({"hosts": ["stockdb"], "http": [{"delegate": {"name": "part"}}]}),
    );
    fixture.windows.store(20, Ordering::Relaxed);
    fixture.route_of("part.stock", &json!({"http": [{"route": [{"destination": {"host": "archive.attic.svc.cluster.local"}}]}]}));
    assert_eq!(
        fixture.known_since("stockdb.stock.svc.cluster.local"),
        Some(21),
        "by a delegate"
    );
}

#[test]
fn fault_s16_routes_of_the_gateway_api_lead_elsewhere_too() {
    let fixture = shop();
    let archive = "archive.attic.svc.cluster.local";
    let route = |to: &str| {
        let parent =
            json!({"group": "", "kind": "Service", "name": "archive", "namespace": "attic"});
        json!({"metadata": meta("try.attic"), "spec": {"parentRefs": [parent],
            "rules": [{"backendRefs": [{"name": to, "namespace": "books", "port": 80}]}]}})
    };
    let http = |to: &str| {
        let object = serde_json::from_value(route(to)).unwrap();
        fixture.mesh.put::<HttpRoute>(object);
    };
    fixture.since.watch();
    fixture.windows.store(5, Ordering::Relaxed);
    http("shelf");
    assert_eq!(fixture.known_since(archive), Some(6), "it leads elsewhere");
    assert!(fixture.since.drain_changes().has(archive));
    fixture.windows.store(7, Ordering::Relaxed);
    http("shelf");
    assert_eq!(fixture.known_since(archive), Some(6), "the same");
    http("other");
    assert_eq!(fixture.known_since(archive), Some(8));
    fixture.windows.store(9, Ordering::Relaxed);
    let object = serde_json::from_value(route("shelf")).unwrap();
    fixture.mesh.put::<GrpcRoute>(object);
    assert_eq!(fixture.known_since(archive), Some(10));
    fixture.windows.store(11, Ordering::Relaxed);
    fixture.mesh.remove::<HttpRoute>("attic", "try");
    assert_eq!(fixture.known_since(archive), Some(12), "it is gone");
}

/// A call that is copied to a service in use may be one to a host that nobody counts.
#[test]
fn fault_s16_a_host_that_is_mirrored_to_a_used_one_stays() {
    let to = |name: &str| json!({"host": format!("{name}.svc.cluster.local")});
    for mirror in [
        json!({"mirror": to("shelf.books")}),
        json!({"mirrors": [{"destination": to("shelf.books")}]}),
    ] {
        let fixture = shop();
        let mut rule = mirror;
        rule["route"] = json!([{"destination": to("archive.attic")}]);
        let spec = json!({"hosts": ["archive.attic.svc.cluster.local"], "http": [rule]});
        fixture.route_of("archive.attic", &spec);
        assert_eq!(fixture.unused(&[SHELF]), [STOCKDB]);
        assert_eq!(fixture.unused(&[]).len(), 3, "nothing of it is used");
    }
    // So does a copy by a route of the Gateway API, and by a delegate.
    let fixture = shop();
    let parent = json!({"group": "", "kind": "Service", "name": "archive", "namespace": "attic"});
    let copy = json!({"name": "shelf", "namespace": "books", "port": 80});
    let filter = json!({"type": "RequestMirror", "requestMirror": {"backendRef": copy}});
    let back = json!({"name": "archive", "namespace": "attic", "port": 80});
    let route = json!({"metadata": meta("copy.attic"), "spec": {"parentRefs": [parent],
        "rules": [{"filters": [filter], "backendRefs": [back]}]}});
    let object = serde_json::from_value(route).unwrap();
    fixture.mesh.put::<HttpRoute>(object);
    assert_eq!(fixture.unused(&[SHELF]), [STOCKDB]);
}

#[test]
fn fault_s16_the_refusal_of_an_older_istiod_is_known() {
    for (message, wanted) in [
        (
            "apply Sidecar a/b: ApiError: admission webhook \"validation.istio.io\" denied the request: configuration is invalid: invalid namespace value \"~attic\" in sidecar: BadRequest",
            true,
        ),
        ("invalid namespace value \"a b\" in sidecar", false),
        ("no answer from the API server within 10s", false),
        (
            "admission webhook \"validation.istio.io\" denied the request: configuration is invalid: ~ is odd",
            false,
        ),
    ] {
        assert_eq!(is_refusal(message), wanted, "{message}");
    }
}
