use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use trimtab_mesh::Mesh as Tables;
use trimtab_mesh::table::{Row, name_of};

use super::*;

const HOSTS: [&str; 4] = [
    "a.x.svc.cluster.local",
    "b.x.svc.cluster.local",
    "b.y.svc.cluster.local",
    "out.example.com",
];

/// One event; the kind decides which of the other numbers are used.
#[derive(Clone, Debug)]
struct Event {
    kind: u8,
    name: usize,
    namespace: usize,
    variant: usize,
    other: usize,
    delete: bool,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (
        0_u8..12,
        0_usize..3,
        0_usize..2,
        0_usize..4,
        0_usize..4,
        prop::bool::weighted(0.2),
    );
    let event = event.prop_map(|(kind, name, namespace, variant, other, delete)| Event {
        kind,
        name,
        namespace,
        variant,
        other,
        delete,
    });
    prop::collection::vec(event, 1..40)
}

fn object<K: serde::de::DeserializeOwned>(event: &Event, step: usize, spec: &Value) -> Arc<K> {
    let name = ["a", "b", "c"][event.name];
    let namespace = ["x", "y"][event.namespace];
    let mut metadata = json!({"name": name, "namespace": namespace, "generation": step + 1, "uid": format!("{namespace}-{name}"),
        "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + event.name + event.namespace)});
    if event.kind == 1 {
        metadata["labels"] = json!({"kubernetes.io/service-name": name});
        let mut slice = spec.clone();
        slice["metadata"] = metadata;
        return Arc::new(serde_json::from_value(slice).unwrap());
    }
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

/// An index that follows a mesh.
struct Fixture {
    mesh: Arc<Tables>,
    index: Arc<Index>,
}

impl std::ops::Deref for Fixture {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

fn fixture(settings: Settings) -> Fixture {
    let mesh = Tables::new("cluster.local");
    let index = Index::new(&mesh, Arc::new(settings));
    index.attach();
    Fixture { mesh, index }
}

fn feed<R: Row<Object: serde::de::DeserializeOwned>>(
    index: &Fixture,
    event: &Event,
    step: usize,
    spec: &Value,
) {
    let object = object::<R::Object>(event, step, spec);
    let table = index.mesh.table::<R>();
    if event.delete {
        table.remove(&name_of(object.as_ref()));
    } else {
        table.put(&object);
    }
}

fn apply(index: &Fixture, event: &Event, step: usize) {
    let port = ["tcp-dubbo", "tcp-metaprotocol-thrift", "tcp-redis", "http"][event.variant];
    let (host, other) = (HOSTS[event.variant], HOSTS[event.other]);
    let subset = ["v1", "v2", "", "v3"][event.other];
    let written = ["a", "b.x", other, "out.example.com"][event.variant];
    let gateways = &["x/a", "b"][..event.other.min(2)];
    let spoken = ["own", "thrift"][event.other % 2];
    let spec = match event.kind {
        0 => {
            json!({"clusterIP": if event.other == 0 { "None" } else { "10.0.0.1" }, "selector": {"app": "a"},
                "externalIPs": [format!("192.0.2.{}", event.other)],
            "ports": [{"name": port, "port": 80, "targetPort": "named"}]})
        }
        1 => json!({"addressType": "IPv4", "ports": [{"name": port, "port": 8080 + event.other}],
            "endpoints": [{"addresses": [format!("10.1.0.{}", event.other)]}]}),
        2 => {
            let exports = ["*", ".", "y", "~"][event.variant];
            let address = ["10.0.0.1", "192.0.2.1", "192.0.2.0/30", "10.1.0.2"][event.other];
            json!({"hosts": [host, "second.example.com"], "addresses": [address, "198.51.100.1"], "resolution": "DNS",
                "exportTo": [exports],
            "ports": [{"number": 80, "name": port}]})
        }
        3 => json!({"host": written, "subsets": [{"name": "v1"}, {"name": subset}]}),
        4 => {
            let hosts = ["*", "x/*", "./*", "*.example.com"][event.other];
            json!({"selector": {"istio": "edge"}, "servers": [{"hosts": [hosts], "port": {"number": 80, "name": port}}]})
        }
        5 => json!({"hosts": [host], "gateways": gateways, "routes": [
            {"route": [{"destination": {"host": other, "subset": subset}}], "mirror": {"host": HOSTS[event.name]}}]}),
        6 => json!({"protocol": spoken, "codec": format!("codec-{}", event.variant)}),
        7 => json!({"host": [host], "redis": [{"route": {"host": other}}]}),
        8 => {
            json!({"host": other, "trafficPolicy": {"connectionPool": {"redis": {"mode": "CLUSTER"}}}})
        }
        9 => json!({"rules": [{}]}),
        10 => json!({"hosts": [host, written], "http": [
            {"match": [{"method": {"exact": "get"}}, {"port": 80}], "route": [{"destination": {"host": other, "subset": subset}}]}]}),
        _ => json!({}),
    };
    match event.kind {
        0 => feed::<Service>(index, event, step, &spec),
        1 => feed::<EndpointSlice>(index, event, step, &spec),
        2 => feed::<ServiceEntry>(index, event, step, &spec),
        3 => feed::<DestinationRule>(index, event, step, &spec),
        4 => feed::<Kept<Gateway>>(index, event, step, &spec),
        5 => feed::<Kept<MetaRouter>>(index, event, step, &spec),
        6 => feed::<Kept<ApplicationProtocol>>(index, event, step, &spec),
        7 => feed::<Kept<RedisService>>(index, event, step, &spec),
        8 => feed::<Kept<RedisDestination>>(index, event, step, &spec),
        9 => feed::<Kept<DubboAuthorizationPolicy>>(index, event, step, &spec),
        10 => feed::<Kept<VirtualService>>(index, event, step, &spec),
        _ => {
            let closed = json!({"trimtab.io/accept-objects": (event.other == 0).to_string()});
            let name = ["x", "y"][event.namespace];
            let object = json!({"metadata": {"name": name, "labels": closed}});
            let namespaces = index.mesh.table::<Namespace>();
            namespaces.put(&Arc::new(serde_json::from_value(object).unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// After any events, what was resolved host by host, only where events said so, is what the whole mesh gives.
    #[test]
    fn touched_hosts_resolved_alone_are_the_whole_mesh(events in events(), every in 1_usize..4) {
        let settings = Settings { root_namespace: "y".into(), ..Settings::default() };
        let index = fixture(settings);
        let mut hosts: BTreeMap<String, Vec<ServicePortInput>> = BTreeMap::new();
        let mut problems: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        for (step, event) in events.iter().enumerate() {
            apply(&index, event, step);
            if step % every != 0 && step + 1 != events.len() {
                continue;
            }
            for host in index.drain_changes().hosts {
                let resolved = index.resolve(&host, None);
                problems.insert(host.clone(), resolved.problems);
                hosts.insert(host, resolved.inputs);
            }
            let found: Vec<&ServicePortInput> = hosts.values().flatten().collect();
            let whole = index.mesh().resolve();
            let wanted: Vec<&ServicePortInput> = whole.inputs.iter().collect();
            prop_assert_eq!(found, wanted);
            let told = |p: &&Problem| {
                let kinds = ["MetaRouter", "VirtualService", "Redis"];
                p.reason == "AddressTaken" || kinds.iter().any(|kind| p.object.starts_with(kind))
            };
            let mut found: Vec<&Problem> = problems.values().flatten().filter(told).collect();
            let mut wanted: Vec<&Problem> = whole.problems.iter().filter(told).collect();
            let key = |p: &&Problem| (p.object.clone(), p.field.clone(), p.message.clone());
            found.sort_by_key(key);
            wanted.sort_by_key(key);
            prop_assert_eq!(found, wanted);
        }
    }
}

fn service(name: &str, port: &str, uid: &str) -> Arc<k8s_openapi::api::core::v1::Service> {
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "x", "uid": uid},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": port, "port": 80}]}}),
        )
        .unwrap(),
    )
}

fn index() -> Fixture {
    fixture(Settings::default())
}

#[test]
fn what_changes_nothing_touches_no_host() {
    let index = index();
    let services = index.mesh.table::<Service>();
    let list = [service("a", "tcp-dubbo", "1"), service("web", "http", "2")];
    services.replace(&list);
    assert_eq!(index.drain_changes().hosts, [HOSTS[0]]);
    index.resolve(HOSTS[0], None);
    services.replace(&list);
    assert!(
        index.drain_changes().hosts.is_empty(),
        "a relist of the same is no event"
    );
    services.put(&service("web", "http2", "2"));
    assert!(
        index.drain_changes().hosts.is_empty(),
        "a service without a layer-7 port"
    );
    services.put(&service("a", "http", "1"));
    assert_eq!(index.drain_changes().hosts, [HOSTS[0]], "it had one before");
}

#[test]
fn a_status_write_touches_the_object_and_no_host() {
    let index = index();
    let router = |phase: i32| -> Arc<MetaRouter> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": "a", "namespace": "x", "generation": 1, "uid": "1"},
                "spec": {"hosts": [HOSTS[0]], "routes": []}, "status": {"routes": phase}}),
            )
            .unwrap(),
        )
    };
    let routers = index.mesh.table::<Kept<MetaRouter>>();
    routers.put(&router(1));
    assert_eq!(index.drain_changes().hosts, [HOSTS[0]]);
    routers.put(&router(2));
    let changes = index.drain_changes();
    assert!(changes.hosts.is_empty());
    assert_eq!(changes.objects.len(), 1);
    assert_eq!(index.seen(&changes.objects[0]).unwrap().status["routes"], 2);
}

#[test]
fn an_owner_is_collected_only_after_a_list_that_could_be_read() {
    let index = index();
    let owner = |kind: &str, name: &str| ServiceKey {
        kind: kind.into(),
        namespace: "x".into(),
        name: name.into(),
    };
    assert!(!index.may_collect(&owner("Service", "a")));
    let services = index.mesh.table::<Service>();
    services.begin();
    services.put(&service("a", "http", "1"));
    services.end(&[("x".into(), "broken".into())]);
    assert!(index.may_collect(&owner("Service", "a")));
    assert!(!index.may_collect(&owner("Service", "broken")));
    assert!(!index.may_collect(&owner("ServiceEntry", "a")));
    assert!(!index.may_collect(&owner("Deployment", "a")));
}
