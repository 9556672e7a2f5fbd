//! Golden cases: what they give, and that a real Envoy takes it, from a file and over the wire.

use std::net::{IpAddr, Ipv4Addr};

use expect_test::expect_file;
use serde_json::{Map, Value, json};
use trimtab_dataplane::{BootstrapOptions, Listen, Served, TYPES, bootstrap, resources};
use trimtab_kit::problem::Problem;
use trimtab_lab::envoy;
use trimtab_xds::{CDS, DRDS, EDS, LDS, RDS, ResourceCache, Scope, TRDS};

use crate::cases::{Case, all, root};
use crate::lab::Fixture;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.network";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// All resources by type and name.
fn shown(served: &Served) -> Value {
    let mut all = Map::new();
    for type_url in TYPES {
        let mut of_type = Map::new();
        for name in served.names(type_url) {
            of_type.insert(
                name.to_owned(),
                served.shown(type_url, name).expect("its content"),
            );
        }
        let message = type_url.trim_start_matches("type.googleapis.com/envoy.");
        if !of_type.is_empty() {
            all.insert(message.to_owned(), Value::Object(of_type));
        }
    }
    Value::Object(all)
}

/// What a group has, where it differs from what all have.
fn beside(own: &Value, all: &Value) -> Value {
    let mut out = own.clone();
    for (type_url, of_type) in out.as_object_mut().expect("types") {
        for (name, content) in of_type.as_object_mut().expect("names") {
            if *content == all[type_url][name] {
                *content = json!("as for all");
            }
        }
    }
    out
}

fn render(case: &Case) -> String {
    let (input, found) = case.input();
    let served = resources(&input, None);
    let lines = |problems: &[Problem]| -> Vec<String> {
        problems
            .iter()
            .map(|p| format!("{}: {p}", p.reason))
            .collect()
    };
    let refused: Vec<Problem> = served.refusals.iter().map(|r| r.problem.clone()).collect();
    let opened: Vec<String> = served
        .opened
        .iter()
        .map(|o| format!("{}:{} at {:?}", o.host, o.port, o.addresses))
        .collect();
    let problems = [lines(&found), lines(&served.problems), lines(&refused)].concat();
    let mut out = json!({
        "opened": opened,
        "problems": problems,
        "resources": shown(&served),
    });
    let snapshot = case.snapshot(None);
    let mut groups: Vec<(String, Value)> = Vec::new();
    for group in snapshot.groups() {
        let own = snapshot.of_group(group).expect("what it is served");
        let own = beside(&shown(own), &out["resources"]);
        match groups.iter_mut().find(|(_, other)| *other == own) {
            Some((names, _)) => *names = format!("{names} and {group}"),
            None => groups.push((group.to_owned(), own)),
        }
    }
    if !groups.is_empty() {
        out["groups"] = groups.into_iter().collect::<Map<_, _>>().into();
    }
    serde_saphyr::to_string(&out).expect("YAML")
}

#[test]
fn every_case_gives_its_golden_output() {
    let cases = all();
    assert!(cases.len() >= 9);
    for (name, case) in cases {
        let text = render(&case);
        assert!(!text.contains("geheim"), "{name}: a password is shown");
        expect_file![root().join(&name).join("out.yaml")].assert_eq(&text);
    }
}

#[test]
fn the_same_input_in_another_order_gives_the_same_and_no_update() {
    for (name, case) in all() {
        let first = case.served(None);
        let mut turned = case.clone();
        turned.objects.reverse();
        turned.pod_labels.reverse();
        let second = turned.served(Some(&first));
        assert_eq!(render(&case), render(&turned), "{name}");
        let whole = case.snapshot(None);
        let again = turned.snapshot(Some(&whole)).updates(Some(&whole));
        let updates = second.updates(Some(&first), &Scope::All);
        for update in updates.into_iter().chain(again) {
            assert!(
                update.set.is_empty() && update.remove.is_empty(),
                "{name}: {}",
                update.type_url
            );
        }
    }
}

#[test]
fn an_input_that_is_dumped_and_read_again_is_the_same() {
    for (name, case) in all() {
        let (input, _) = case.input();
        let text = serde_saphyr::to_string(&input).expect("YAML");
        let again = serde_saphyr::from_str(&text).expect("the dump is an input");
        // Credentials are never dumped; all else must be there.
        if !text.contains("kind: plain") {
            assert_eq!(input, again, "{name}");
        }
    }
}

