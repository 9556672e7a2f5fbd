//! What is wired for a configuration and the fallbacks that are there.

use std::sync::Arc;

use kube::ResourceExt;
use serde_json::{Value, json};
use trimtab_kit::clock::SystemClock;
use trimtab_kit::engine::Engine as _;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{EndpointSlice, Service};
use trimtab_mesh::table::Row;

use super::*;
use crate::engine::Desired;
use crate::mesh::Fence;
use crate::object::FenceKey;

/// An engine that follows a mesh.
struct Fixture {
    mesh: Arc<Mesh>,
    engine: Arc<Engine>,
}

impl std::ops::Deref for Fixture {
    type Target = Arc<Engine>;

    fn deref(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl Fixture {
    fn put<R: Row<Object: serde::de::DeserializeOwned>>(&self, object: Value) {
        self.mesh.put::<R>(serde_json::from_value(object).unwrap());
    }
}

/// An engine that has seen a fence `shop/web`, and a Service with port 9080.
fn engine(fallback: &str) -> Fixture {
    let config: LazyloadConfig =
        serde_saphyr::from_str(&format!("fallback: {{{fallback}}}")).unwrap();
    config.check().unwrap();
    let mesh = Mesh::new("cluster.local");
    let engine = Engine::new(Arc::new(config), &mesh, Arc::new(SystemClock::new()));
    engine.index.attach(&mesh);
    mesh.table::<Service>().follow(&engine.ports);
    let engine = Fixture { mesh, engine };
    let fence = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1},
        "spec": {"enable": true},
    });
    engine.put::<Fence>(fence);
    service(&engine, "shop", "cart", 9080);
    engine.absorb();
    engine
}

fn service(engine: &Fixture, namespace: &str, name: &str, port: u16) {
    engine.put::<Service>(json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]},
    }));
}

/// A fallback with a ready pod.
fn fallback_in(engine: &Fixture, namespace: &str) {
    service(engine, namespace, NAME, 80);
    engine.put::<EndpointSlice>(json!({
        "metadata": {"namespace": namespace, "name": "s", "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.9"]}], "ports": [{"port": 80}],
    }));
    engine.absorb();
}

/// Each EnvoyFilter: its namespace, and the clusters that the routes of port 9080 lead to, as they are tried.
fn wired(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let of = |filter: &EnvoyFilter| {
        let spec = serde_json::to_value(&filter.spec).unwrap();
        let patches = spec["configPatches"].as_array().unwrap().clone();
        let ours = |patch: &&Value| {
            let place = &patch["match"]["routeConfiguration"];
            place["name"] == "9080" && place["vhost"]["name"] == "block_all"
        };
        let patches = patches.iter().filter(ours).rev();
        let clusters = patches.filter_map(|p| p["patch"]["value"]["route"]["cluster"].as_str());
        clusters.map(str::to_owned).collect()
    };
    let filters = engine.fallback_routing().filters;
    filters
        .iter()
        .map(|filter| (filter.namespace().unwrap(), of(filter)))
        .collect()
}

fn write(engine: &Engine) {
    engine.note_wiring(&engine.fallback_routing(), None);
    engine.absorb();
}

/// Hosts of the Sidecar of `shop/web`, when it may be written.
fn sidecar(engine: &Engine) -> Option<Vec<String>> {
    let key = FenceKey {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    match engine.desired(&key) {
        Desired::Write(sidecar) => {
            let egress = sidecar.spec.egress.into_iter();
            Some(egress.flat_map(|e| e.hosts).collect())
        }
        _ => None,
    }
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|&i| i.to_owned()).collect()
}

const PASS: &str = "PassthroughCluster";
const TWO: &str = "{name: a, domains: [a.com], cluster: elsewhere}";

#[test]
fn what_passes_by_default_keeps_its_dispatches_in_both_modes() {
    for (mode, namespaces) in [
        ("", &["istio-system"][..]),
        (
            ", globalSidecarMode: namespace, namespace: [shop, data]",
            &["data", "shop"],
        ),
    ] {
        let engine = engine(&format!(
            "passthroughByDefault: true, dispatches: [{TWO}]{mode}"
        ));
        let each = texts(&["elsewhere", PASS]);
        let wanted: Vec<_> = namespaces
            .iter()
            .map(|n| ((*n).to_owned(), each.clone()))
            .collect();
        assert_eq!(wired(&engine), wanted, "{mode}");
        assert_eq!(engine.fallback_state("shop"), FallbackState::Unused);
        assert_eq!(sidecar(&engine), Some(texts(&["~/*"])), "nothing waits");
    }
}

