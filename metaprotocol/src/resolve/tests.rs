//! From objects as users write them to inputs.

use serde_json::{Value, json};

use super::*;
use trimtab_mesh::table::{Row, read};

use crate::input::{RedisAuth, RedisMode, RedisReadPolicy, Source, ValueMatch};

fn objects<T: serde::de::DeserializeOwned>(list: &[Value]) -> Vec<Arc<T>> {
    list.iter()
        .map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap()))
        .collect()
}

fn rows<R: Row<Object: serde::de::DeserializeOwned>>(list: &[Value]) -> Vec<Arc<R>> {
    read("cluster.local", objects(list))
}

fn service(name: &str, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "selector": {"app": name}, "ports": ports},
    })
}

fn router(name: &str, namespace: &str, created: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "generation": 4},
        "spec": spec,
    })
}

const ORDERS: &str = "orders.shop.svc.cluster.local";

fn dubbo_port() -> Value {
    json!([
        {"name": "tcp-metaprotocol-dubbo", "port": 20880, "targetPort": "dubbo"},
        {"name": "http", "port": 80},
        {"name": "rpc", "port": 9090, "targetPort": 9191, "appProtocol": "trimtab.io/metaprotocol-thrift"},
    ])
}

fn slice(address: &str, port: u16, ready: bool) -> Value {
    json!({
        "addressType": "IPv4",
        "metadata": {"name": format!("orders-{address}"), "namespace": "shop", "labels": {"kubernetes.io/service-name": "orders"}},
        "ports": [{"name": "tcp-metaprotocol-dubbo", "port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
    })
}

#[test]
fn every_port_of_a_service_is_found_with_its_addresses_and_target_ports() {
    let mesh = Mesh {
        services: rows(&[service("orders", &dubbo_port())]),
        endpoint_slices: rows(&[
            slice("10.244.0.2", 21880, true),
            slice("10.244.0.1", 20880, true),
            slice("10.244.0.3", 22880, false),
        ]),
        ..Mesh::default()
    };
    let out = mesh.resolve();
    assert!(out.problems.is_empty(), "{:?}", out.problems);
    assert_eq!(out.inputs.len(), 2);
    let dubbo = &out.inputs[0];
    assert_eq!(dubbo.host, ORDERS);
    assert_eq!(dubbo.vips.len(), 2);
    assert_eq!(dubbo.port.on_pods(), [20880, 21880], "ready pods only");
    assert_eq!(dubbo.workload_selector["app"], "orders");
    let thrift = &out.inputs[1];
    assert_eq!(thrift.port.on_pods(), [9191]);
    assert!(
        matches!(&thrift.protocol, Protocol::MetaProtocol { codec: Some(c), .. } if c.ends_with(".thrift"))
    );
}

#[test]
fn a_headless_service_has_the_addresses_of_its_pods() {
    let mut headless = service("orders", &dubbo_port());
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let mesh = Mesh {
        services: rows(&[headless]),
        endpoint_slices: rows(&[slice("10.244.0.1", 20880, true)]),
        ..Mesh::default()
    };
    let input = &mesh.resolve().inputs[0];
    assert!(input.headless && input.vips.is_empty());
    assert_eq!(input.endpoints.len(), 1);
}

#[test]
fn every_host_of_a_service_entry_counts_and_its_workload_is_found() {
    let entry = |annotations: &Value, selector: &Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "pay", "namespace": "shop", "annotations": annotations},
            "spec": {
                "hosts": ["a.pay", "b.pay"], "addresses": ["240.241.0.1/32", "2001:db8::1", "10.0.0.0/8"],
                "ports": [{"number": 7000, "name": "tcp-metaprotocol-qza", "protocol": "TCP", "targetPort": 7001}],
                "workloadSelector": selector,
            },
        })
    };
    let found = |annotations: Value, selector: Value| {
        let mesh = Mesh {
            service_entries: rows(&[entry(&annotations, &selector)]),
            protocols: objects(&[
                json!({"metadata": {"name": "qza"}, "spec": {"protocol": "qza", "codec": "c"}}),
            ]),
            ..Mesh::default()
        };
        mesh.resolve().inputs
    };
    let inputs = found(json!({}), json!({"labels": {"app": "pay"}}));
    assert_eq!(inputs.len(), 2);
    assert_eq!(inputs[1].host, "b.pay");
    assert_eq!(inputs[1].source, Source::ServiceEntry);
    assert_eq!(inputs[1].vips.len(), 2, "a network is no address");
    assert_eq!(inputs[1].port.on_pods(), [7001]);
    assert_eq!(inputs[1].workload_selector["app"], "pay");
    let named = found(json!({"workloadSelector": "role: payer"}), json!(null));
    assert_eq!(named[0].workload_selector["role"], "payer");
    let short = found(json!({"workloadSelector": "payer"}), json!(null));
    assert_eq!(short[0].workload_selector["app"], "payer");
}

