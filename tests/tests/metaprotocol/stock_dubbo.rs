//! Dubbo on a real Envoy, through each of its two filters: real clients, real servers, one connection.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};
use trimtab_metaprotocol::features::{Feature, Target};
use trimtab_metaprotocol::input::{Delivery, ServicePortInput};
use trimtab_xds::{DRDS, GENERIC_RDS, Resource};

use crate::lab::{BOUND, Fixture, Mesh, VIP, filters, read};
use crate::peers::{Counts, Peer, client, counts, server};

const HOST: &str = "demo.shop.svc.cluster.local";
const PORT: u16 = 20880;
const INTERFACE: &str = "org.demo.Hello";

fn input(routes: Value) -> ServicePortInput {
    let mut out = json!({
        "host": HOST, "namespace": "shop", "service": "demo",
        "port": {"number": PORT, "name": "tcp-dubbo"},
        "protocol": {"kind": "dubbo"},
        "vips": [VIP],
        "workloadSelector": {"app": "demo"},
        "hosts": {HOST: {"ports": {"20880": "tcp-dubbo"}, "subsets": {"v1": {}, "v2": {}}}},
        "router": {
            "owner": {"kind": "MetaRouter", "namespace": "shop", "name": "demo"},
        },
        "settings": {"dataPlanes": ["envoy"]},
    });
    out["router"]["routes"] = routes;
    read(out)
}

fn to(subset: &str) -> Value {
    json!([{"destination": {"host": HOST, "subset": subset}}])
}

fn all_to(subset: &str) -> ServicePortInput {
    input(json!([{"route": to(subset)}]))
}

/// The same, with a time limit, which only the generic filter can keep.
fn timed(subset: &str) -> ServicePortInput {
    input(json!([{"route": to(subset), "timeout": "300ms"}]))
}

struct Lab {
    fixture: Fixture,
    at: SocketAddr,
    _servers: [Peer; 2],
}

async fn lab(name: &str, delivery: Delivery, first: &ServicePortInput) -> Lab {
    let (v1, at1) = server("dubbo_server.js", "v1").await;
    let (v2, at2) = server("dubbo_server.js", "v2").await;
    let mut mesh = Mesh::default();
    let own = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &own);
    mesh.cluster(&own, at1);
    mesh.cluster(&format!("outbound|{PORT}|v1|{HOST}"), at1);
    mesh.cluster(&format!("outbound|{PORT}|v2|{HOST}"), at2);
    let fixture = Fixture::start(&format!("dubbo-{name}"), &mesh, delivery, first).await;
    Lab {
        fixture,
        at,
        _servers: [v1, v2],
    }
}

impl Lab {
    fn connect(&self) -> Peer {
        client("dubbo_client.py", self.at, &[])
    }

    async fn connections(&self) -> u64 {
        self.fixture.connections().await
    }
}

fn say(calls: u64) -> Value {
    json!({"interface": INTERFACE, "method": "say", "calls": calls})
}

fn with(field: &str, value: Value) -> Value {
    let mut call = say(2);
    call[field] = value;
    call
}

fn share(found: &Counts, name: &str) -> u64 {
    found.get(name).copied().unwrap_or(0)
}

/// Matches that both filters know, each with a call that it takes.
fn cases() -> Vec<(Value, Value)> {
    vec![
        (
            json!({"method": {"exact": "bye"}}),
            with("method", json!("bye")),
        ),
        (
            json!({"method": {"prefix": "by"}}),
            with("method", json!("bye")),
        ),
        (
            json!({"method": {"regex": "b.*e|x"}}),
            with("method", json!("bye")),
        ),
        (
            json!({"interface": {"exact": "org.demo.Other"}}),
            with("interface", json!("org.demo.Other")),
        ),
        (
            json!({"interface": {"prefix": "org.oth"}}),
            with("interface", json!("org.other.Hello")),
        ),
        (
            json!({"version": {"exact": "2.0.0"}}),
            with("version", json!("2.0.0")),
        ),
        (
            json!({"version": {"prefix": "2."}}),
            with("version", json!("2.1.0")),
        ),
        (
            json!({"group": {"exact": "blue"}}),
            with("attachments", json!({"group": "blue"})),
        ),
        (
            json!({"tier": {"exact": "gold"}}),
            with("attachments", json!({"tier": "gold"})),
        ),
        (
            json!({"tier": {"regex": "g.*"}}),
            with("attachments", json!({"tier": "gold"})),
        ),
        (
            json!({"tier": "present"}),
            with("attachments", json!({"tier": "any"})),
        ),
        (
            json!({"tier": {"exact": "gold"}, "method": {"exact": "say"}}),
            with("attachments", json!({"tier": "gold"})),
        ),
    ]
}