#[test]
fn a_port_that_comes_later_is_wired_without_a_fallback_too() {
    let engine = engine("passthroughByDefault: true");
    write(&engine);
    assert!(!engine.wiring_changed());
    service(&engine, "shop", "late", 9999);
    assert!(engine.wiring_changed());
}

#[test]
fn a_dispatch_to_the_fallback_waits_for_it_and_puts_it_in_scope() {
    let dispatches = format!("[{TWO}, {{name: b, domains: [b.com], cluster: _GLOBAL_SIDECAR}}]");
    let engine = engine(&format!(
        "passthroughByDefault: true, dispatches: {dispatches}"
    ));
    let pass = texts(&["elsewhere", PASS, PASS]);
    assert_eq!(wired(&engine), [("istio-system".to_owned(), pass)]);
    write(&engine);
    let state = engine.fallback_state("shop");
    assert!(matches!(state, FallbackState::NotReady(_)), "{state:?}");
    assert_eq!(sidecar(&engine), None);

    fallback_in(&engine, "istio-system");
    let state = engine.fallback_state("shop");
    assert!(
        matches!(state, FallbackState::NotReady(_)),
        "what is written does not lead to it yet: {state:?}"
    );
    let host = "global-sidecar.istio-system.svc.cluster.local";
    let to = format!("outbound|80||{host}");
    let all = texts(&["elsewhere", &to, PASS]);
    assert_eq!(wired(&engine), [("istio-system".to_owned(), all)]);
    write(&engine);
    assert_eq!(engine.fallback_state("shop"), FallbackState::Ready);
    let hosts = sidecar(&engine).unwrap();
    assert!(hosts.contains(&format!("istio-system/{host}")), "{hosts:?}");
}

#[test]
fn in_namespace_mode_each_namespace_waits_for_its_own() {
    let engine = engine(
        "passthroughByDefault: true, globalSidecarMode: namespace, namespace: [shop, data], \
         dispatches: [{name: b, domains: [b.com], cluster: _GLOBAL_SIDECAR}]",
    );
    fallback_in(&engine, "shop");
    write(&engine);
    let to = "outbound|80||global-sidecar.shop.svc.cluster.local";
    assert_eq!(
        wired(&engine),
        [
            ("data".to_owned(), texts(&[PASS, PASS])),
            ("shop".to_owned(), texts(&[to, PASS])),
        ]
    );
    assert_eq!(engine.fallback_state("shop"), FallbackState::Ready);
    let ready = engine.fallback_endpoints();
    assert!(ready["shop"] > 0 && ready["data"] == 0, "{ready:?}");
    let data = engine.fallback_state("data");
    assert!(matches!(data, FallbackState::NotReady(_)), "{data:?}");
    assert_eq!(engine.fallback_state("other"), FallbackState::Unused);
}

#[test]
fn tcp_needs_the_fallback_whatever_passes_by_default() {
    let engine = engine("passthroughByDefault: true, tcp: true");
    let tcp = |engine: &Engine| {
        let filters = serde_json::to_string(&engine.fallback_routing().filters).unwrap();
        filters.contains(fallback::TCP_CLUSTER)
    };
    assert!(!tcp(&engine), "no pods, no connections");
    fallback_in(&engine, "istio-system");
    assert!(tcp(&engine));
}

#[test]
fn without_passthrough_nothing_is_wired_before_there_are_pods() {
    let engine = engine("");
    assert_eq!(wired(&engine), []);
    fallback_in(&engine, "istio-system");
    assert_eq!(wired(&engine).len(), 1);
}

#[test]
fn registry_only_keeps_the_fallback_from_passing_connections_on() {
    for (more, own) in [("", PASS), (", registryOnly: true", "BlackHoleCluster")] {
        let engine = engine(&format!("tcp: true{more}"));
        fallback_in(&engine, "istio-system");
        let filters = serde_json::to_value(engine.fallback_routing().filters).unwrap();
        let patches = filters[0]["spec"]["configPatches"].as_array().unwrap();
        let of_fallback = patches.iter().filter(|patch| {
            patch["applyTo"] == "NETWORK_FILTER" && patch["match"]["proxy"].is_object()
        });
        let clusters: BTreeSet<&str> = of_fallback
            .filter_map(|p| p["patch"]["value"]["typed_config"]["cluster"].as_str())
            .collect();
        assert_eq!(clusters, BTreeSet::from([own]));
    }
}