#[test]
fn a_router_is_read_as_it_is_meant() {
    let spec = json!({
        "hosts": [ORDERS], "gateways": ["edge", "infra/edge"], "exportTo": ["."],
        "routes": [{
            "name": "r",
            "match": {"attributes": {"a": {}, "b": {"exact": ""}, "c": {"regex": "*"}, "d": {"prefix": "x"}, "e": null}},
            "route": [{"destination": {"host": ORDERS, "subset": "v1", "port": {"number": 7}}, "weight": 60}, {"destination": {"host": ORDERS}, "weight": 40}],
            "mirror": {"host": ORDERS},
            "timeout": "3s", "retries": {"attempts": 0},
        }],
        "localRateLimit": {"tokenBucket": {"maxTokens": 5, "fillInterval": "1m"}},
    });
    let object: MetaRouter =
        serde_json::from_value(router("r", "shop", "2024-01-01T00:00:00Z", &spec)).unwrap();
    let read = lower_router(&object);
    assert_eq!(read.gateways, ["shop/edge", "infra/edge"]);
    let route = &read.routes[0];
    for name in ["a", "b", "c", "e"] {
        assert_eq!(route.matches[name], ValueMatch::Present, "{name}");
    }
    assert_eq!(route.matches["d"], ValueMatch::Prefix("x".to_owned()));
    assert_eq!(route.destinations[0].destination.port, Some(7));
    assert_eq!(
        route.mirror.as_ref().unwrap().percent.to_bits(),
        100_f64.to_bits()
    );
    assert!(route.retries.is_none());
    assert_eq!(
        read.local_rate_limit
            .unwrap()
            .bucket
            .unwrap()
            .tokens_per_fill,
        1
    );
}

#[test]
fn of_several_routers_one_is_in_force_and_the_others_are_told() {
    let spec =
        json!({"hosts": [ORDERS], "routes": [{"route": [{"destination": {"host": ORDERS}}]}]});
    let gone = json!({"hosts": ["gone.shop.svc.cluster.local"], "routes": []});
    let mesh = Mesh {
        services: rows(&[service("orders", &dubbo_port())]),
        routers: objects(&[
            router("newer", "shop", "2024-02-01T00:00:00Z", &spec),
            router("foreign", "other", "2020-01-01T00:00:00Z", &spec),
            router("older", "shop", "2024-01-01T00:00:00Z", &spec),
            router("lost", "shop", "2024-01-01T00:00:00Z", &gone),
        ]),
        ..Mesh::default()
    };
    let out = mesh.resolve();
    assert_eq!(out.inputs[0].router.as_ref().unwrap().owner.name, "older");
    let told: Vec<(&str, &str)> = out
        .problems
        .iter()
        .map(|p| (p.object.as_str(), p.reason))
        .collect();
    assert_eq!(
        told,
        [
            ("MetaRouter shop/lost", "UnknownHost"),
            ("MetaRouter other/foreign", "NotOwner"),
            ("MetaRouter shop/newer", "Conflict"),
        ]
    );
}

#[test]
fn fault_t9_a_header_to_hash_by_that_proxies_refuse_is_told_and_left_out() {
    let hash = |name: &str| json!({"loadBalancer": {"consistentHash": {"httpHeaderName": name}}});
    let rule = |name: &str, host: &str| {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {
            "host": host,
            "trafficPolicy": hash("a\nb"),
            "subsets": [{"name": "v1", "trafficPolicy": hash("user")}],
        }})
    };
    let mesh = Mesh {
        services: rows(&[service("orders", &dubbo_port())]),
        destination_rules: rows(&[rule("a", ORDERS), rule("b", "elsewhere.example")]),
        ..Mesh::default()
    };
    let found = mesh.resolve();
    let facts = &found.inputs[0].hosts[ORDERS];
    assert_eq!(facts.hash_attribute, None);
    assert_eq!(facts.subsets["v1"].hash_attribute.as_deref(), Some("user"));
    let told: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(
        "DestinationRule shop/a: spec.trafficPolicy.loadBalancer.consistentHash.httpHeaderName: \"a\\nb\""
    ));
}