/// Calls go where their match says, whichever of the filters it is.
async fn routes_by_what_is_called(lab: &mut Lab, effects: &Value) {
    let mut caller = lab.connect();
    assert_eq!(caller.ask(say(2)).await, counts(&[("v1", 2)]));
    let before = lab.connections().await;
    for (matched, call) in cases() {
        let mut first = json!({"match": matched, "route": to("v2")});
        let mut rest = json!({"route": to("v1")});
        for (field, value) in effects.as_object().expect("fields") {
            first[field] = value.clone();
            rest[field] = value.clone();
        }
        lab.fixture.publish(&input(json!([first, rest]))).await;
        assert_eq!(
            caller.ask(call.clone()).await,
            counts(&[("v2", 2)]),
            "{matched}: {call}"
        );
        assert_eq!(
            caller.ask(say(2)).await,
            counts(&[("v1", 2)]),
            "{matched}: other calls"
        );
    }
    assert_eq!(lab.connections().await, before, "all on one connection");
    let modified = lab
        .fixture
        .counter(&["listener_manager.listener_modified"])
        .await;
    assert_eq!(modified, 0);
}

#[tokio::test]
async fn dubbo_proxy_routes_by_what_is_called() {
    let mut lab = lab("proxy", Delivery::RouteDiscovery, &all_to("v1")).await;
    routes_by_what_is_called(&mut lab, &json!({})).await;
    let resources = lab.fixture.translated(&all_to("v1")).resources;
    assert_eq!(resources[0].type_url, DRDS);
}

#[tokio::test]
async fn generic_proxy_routes_by_what_is_called() {
    let mut lab = lab("generic", Delivery::RouteDiscovery, &timed("v1")).await;
    routes_by_what_is_called(&mut lab, &json!({"timeout": "5s"})).await;
    let resources = lab.fixture.translated(&timed("v1")).resources;
    assert_eq!(resources[0].type_url, GENERIC_RDS);
}

#[tokio::test]
async fn weights_and_arguments_choose_the_destination() {
    let split = json!([{"route": [
        {"destination": {"host": HOST, "subset": "v1"}, "weight": 50},
        {"destination": {"host": HOST, "subset": "v2"}, "weight": 50},
    ]}]);
    let mut lab = lab("weights", Delivery::RouteDiscovery, &input(split)).await;
    let mut caller = lab.connect();
    let found = caller.ask(say(200)).await;
    assert_eq!(share(&found, "v1") + share(&found, "v2"), 200, "{found:?}");
    assert!((60..=140).contains(&share(&found, "v1")), "{found:?}");

    let by_arguments = json!([
        {"match": {"argument[0]": {"exact": "you"}, "argument[1]": {"exact": "them"}}, "route": to("v2")},
        {"match": {"argument[0]": {"exact": "7"}}, "route": to("v2")},
        {"route": to("v1")},
    ]);
    lab.fixture.publish(&input(by_arguments)).await;
    let call = |arguments: Value| with("arguments", arguments);
    assert_eq!(
        caller.ask(call(json!(["you", "them"]))).await,
        counts(&[("v2", 2)])
    );
    assert_eq!(
        caller.ask(call(json!(["you", "me"]))).await,
        counts(&[("v1", 2)])
    );
    let number = caller.ask(call(json!([7]))).await;
    assert_eq!(number, counts(&[("v1", 2)]), "only texts are compared");
    assert_eq!(lab.connections().await, 1);
}

#[tokio::test]
async fn a_client_of_another_make_is_routed_by_group_and_version() {
    let routes = json!([
        {"match": {"group": {"exact": "blue"}, "version": {"exact": "2.0.0"}}, "route": to("v2")},
        {"route": to("v1")},
    ]);
    let lab = lab("node", Delivery::RouteDiscovery, &input(routes)).await;
    for (group, version, expected) in [
        ("blue", "2.0.0", "v2"),
        ("blue", "1.0.0", "v1"),
        ("red", "2.0.0", "v1"),
    ] {
        let mut caller = client("dubbo_client.js", lab.at, &[INTERFACE, group, version]);
        let found = caller.ask(json!({"method": "say", "calls": 3})).await;
        assert_eq!(found, counts(&[(expected, 3)]), "{group} {version}");
    }
}