/// Clusters that the patches of TCP lead to, by the filter's namespace; of the first and the last patch of a place the last
/// counts.
fn tcp_of(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let of = |filter: &EnvoyFilter| {
        let spec = serde_json::to_value(&filter.spec).unwrap();
        let patches = spec["configPatches"].as_array().unwrap().clone();
        let ours = |patch: &&Value| patch["match"]["listener"]["name"] == "virtualOutbound";
        let patches = patches.iter().filter(ours);
        let clusters = patches.filter_map(|p| {
            let cluster = &p["patch"]["value"]["typed_config"]["cluster"];
            cluster.as_str().map(str::to_owned)
        });
        clusters.collect()
    };
    let filters = engine.fallback_routing().filters;
    filters
        .iter()
        .map(|filter| (filter.namespace().unwrap(), of(filter)))
        .collect()
}

#[test]
fn fault_s2_tcp_of_a_namespace_that_rejects_unknown_hosts_stays_there() {
    let tcp = crate::fallback::TCP_CLUSTER.to_owned();
    let sidecar = |namespace: &str, mode: &str| json!({"metadata": {"namespace": namespace, "name": "default"}, "spec": {"outboundTrafficPolicy": {"mode": mode}}});
    let shared = engine("tcp: true");
    fallback_in(&shared, "istio-system");
    let root = [tcp.clone(), "PassthroughCluster".to_owned()];
    assert_eq!(
        tcp_of(&shared),
        [("istio-system".to_owned(), root.to_vec())]
    );
    write(&shared);
    shared.put::<crate::mesh::Sidecar>(sidecar("shop", "REGISTRY_ONLY"));
    shared.absorb();
    let own = ("shop".to_owned(), texts(&["BlackHoleCluster"]));
    let wired = tcp_of(&shared);
    assert_eq!(wired, [("istio-system".to_owned(), root.to_vec()), own]);
    // The whole mesh says so: the fallback's own pods reject what is unknown, and carry what is known.
    shared.put::<crate::mesh::Sidecar>(sidecar("istio-system", "REGISTRY_ONLY"));
    let root = [tcp.clone(), "BlackHoleCluster".to_owned()];
    assert_eq!(
        tcp_of(&shared),
        [("istio-system".to_owned(), root.to_vec())]
    );
    shared.put::<crate::mesh::Sidecar>(sidecar("shop", "ALLOW_ANY"));
    assert_eq!(tcp_of(&shared)[1].1, texts(&["PassthroughCluster"]));
    // A fallback of its own.
    let own = engine("tcp: true, globalSidecarMode: namespace, namespace: [shop]");
    fallback_in(&own, "shop");
    own.put::<crate::mesh::Sidecar>(sidecar("shop", "REGISTRY_ONLY"));
    let wanted = [tcp, "BlackHoleCluster".to_owned()];
    assert_eq!(tcp_of(&own), [("shop".to_owned(), wanted.to_vec())]);
}

/// Nothing else may happen for long after the fallback's pods are ready: they are what a first Sidecar waits for.
#[test]
fn the_readiness_of_the_fallback_wakes_the_engine() {
    let engine = engine("enabled: true");
    service(&engine, "istio-system", NAME, 80);
    engine.absorb();
    assert!(engine.index.drain_changes().is_empty());
    let slice = |name: &str, service: &str| {
        json!({
            "metadata": {"namespace": "istio-system", "name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.9"]}], "ports": [{"port": 80}],
        })
    };
    engine.put::<EndpointSlice>(slice("other", "cart"));
    assert!(engine.index.drain_changes().is_empty(), "of no concern");
    engine.put::<EndpointSlice>(slice("s", NAME));
    assert!(engine.index.drain_changes().fallback);
    let woken = std::pin::pin!(engine.index.changed());
    assert!(futures::FutureExt::now_or_never(woken).is_some(), "woken");
    engine.absorb();
    assert_eq!(engine.fallback_routing().filters.len(), 1);
}