#[test]
fn fault_o14_destination_rules_give_subsets_and_hashes_also_by_short_names() {
    let rule = |name: &str, host: &str, spec: &Value| {
        let mut spec = spec.clone();
        spec["host"] = json!(host);
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    };
    let hash = |name: &str| json!({"loadBalancer": {"consistentHash": {"httpHeaderName": name}}});
    let mesh = Mesh {
        services: rows(&[service("orders", &dubbo_port())]),
        destination_rules: rows(&[
            rule(
                "a",
                "orders",
                &json!({"trafficPolicy": hash("session"), "subsets": [{"name": "v1", "trafficPolicy": hash("user")}]}),
            ),
            rule("b", "orders.shop", &json!({"subsets": [{"name": "v2"}]})),
            rule(
                "c",
                ORDERS,
                &json!({"subsets": [{"name": "v3"}, {"name": "v1"}]}),
            ),
        ]),
        ..Mesh::default()
    };
    let facts = &mesh.resolve().inputs[0].hosts[ORDERS];
    assert_eq!(facts.hash_attribute.as_deref(), Some("session"));
    // A host with a dot is full as it is, so that v2 is a subset of nothing.
    assert_eq!(facts.subsets.keys().collect::<Vec<_>>(), ["v1", "v3"]);
    assert_eq!(facts.misread.iter().collect::<Vec<_>>(), ["orders.shop"]);
    assert_eq!(facts.subsets["v1"].hash_attribute.as_deref(), Some("user"));
}

#[test]
fn servers_of_gateways_are_bound_by_protocol_and_number() {
    let gateway = json!({
        "metadata": {"name": "edge", "namespace": "infra"},
        "spec": {"selector": {"istio": "ingress"}, "servers": [
            {"port": {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}, "hosts": ["*"]},
            {"port": {"number": 30880, "name": "tcp-metaprotocol-dubbo-b", "protocol": "TCP"}, "hosts": ["*"]},
            {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
        ]},
    });
    let to = |host: &str, gateway: &str| json!({"hosts": [host], "gateways": [gateway], "routes": [{"route": [{"destination": {"host": host}}]}]});
    let pay = "pay.shop.svc.cluster.local";
    let mesh = Mesh {
        services: rows(&[
            service("orders", &dubbo_port()),
            service("pay", &dubbo_port()),
        ]),
        gateways: objects(&[gateway]),
        routers: objects(&[
            router(
                "orders",
                "shop",
                "2024-02-01T00:00:00Z",
                &to(ORDERS, "infra/edge"),
            ),
            router(
                "pay",
                "shop",
                "2024-01-01T00:00:00Z",
                &to(pay, "infra/edge"),
            ),
        ]),
        ..Mesh::default()
    };
    let out = mesh.resolve();
    let bound = |host: &str| &out.inputs.iter().find(|i| i.host == host).unwrap().gateways;
    let ports: Vec<u16> = bound(pay).iter().map(|g| g.port).collect();
    assert_eq!(ports, [20880, 30880]);
    assert!(
        bound(pay).iter().all(|g| g.taken_by.is_none()),
        "its router is older"
    );
    assert!(
        bound(ORDERS)
            .iter()
            .all(|g| g.taken_by.as_deref() == Some(pay))
    );
    let lost = Mesh {
        routers: objects(&[router(
            "orders",
            "shop",
            "2024-02-01T00:00:00Z",
            &to(ORDERS, "gone"),
        )]),
        ..mesh
    };
    assert!(
        lost.resolve()
            .problems
            .iter()
            .any(|p| p.reason == "GatewayNotFound")
    );
}

#[test]
fn redis_objects_are_found_with_ports_by_name_and_secrets_of_their_namespace() {
    let redis = |number: u16| json!([{"name": "tcp-redis", "port": number}]);
    let (cache, other) = (
        "cache.shop.svc.cluster.local",
        "other.shop.svc.cluster.local",
    );
    let mesh = Mesh {
        services: rows(&[
            service("cache", &redis(6379)),
            service("other", &redis(6380)),
        ]),
        redis_services: objects(&[json!({
            "metadata": {"name": "cache", "namespace": "shop"},
            "spec": {
                "host": [cache],
                "settings": {"readPolicy": "PREFER_REPLICA", "auth": {"secret": {"name": "s"}}},
                "redis": [{"match": {"key": {"prefix": "a"}}, "route": {"host": other}, "mirror": [{"route": {"host": cache, "port": 9}}]}],
            },
        })]),
        redis_destinations: objects(&[json!({
            "metadata": {"name": "other", "namespace": "shop"},
            "spec": {"host": other, "trafficPolicy": {"connectionPool": {"redis": {"mode": "CLUSTER"}}}},
        })]),
        secrets: BTreeMap::from([(
            ("shop".to_owned(), "s".to_owned()),
            BTreeMap::from([
                ("token".to_owned(), " secret\n".to_owned()),
                ("username".to_owned(), "u".to_owned()),
            ]),
        )]),
        ..Mesh::default()
    };
    let out = mesh.resolve();
    let input = &out.inputs[0];
    let read = input.redis.as_ref().unwrap();
    assert_eq!(read.settings.read_policy, RedisReadPolicy::PreferReplica);
    assert_eq!(read.routes[0].destination.port, Some(6380), "by name");
    assert_eq!(
        read.routes[0].mirrors[0].destination.port,
        Some(9),
        "its own"
    );
    assert_eq!(input.redis_destinations[other].mode, RedisMode::Cluster);
    let Some(RedisAuth::Secret {
        resolved: Some(pair),
        ..
    }) = &read.settings.auth
    else {
        panic!("{:?}", read.settings.auth);
    };
    assert_eq!(
        (pair.username.as_str(), pair.password.as_str()),
        ("u", "secret")
    );
    let dump = serde_json::to_string(input).unwrap();
    assert!(
        !dump.contains("\"secret\"\"") && !dump.contains("resolved"),
        "no dump has a password"
    );
}

#[test]
fn addresses_are_given_to_entries_with_a_layer_7_port_only() {
    let entry = |name: &str, port: &str, resolution: &str, addresses: &Value| {
        json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"hosts": [name], "resolution": resolution, "addresses": addresses, "ports": [{"number": 1, "name": port}]},
        })
    };
    let dubbo = "tcp-metaprotocol-dubbo";
    let mesh = Mesh {
        services: rows(&[service("orders", &dubbo_port())]),
        service_entries: rows(&[
            entry("a", dubbo, "DNS", &json!([])),
            entry("b", dubbo, "NONE", &json!(["10.0.0.1"])),
            entry("c", "http", "DNS", &json!([])),
            entry("d", dubbo, "STATIC", &json!(["240.241.0.9"])),
            entry("e", dubbo, "DNS", &json!(["10.1.0.0/16"])),
        ]),
        ..Mesh::default()
    };
    let (entries, taken) = mesh.addresses();
    let managed = entries.iter().filter(|e| e.managed);
    let names: Vec<&str> = managed.map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a", "d"]);
    assert_eq!(taken.len(), 2, "of the Service");
    let ranges = vip::Ranges {
        v4: "240.241.0.0/16".parse().ok(),
        v6: None,
    };
    let out = vip::allocate(&ranges, &entries, &taken);
    assert_eq!(out.assignments.len(), 1);
}