#[tokio::test]
async fn a_time_limit_ends_a_slow_call_and_not_the_connection() {
    let mut lab = lab("timeout", Delivery::RouteDiscovery, &timed("v1")).await;
    let mut caller = lab.connect();
    let slow = json!({"interface": INTERFACE, "method": "slow", "calls": 1});
    let begin = Instant::now();
    assert_eq!(caller.ask(slow.clone()).await, counts(&[("error", 1)]));
    assert!(begin.elapsed().as_millis() >= 250, "{:?}", begin.elapsed());
    assert_eq!(caller.ask(say(2)).await, counts(&[("v1", 2)]));

    let longer = input(json!([{"route": to("v1"), "timeout": "10s"}]));
    lab.fixture.publish(&longer).await;
    assert_eq!(caller.ask(slow).await, counts(&[("v1", 1)]));
    assert_eq!(lab.connections().await, 1);
}

#[tokio::test]
async fn a_call_is_tried_again_when_no_server_listens() {
    let routes = json!([{"route": to("v1"), "retries": {"attempts": 3}}]);
    let (_v1, at1) = server("dubbo_server.js", "v1").await;
    let nobody = trimtab_lab::ports::free_address().expect("a port");
    let mut mesh = Mesh::default();
    let own = format!("outbound|{PORT}||{HOST}");
    let at = mesh.outbound(PORT, &own);
    mesh.cluster(&own, at1);
    let two = json!({"load_assignment": {"endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": nobody.port()}}}},
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": at1.port()}}}},
    ]}]}});
    mesh.cluster_with(&format!("outbound|{PORT}|v1|{HOST}"), at1, two);
    let fixture = Fixture::start(
        "dubbo-retries",
        &mesh,
        Delivery::RouteDiscovery,
        &input(routes),
    )
    .await;
    let mut caller = client("dubbo_client.py", at, &[]);
    assert_eq!(caller.ask(say(20)).await, counts(&[("v1", 20)]));
    let failed = fixture
        .counter(&["v1|demo", "upstream_cx_connect_fail"])
        .await;
    assert!(failed > 0, "the server that does not listen was tried");
}

#[tokio::test]
async fn the_filter_is_the_one_that_can_do_what_is_asked() {
    let fixture = |routes: Value| trimtab_metaprotocol::translate::translate(&input(routes));
    let split = json!([
        {"destination": {"host": HOST, "subset": "v1"}, "weight": 50},
        {"destination": {"host": HOST, "subset": "v2"}, "weight": 50},
    ]);
    let plain = fixture(json!([{"route": to("v1")}]));
    assert_eq!(plain.programs[0].target, Target::DubboProxy);
    let timed = fixture(json!([{"route": to("v1"), "timeout": "1s"}]));
    assert_eq!(timed.programs[0].target, Target::GenericProxyDubbo);
    assert_eq!(timed.refusals, Vec::new());

    let both = fixture(json!([{"route": split, "timeout": "1s"}]));
    assert_eq!(
        both.programs[0].target,
        Target::DubboProxy,
        "no call may go elsewhere"
    );
    let refused: Vec<_> = both
        .refusals
        .iter()
        .map(|r| (r.feature, r.blocks_routes))
        .collect();
    assert_eq!(refused, vec![(Some(Feature::Timeout), false)]);
}

#[tokio::test]
async fn bad_routes_are_refused_and_the_old_ones_stay() {
    // A route without a match, and a virtual host without a name.
    let (no_match, no_name): (&[u8], &[u8]) = (&[0x22, 0x02, 0x2a, 0x00], &[0x1a, 0x00]);
    for (name, type_url, more, good, next) in [
        ("bad-proxy", DRDS, no_match, all_to("v2"), all_to("v1")),
        (
            "bad-generic",
            GENERIC_RDS,
            no_name,
            timed("v2"),
            timed("v1"),
        ),
    ] {
        let mut lab = lab(name, Delivery::RouteDiscovery, &good).await;
        let mut caller = lab.connect();
        assert_eq!(caller.ask(say(2)).await, counts(&[("v2", 2)]));
        let made = lab.fixture.translated(&good);
        let mut body = made.resources[0].body.clone();
        body.extend_from_slice(more);
        let bad = Resource {
            name: made.resources[0].name.clone(),
            version: "bad".to_owned(),
            body: body.into(),
            origin: "shop/demo".to_owned(),
        };
        let reason = lab.fixture.refused(type_url, bad).await;
        assert!(!reason.is_empty());
        assert_eq!(caller.ask(say(2)).await, counts(&[("v2", 2)]), "{name}");
        lab.fixture.publish(&next).await;
        assert_eq!(caller.ask(say(2)).await, counts(&[("v1", 2)]), "{name}");
        assert_eq!(lab.connections().await, 1);
    }
}