/// A listener with one filter.
fn listener(name: &str, filter: &Value) -> Value {
    json!({
        "name": format!("check {name}"),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "check", "typed_config": filter}]}],
    })
}

/// Everything that is served, as parts of a bootstrap.
fn as_static(served: &Served) -> Value {
    let of = |type_url| -> Vec<Value> {
        let names: Vec<&str> = served.names(type_url).collect();
        names
            .iter()
            .map(|n| served.shown(type_url, n).expect("its content"))
            .collect()
    };
    let mut config = bootstrap(&BootstrapOptions::new(
        "check",
        "127.0.0.1:1".parse().unwrap(),
    ));
    let parts = &mut config["static_resources"];
    let clusters = parts["clusters"].as_array_mut().expect("clusters");
    clusters.extend(of(CDS));
    clusters.extend(of(EDS).into_iter().map(|endpoints| {
        let name = format!("check {}", endpoints["cluster_name"]);
        let mut endpoints = endpoints;
        endpoints["cluster_name"] = json!(name);
        json!({"name": name, "type": "STATIC", "load_assignment": endpoints})
    }));
    let mut listeners = of(LDS);
    listeners.extend(of(RDS).into_iter().map(|routes| {
        let filter = json!({
            "@type": format!("{FILTERS}.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "check", "route_config": with(routes.clone(), "validate_clusters", json!(false)),
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        });
        listener(routes["name"].as_str().expect("a name"), &filter)
    }));
    for (type_url, filter, field) in [
        (TRDS, "thrift_proxy.v3.ThriftProxy", "route_config"),
        (DRDS, "dubbo_proxy.v3.DubboProxy", "multiple_route_config"),
    ] {
        listeners.extend(of(type_url).into_iter().map(|routes| {
            let filter = json!({"@type": format!("{FILTERS}.{filter}"), "stat_prefix": "check", field: routes});
            listener(routes["name"].as_str().expect("a name"), &filter)
        }));
    }
    parts["listeners"] = json!(listeners);
    config
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

#[test]
fn a_real_envoy_takes_every_case_from_a_file() {
    for (name, case) in all() {
        let snapshot = case.snapshot(None);
        let own = snapshot.groups().filter_map(|g| snapshot.of_group(g));
        for served in own.chain([snapshot.everyone()]) {
            if let Err(reason) = envoy::validate(&as_static(served)) {
                panic!("{name}: {reason}");
            }
        }
    }
}

/// The encoded form: every listener, cluster, table of routes and list of endpoints is asked for and accepted.
#[tokio::test]
async fn a_real_envoy_accepts_every_case_over_the_wire() {
    let mut seen = 0;
    for (index, (name, mut case)) in (1..).zip(all()) {
        if matches!(case.listen, Listen::Captured { .. }) {
            continue; // it would listen on all addresses of this machine
        }
        // Every case on an address of its own, as they use the same ports.
        if let Listen::Address { address, .. } = &mut case.listen {
            *address = IpAddr::V4(Ipv4Addr::new(127, 77, 0, index));
        }
        let served = case.served(None);
        let fixture = Fixture::start(&format!("wire-{name}"), &served).await;
        for type_url in TYPES {
            for resource in served.names(type_url) {
                fixture.until_held(type_url, resource).await;
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen} resources");
}

/// What is served to groups: listeners are on addresses of 127.0.0.0/8, which are of this machine.
#[tokio::test]
async fn a_real_envoy_accepts_over_the_wire_what_is_for_its_group() {
    let mut seen = 0;
    for (name, case) in all() {
        let snapshot = case.snapshot(None);
        for (index, group) in snapshot.groups().enumerate() {
            let own = snapshot.of_group(group).expect("what it is served");
            let fill = |cache: &ResourceCache| {
                cache.update_all(snapshot.updates(None));
            };
            let fixture =
                Fixture::start_as(&format!("group-{name}-{index}"), Some(group), fill).await;
            for type_url in TYPES {
                for resource in own.names(type_url) {
                    fixture.until_held(type_url, resource).await;
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 60, "{seen} resources");
}