#[test]
fn what_is_in_force_is_what_to_go_back_to() {
    let spec = |regex: &str| json!({"hosts": [ORDERS], "routes": [{"match": {"attributes": {"method": {"regex": regex}}}, "route": [{"destination": {"host": ORDERS}}]}]});
    let with = |regex: &str, last_good: BTreeMap<String, Router>| {
        let mesh = Mesh {
            services: rows(&[service("orders", &dubbo_port())]),
            routers: objects(&[router("r", "shop", "2024-01-01T00:00:00Z", &spec(regex))]),
            last_good,
            ..Mesh::default()
        };
        crate::translate::translate(&mesh.resolve().inputs[0])
    };
    let good = with("a.*", BTreeMap::new());
    let kept = good.in_force.clone().unwrap();
    let bad = with("(", BTreeMap::from([(ORDERS.to_owned(), kept.clone())]));
    assert_eq!(bad.in_force.as_ref(), Some(&kept));
    assert_eq!(bad.resources, good.resources, "proxies see no change");
    assert!(!bad.retained && bad.refusals.iter().any(|r| r.blocks_routes));
    let unknown = with("(", BTreeMap::new());
    assert!(unknown.retained && unknown.in_force.is_none());
}

#[test]
fn fault_t4_a_protocol_of_a_tenant_does_not_count() {
    let codec = |namespace: &str| {
        let mesh = Mesh {
            services: rows(&[service(
                "orders",
                &json!([{"name": "tcp-metaprotocol-own", "port": 7}]),
            )]),
            // Aeraki's definition of the kind has namespaces.
            protocols: objects(&[json!({
                "metadata": {"name": "own", "namespace": namespace},
                "spec": {"protocol": "own", "codec": "c"},
            })]),
            ..Mesh::default()
        };
        match &mesh.resolve().inputs[0].protocol {
            Protocol::MetaProtocol { codec, .. } => codec.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(codec("kiosk"), None);
    assert_eq!(codec("istio-system").as_deref(), Some("c"));
    assert_eq!(codec("").as_deref(), Some("c"));
}
