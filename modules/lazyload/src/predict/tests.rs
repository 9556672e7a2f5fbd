use serde_json::{Value, json};
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{
    DestinationRule, GrpcRoute, HttpRoute, Service, ServiceEntry, VirtualService,
};

use super::{Client, Egress, Given, Lead, Release, VirtualHost, otherwise, predict, undecided};
use crate::config::LazyloadConfig;
use crate::mesh::Index;
use crate::scope::Services;

const DOMAIN: &str = "cluster.local";

/// What a client in `home` gets.
fn given(objects: &[Value], entries: Option<&[&str]>) -> Given {
    of_release(objects, entries, Release::V1_31)
}

fn of_release(objects: &[Value], entries: Option<&[&str]>, release: Release) -> Given {
    asked(objects, entries, release, predict)
}

fn asked<T>(
    objects: &[Value],
    entries: Option<&[&str]>,
    release: Release,
    ask: impl Fn(&Client<'_>, Option<&Egress>, &dyn Services) -> T,
) -> T {
    let mesh = Mesh::new(DOMAIN);
    let index = Index::new(&LazyloadConfig::default(), &mesh);
    index.attach(&mesh);
    for object in objects {
        let object = object.clone();
        match object["kind"].as_str() {
            Some("Service") => mesh.put::<Service>(serde_json::from_value(object).unwrap()),
            Some("ServiceEntry") => {
                mesh.put::<ServiceEntry>(serde_json::from_value(object).unwrap());
            }
            Some("VirtualService") => {
                mesh.put::<VirtualService>(serde_json::from_value(object).unwrap());
            }
            Some("HTTPRoute") => mesh.put::<HttpRoute>(serde_json::from_value(object).unwrap()),
            Some("GRPCRoute") => mesh.put::<GrpcRoute>(serde_json::from_value(object).unwrap()),
            Some("DestinationRule") => {
                mesh.put::<DestinationRule>(serde_json::from_value(object).unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    let client = Client {
        namespace: "home",
        labels: None,
        domain: DOMAIN,
        root: "istio-system",
        release,
    };
    let egress = entries.map(|entries| Egress::new(entries.iter().copied(), "home"));
    ask(&client, egress.as_ref(), &*index.services())
}

fn object(api: &str, kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn service(namespace: &str, name: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80}]);
    object(
        "v1",
        "Service",
        namespace,
        name,
        &json!({"clusterIP": "10.0.0.1", "selector": {"app": name}, "ports": ports}),
    )
}

fn database(namespace: &str, name: &str, address: &str) -> Value {
    let ports = json!([{"name": "tcp", "port": 5432}]);
    object(
        "v1",
        "Service",
        namespace,
        name,
        &json!({"clusterIP": address, "selector": {"app": name}, "ports": ports}),
    )
}

fn alias(namespace: &str, name: &str, of: &str) -> Value {
    let spec = json!({"type": "ExternalName", "externalName": of, "ports": [{"name": "http", "port": 80}]});
    object("v1", "Service", namespace, name, &spec)
}

fn entry(namespace: &str, name: &str, spec: &Value) -> Value {
    object(
        "networking.istio.io/v1",
        "ServiceEntry",
        namespace,
        name,
        spec,
    )
}

fn routes(namespace: &str, name: &str, spec: &Value) -> Value {
    object(
        "networking.istio.io/v1",
        "VirtualService",
        namespace,
        name,
        spec,
    )
}

fn host<'a>(given: &'a Given, name: &str) -> &'a VirtualHost {
    let all = given.routes.values().flatten();
    let mut found = all.filter(|vhost| vhost.name == name);
    found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {given:#?}"))
}

fn leads(given: &Given, name: &str) -> Vec<String> {
    let routes = host(given, name).routes.iter();
    let clusters = routes.flat_map(|route| match &route.lead {
        Lead::Clusters(to) => to.iter().map(|(name, _)| name.clone()).collect(),
        other => vec![format!("{other:?}")],
    });
    clusters.collect()
}

fn listeners(given: &Given) -> Vec<&str> {
    given.listeners.keys().map(String::as_str).collect()
}

#[test]
fn a_wildcard_virtual_service_comes_by_an_exact_entry() {
    let timeouts = |namespace: &str| {
        routes(
            namespace,
            "timeouts",
            &json!({"hosts": ["*.print.svc.cluster.local"], "http": [{"route": [{"destination": {"host": "poems.print.svc.cluster.local"}}]}]}),
        )
    };
    for owner in ["print", "rules"] {
        let mesh = [
            service("print", "novels"),
            service("print", "poems"),
            service("print", "maps"),
            timeouts(owner),
        ];
        let here = format!("{owner}/novels.print.svc.cluster.local");
        let scoped = given(
            &mesh,
            Some(&["print/novels.print.svc.cluster.local", &here]),
        );
        assert_eq!(
            scoped.clusters.iter().collect::<Vec<_>>(),
            [
                "outbound|80||novels.print.svc.cluster.local",
                "outbound|80||poems.print.svc.cluster.local"
            ]
        );
        let name = "novels.print.svc.cluster.local:80";
        assert_eq!(
            leads(&scoped, name),
            leads(&given(&mesh, None), name),
            "{owner}"
        );
    }
}

#[test]
fn the_names_of_an_alias_come_by_the_namespace_of_its_target() {
    let mesh = [
        service("head", "prices"),
        alias("branch", "rates", "prices.head.svc.cluster.local"),
    ];
    let target = "head/prices.head.svc.cluster.local";
    let knows = |entries: &[&str]| {
        let given = given(&mesh, Some(entries));
        host(&given, "prices.head.svc.cluster.local:80")
            .domains
            .contains("rates.branch")
    };
    assert!(!knows(&[target, "branch/rates.branch.svc.cluster.local"]));
    assert!(knows(&[target, "head/rates.branch.svc.cluster.local"]));
    assert!(knows(&["head/*"]));
}

#[test]
fn a_route_to_an_alias_leads_to_its_target_when_an_entry_names_the_alias() {
    let to_index =
        json!({"hosts": ["catalog"], "http": [{"route": [{"destination": {"host": "index"}}]}]});
    let mesh = [
        service("books", "catalog"),
        service("books", "index-blue"),
        alias("books", "index", "index-blue.books.svc.cluster.local"),
        routes("books", "catalog", &to_index),
    ];
    let catalog = "books/catalog.books.svc.cluster.local";
    let name = "catalog.books.svc.cluster.local:80";
    assert_eq!(
        leads(&given(&mesh, Some(&[catalog])), name),
        ["outbound|80||index.books.svc.cluster.local"]
    );
    let entries = [catalog, "books/index.books.svc.cluster.local"];
    assert_eq!(
        leads(&given(&mesh, Some(&entries)), name),
        ["outbound|80||index-blue.books.svc.cluster.local"]
    );
}

#[test]
fn a_rule_for_another_namespace_brings_no_cluster_though_another_match_is_for_all() {
    let spec = json!({"hosts": ["lamp"], "http": [
        {"match": [{"sourceNamespace": "attic"}, {"uri": {"prefix": "/dim"}}], "route": [{"destination": {"host": "dim-lamp"}}]},
        {"route": [{"destination": {"host": "lamp"}}]}]});
    let mesh = [
        service("hall", "lamp"),
        service("hall", "dim-lamp"),
        routes("hall", "lamp", &spec),
    ];
    let given = given(&mesh, Some(&["hall/lamp.hall.svc.cluster.local"]));
    assert_eq!(given.clusters.len(), 1, "{given:?}");
    assert_eq!(
        leads(&given, "lamp.hall.svc.cluster.local:80"),
        [
            "outbound|80||dim-lamp.hall.svc.cluster.local",
            "outbound|80||lamp.hall.svc.cluster.local"
        ]
    );
}

#[test]
fn an_entry_without_an_address_has_the_listener_of_all_addresses() {
    let ledger = json!({"hosts": ["ledger.bank.example"], "resolution": "DNS", "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}]});
    let mesh = [
        database("stock", "stockdb", "10.96.0.40"),
        entry("home", "ledger", &ledger),
    ];
    assert_eq!(
        listeners(&given(&mesh, Some(&["home/ledger.bank.example"]))),
        ["0.0.0.0_5432"]
    );
    assert_eq!(
        listeners(&given(&mesh, None)),
        ["0.0.0.0_5432", "10.96.0.40_5432"]
    );
}

/// The quick look-up of 1.31 finds the first address only.
#[test]
fn of_several_addresses_of_an_entry_exact_entries_find_the_first() {
    let ledger = json!({"hosts": ["ledger.bank.example"], "addresses": ["10.1.0.1", "10.1.0.2"], "resolution": "STATIC",
        "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}]});
    let mesh = [entry("home", "ledger", &ledger)];
    let exact = ["home/ledger.bank.example"];
    let both = ["10.1.0.1_5432", "10.1.0.2_5432"];
    assert_eq!(listeners(&given(&mesh, Some(&exact))), both[..1]);
    assert_eq!(
        listeners(&of_release(&mesh, Some(&exact), Release::V1_30)),
        both
    );
    assert_eq!(listeners(&given(&mesh, Some(&["home/*.example"]))), both);
    assert_eq!(listeners(&given(&mesh, None)), both);
}

#[test]
fn a_route_of_the_gateway_api_is_for_the_namespaces_of_the_service_and_its_own() {
    let to_next = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "shelf", "namespace": "books"}],
        "rules": [{"backendRefs": [{"name": "next", "namespace": "books", "port": 80}]}]});
    let name = "shelf.books.svc.cluster.local:80";
    for (owner, to) in [("home", "next"), ("books", "next"), ("attic", "shelf")] {
        let route = object(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            owner,
            "try",
            &to_next,
        );
        let mesh = [service("books", "shelf"), service("books", "next"), route];
        let cluster = format!("outbound|80||{to}.books.svc.cluster.local");
        assert_eq!(leads(&given(&mesh, None), name), [cluster], "{owner}");
    }
}

#[test]
fn exclusions_take_away_what_everything_brings() {
    let mesh = [service("books", "shelf"), service("attic", "archive")];
    let given = given(
        &mesh,
        Some(&["*/*", "~attic/archive.attic.svc.cluster.local"]),
    );
    assert_eq!(
        given.clusters.iter().collect::<Vec<_>>(),
        ["outbound|80||shelf.books.svc.cluster.local"]
    );
    let nothing = given_nothing(&mesh);
    assert_eq!(nothing, Given::default());
}

fn given_nothing(mesh: &[Value]) -> Given {
    given(mesh, Some(&["*/*", "~/*"]))
}

/// A cluster of DNS comes with its endpoints: without any of the subset's labels there is none.
#[test]
fn subsets_of_dns_hosts_have_clusters_only_with_endpoints() {
    let bank = |resolution: &str, endpoints: &Value| {
        let ports = json!([{"number": 80, "name": "http", "protocol": "HTTP"}]);
        let spec = json!({"hosts": ["bank.example"], "resolution": resolution, "ports": ports, "endpoints": endpoints});
        entry("home", "bank", &spec)
    };
    let subsets = json!([{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}, {"name": "all"}]);
    let rule = object(
        "networking.istio.io/v1",
        "DestinationRule",
        "home",
        "bank",
        &json!({"host": "bank.example", "subsets": subsets}),
    );
    let first = json!([{"address": "192.0.2.1", "labels": {"version": "v1"}}]);
    for (resolution, endpoints, wanted) in [
        ("DNS", json!([]), &["", "all"][..]),
        ("DNS", first.clone(), &["", "all", "v1"]),
        ("STATIC", first, &["", "all", "v1", "v2"]),
    ] {
        let given = given(&[bank(resolution, &endpoints), rule.clone()], None);
        let wanted = wanted
            .iter()
            .map(|s| format!("outbound|80|{s}|bank.example"));
        assert_eq!(given.clusters, wanted.collect(), "{resolution} {endpoints}");
    }
}

/// Of services that sort alike istiod finds one or the other first.
#[test]
fn what_a_map_decides_is_undecided() {
    let ledger = json!({"hosts": ["ledger.bank.example"], "addresses": ["10.1.0.1", "10.1.0.2"], "resolution": "STATIC",
        "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}]});
    let mesh = [entry("home", "ledger", &ledger)];
    let exact = ["home/ledger.bank.example"];
    let all = |client: &Client<'_>, egress: Option<&Egress>, services: &dyn Services| {
        let undecided = undecided(client, egress, services).into_iter();
        let ways = undecided.flat_map(|(what, ways)| (1..ways).map(move |way| (what.clone(), way)));
        let other = |way| otherwise(client, egress, services, way);
        ways.map(other).collect::<Vec<Given>>()
    };
    let others = asked(&mesh, Some(&exact), Release::V1_31, all);
    let [other] = &others[..] else {
        panic!("{others:?}")
    };
    assert_eq!(listeners(other), ["10.1.0.2_5432"]);
    let back = |namespace: &str| {
        let ports = json!([{"number": 80, "name": "http", "protocol": "HTTP"}]);
        let spec = json!({"hosts": ["back.example"], "resolution": "DNS", "ports": ports});
        entry(namespace, "back", &spec)
    };
    let to = json!({"hosts": ["front.example"], "http": [{"route": [{"destination": {"host": "back.example"}}]}]});
    let mesh = [back("left"), back("right"), routes("home", "front", &to)];
    let scoped = Some(&["home/front.example"][..]);
    let others = asked(&mesh, scoped, Release::V1_31, |c, e, s| {
        undecided(c, e, s).len()
    });
    assert_eq!(others, 1);
}

#[test]
fn routes_of_both_kinds_of_the_gateway_api_are_one() {
    let route = |kind: &str, to: &str, matches: &Value| {
        let parent = json!({"group": "", "kind": "Service", "name": "shelf", "namespace": "books"});
        let rule = json!({"matches": matches, "backendRefs": [{"name": to, "namespace": "books", "port": 80}]});
        let spec = json!({"parentRefs": [parent], "rules": [rule]});
        object("gateway.networking.k8s.io/v1", kind, "books", to, &spec)
    };
    let path = json!([{"path": {"type": "PathPrefix", "value": "/a"}}]);
    let method = json!([{"method": {"type": "Exact", "service": "G", "method": "H"}}]);
    let mesh = [
        service("books", "shelf"),
        service("books", "next"),
        service("books", "last"),
        route("HTTPRoute", "next", &path),
        route("GRPCRoute", "last", &method),
    ];
    assert_eq!(
        leads(&given(&mesh, None), "shelf.books.svc.cluster.local:80"),
        [
            "outbound|80||last.books.svc.cluster.local",
            "outbound|80||next.books.svc.cluster.local"
        ]
    );
}