#[tokio::test]
async fn both_filters_are_delivered_by_ecds_and_inline_too() {
    for (name, first, next) in [
        ("proxy", all_to("v1"), all_to("v2")),
        ("generic", timed("v1"), timed("v2")),
    ] {
        let mut ecds = lab(&format!("{name}-ecds"), Delivery::Ecds, &first).await;
        let mut old = ecds.connect();
        assert_eq!(old.ask(say(2)).await, counts(&[("v1", 2)]), "{name}");
        ecds.fixture.publish(&next).await;
        let kept = old.ask(say(2)).await;
        assert_eq!(
            kept,
            counts(&[("v1", 2)]),
            "{name}: a connection keeps its filter"
        );
        assert_eq!(
            ecds.connect().ask(say(2)).await,
            counts(&[("v2", 2)]),
            "{name}"
        );

        let inline = lab(&format!("{name}-inline"), Delivery::Inline, &next).await;
        assert_eq!(
            inline.connect().ask(say(2)).await,
            counts(&[("v2", 2)]),
            "{name}"
        );
    }
}

/// A policy about callers is kept by the connection's filter; one about methods is refused.
#[tokio::test]
async fn policies_about_callers_are_kept_and_others_refused() {
    let policy = |name: &str, action: &str, rule: Value| {
        json!({
            "owner": {"kind": "DubboAuthorizationPolicy", "namespace": "shop", "name": name},
            "spec": {"action": action, "rules": [rule]},
        })
    };
    let callers = json!({"from": [{"source": {"namespaces": ["web"]}}]});
    let methods = json!({"to": [{"operation": {"methods": ["bye"]}}]});
    let made = |policies: Value| {
        let mut value = serde_json::to_value(all_to("v1")).expect("JSON");
        value["dubboPolicies"] = policies;
        trimtab_metaprotocol::translate::translate(&read(value))
    };
    let only = made(json!([policy("only-web", "ALLOW", callers.clone())]));
    assert_eq!(only.refusals, Vec::new());
    let mixed = made(json!([
        policy("only-web", "ALLOW", callers),
        policy("no-bye", "ALLOW", methods)
    ]));
    let refused: Vec<_> = mixed
        .refusals
        .iter()
        .map(|r| r.problem.object.as_str())
        .collect();
    assert_eq!(
        refused,
        [
            "DubboAuthorizationPolicy shop/no-bye",
            "DubboAuthorizationPolicy shop/only-web"
        ]
    );

    let (_server, pod) = server("dubbo_server.js", "v1").await;
    for (name, made, expected) in [("kept", &only, "error"), ("refused", &mixed, "v1")] {
        let mut mesh = Mesh::default();
        let at = mesh.inbound(PORT);
        mesh.cluster(&format!("inbound|{PORT}||"), pod);
        let config = mesh.bootstrap(&filters(made), None);
        let folder = crate::lab::folder(&format!("dubbo-policy-{name}"));
        let envoy = trimtab_lab::envoy::Envoy::start(&config, &folder)
            .await
            .expect("Envoy");
        // Without mutual TLS the caller is nobody.
        let mut raw = tokio::net::TcpStream::connect(at)
            .await
            .expect("a connection");
        let found = dubbo_call(&mut raw, INTERFACE, "say").await;
        assert_eq!(found.as_deref().unwrap_or("error"), expected, "{name}");
        drop(envoy);
    }
}

/// A call of Dubbo without arguments, byte by byte; `None` when the connection is closed.
async fn dubbo_call(
    stream: &mut tokio::net::TcpStream,
    interface: &str,
    method: &str,
) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Hessian texts of less than 32 bytes begin with their length.
    let text = |t: &str| {
        let mut out = vec![u8::try_from(t.len()).expect("a short text")];
        out.extend_from_slice(t.as_bytes());
        out
    };
    let mut body = Vec::new();
    for part in ["2.0.2", interface, "1.0.0", method, ""] {
        body.extend(text(part));
    }
    body.extend([b'H', b'Z']);
    let mut frame = vec![0xda, 0xbb, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    frame.extend(u32::try_from(body.len()).expect("a size").to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame).await.ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    let read = async {
        while answer.len() < 18 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
        // The header, the kind of the answer and the length of its text.
        let size = usize::from(answer[17]);
        String::from_utf8(answer.get(18..18 + size)?.to_vec()).ok()
    };
    tokio::time::timeout(BOUND, read)
        .await
        .expect("an answer or an end")
}
