//! MetaRouters through a real istiod: a stock Envoy gets its Thrift and Dubbo filters from istiod and its routes from
//! Trimtab, and a changed router moves the calls of a connection that stays open.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab_cluster::{Cluster, Forwarder, Minor, Namespace, Pod, Proxy, wait_for};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_lab::ports::free_port;
use trimtab_metaprotocol::input::Delivery;
use trimtab_metaprotocol::output::Translation;
use trimtab_metaprotocol::translate::translate;
use trimtab_xds::{ResourceCache, serve};

use crate::fixture::{BOUND, cluster, istiod, operator_xds};
use crate::peers::{Counts, Peer, client, counts, server};

const ORDERS: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: NAMESPACE}
spec:
  selector: {app: orders}
  ports: [{name: PORTNAME, port: 9090, targetPort: TARGET}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders, namespace: NAMESPACE}
spec:
  host: orders
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

/// Calls of one question to a client.
pub(crate) const CALLS: u64 = 5;

fn router(subset: &str) -> String {
    format!(
        "
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: NAMESPACE}}
spec:
  hosts: [orders.NAMESPACE.svc.cluster.local]
  routes:
  - name: all
    route: [{{destination: {{host: orders.NAMESPACE.svc.cluster.local, subset: {subset}}}}}]
"
    )
}

/// The bootstrap of a pod with the annotation `sidecar.istio.io/bootstrapOverride`, as `docs/metaprotocol.md` gives it.
fn with_authority(xds: &XdsEndpoint) -> Value {
    json!({
        "config_sources": [{
            "authorities": [{"name": "trimtab"}],
            "api_config_source": {"api_type": "AGGREGATED_GRPC", "transport_api_version": "V3",
                "grpc_services": [xds.grpc_service()]},
            "resource_api_version": "V3",
        }],
        "layered_runtime": {"layers": [{"name": "trimtab", "static_layer":
            {"envoy.reloadable_features.xdstp_based_config_singleton_subscriptions": true}}]},
    })
}

/// Two versions of a service, and a caller with a sidecar.
pub(crate) struct Mesh {
    pub(crate) namespace: Namespace<'static>,
    pub(crate) vip: String,
    pub(crate) proxy: Proxy,
    pub(crate) tunnel: Forwarder,
    servers: Vec<(Peer, Forwarder)>,
}

/// As Trimtab's operator serves it, to a sidecar whose bootstrap knows the authority.
pub(crate) async fn mesh(prefix: &str, port_name: &str, script: &str) -> Mesh {
    mesh_with(prefix, port_name, script, true).await
}

async fn mesh_with(prefix: &str, port_name: &str, script: &str, authority: bool) -> Mesh {
    let (cluster, istiod): (&'static Cluster, _) = (cluster().await, istiod(Minor::Newest).await);
    let xds = operator_xds().await;
    let namespace = Namespace::create(cluster, prefix).await.unwrap();
    let target = free_port().unwrap();
    let service = ORDERS
        .replace("PORTNAME", port_name)
        .replace("TARGET", &target.to_string());
    namespace.apply(&service).await.unwrap();
    let mut servers = Vec::new();
    for version in ["v1", "v2"] {
        let labels = [("app", "orders"), ("version", version)];
        let pod: Pod = namespace
            .pod(&format!("orders-{version}"), &labels)
            .await
            .unwrap();
        let (peer, at) = server(script, version).await;
        servers.push((peer, Forwarder::to(pod.address(target), at).await.unwrap()));
    }
    if authority {
        namespace.apply(&router("v1")).await.unwrap();
    }
    let caller = namespace
        .pod("caller-0", &[("app", "caller")])
        .await
        .unwrap();
    let proxy = if authority {
        Proxy::start_by_agent(cluster, istiod, &caller, &with_authority(&xds))
            .await
            .unwrap()
    } else {
        Proxy::start(cluster, istiod, &caller).await.unwrap()
    };
    let get = [
        "get",
        "service",
        "orders",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ];
    let vip = namespace.kubectl(&get, "").await.unwrap();
    let tunnel = proxy
        .tunnel(format!("{vip}:9090").parse().unwrap())
        .await
        .unwrap();
    Mesh {
        namespace,
        vip,
        proxy,
        tunnel,
        servers,
    }
}

impl Mesh {
    /// When the service's listener was last changed.
    pub(crate) async fn listener(&self) -> String {
        let name = format!("{}_9090", self.vip);
        self.proxy.listener_updated(&name).await.unwrap()
    }

    /// [`Self::listener`], and connections to the service.
    async fn fingerprint(&self) -> (String, u64) {
        (self.listener().await, self.tunnel.connections())
    }
}

/// Asks until all answers come from `wanted`.
pub(crate) async fn moves_to(caller: &mut Peer, call: &Value, wanted: &str) {
    let caller = tokio::sync::Mutex::new(caller);
    wait_for(&format!("calls to reach {wanted}"), BOUND, || async {
        let found: Counts = caller.lock().await.ask(call.clone()).await;
        if found == counts(&[(wanted, CALLS)]) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

/// The condition of the router that says whether proxies run it.
async fn programmed(namespace: &Namespace<'_>) -> Value {
    wait_for("the router to be programmed", BOUND, || async {
        let get = [
            "get",
            "metarouters.metaprotocol.aeraki.io",
            "orders",
            "-o",
            "json",
        ];
        let text = namespace
            .kubectl(&get, "")
            .await
            .map_err(|error| error.to_string())?;
        let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let condition = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Programmed");
        if condition.is_some_and(|c| c["status"] == "True") {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
    .unwrap()
}

async fn a_changed_router_moves_calls(mesh: &mut Mesh, caller: &mut Peer, call: &Value) {
    moves_to(caller, call, "v1").await;
    programmed(&mesh.namespace).await;
    let before = mesh.fingerprint().await;
    for subset in ["v2", "v1"] {
        mesh.namespace.apply(&router(subset)).await.unwrap();
        moves_to(caller, call, subset).await;
    }
    assert_eq!(
        mesh.fingerprint().await,
        before,
        "no listener changed, no connection was opened"
    );
    for (server, _) in &mut mesh.servers {
        assert!(server.calls().await >= CALLS, "both versions were called");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thrift_calls_follow_the_router_with_no_listener_update() {
    let mut mesh = mesh("thrift", "tcp-thrift", "thrift_server.py").await;
    mesh.proxy.wait_listener("thrift_proxy").await.unwrap();
    let mut caller = client("thrift_client.py", mesh.tunnel.address(), &[]);
    let call = json!({"method": "say", "calls": CALLS});
    a_changed_router_moves_calls(&mut mesh, &mut caller, &call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dubbo_calls_follow_the_router_with_no_listener_update() {
    let mut mesh = mesh("dubbo", "tcp-dubbo", "dubbo_server.js").await;
    mesh.proxy.wait_listener("dubbo_proxy").await.unwrap();
    let mut caller = client("dubbo_client.py", mesh.tunnel.address(), &[]);
    let call = json!({"interface": "org.demo.Hello", "method": "say", "calls": CALLS});
    a_changed_router_moves_calls(&mut mesh, &mut caller, &call).await;
}

/// What Trimtab makes of the service with a given delivery to stock proxies.
fn translated(mesh: &Mesh, delivery: Delivery, xds: SocketAddr, subset: &str) -> Translation {
    let name = mesh.namespace.name();
    let host = format!("orders.{name}.svc.cluster.local");
    let input = json!({
        "host": host, "namespace": name, "service": "orders",
        "port": {"number": 9090, "name": "tcp-thrift"},
        "protocol": {"kind": "thrift"},
        "vips": [mesh.vip],
        "workloadSelector": {"app": "orders"},
        "hosts": {&host: {"ports": {"9090": "tcp-thrift"}, "subsets": {"v1": {}, "v2": {}}}},
        "router": {
            "owner": {"kind": "MetaRouter", "namespace": name, "name": "orders"},
            "routes": [{"route": [{"destination": {"host": host, "subset": subset}}]}],
        },
        "settings": {"dataPlanes": ["envoy"], "scope": "serviceNamespace", "xds": {"address": xds.to_string()},
            "capabilities": {"deliveries": [delivery]}},
    });
    let made = translate(&serde_json::from_value(input).unwrap());
    assert_eq!(made.refusals, Vec::new());
    made
}

async fn publish(mesh: &Mesh, cache: &ResourceCache, made: &Translation) {
    for resource in &made.resources {
        cache.update_scoped(&resource.type_url, vec![resource.to_xds()], &[]);
    }
    for filter in &made.envoy_filters {
        let mut filter = filter.clone();
        // With its labels the operator of the other tests would take it for one of its own, and delete it.
        filter.metadata.labels = None;
        mesh.namespace
            .apply(&serde_json::to_string(&filter).unwrap())
            .await
            .unwrap();
    }
}

/// A sidecar as it is, without the override: the filter's configuration comes from our server, or is inline.
async fn new_connections_follow(prefix: &str, delivery: Delivery) {
    let mut mesh = mesh_with(prefix, "tcp-orders", "thrift_server.py", false).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let xds = listener.local_addr().unwrap();
    let cache = ResourceCache::new();
    cache.mark_ready();
    let stop = CancellationToken::new();
    tokio::spawn(serve(cache.clone(), listener, stop.clone()));
    publish(&mesh, &cache, &translated(&mesh, delivery, xds, "v1")).await;
    mesh.proxy.wait_listener("thrift_proxy").await.unwrap();
    let call = json!({"method": "say", "calls": CALLS});
    fresh_calls_reach(&mesh, &call, "v1").await;
    let before = mesh.listener().await;
    publish(&mesh, &cache, &translated(&mesh, delivery, xds, "v2")).await;
    fresh_calls_reach(&mesh, &call, "v2").await;
    let same = mesh.listener().await == before;
    assert_eq!(
        same,
        delivery == Delivery::Ecds,
        "only an inline change touches the listener"
    );
    for (server, _) in &mut mesh.servers {
        assert!(server.calls().await >= CALLS, "both versions were called");
    }
    stop.cancel();
}

/// Calls on new connections reach a version.
async fn fresh_calls_reach(mesh: &Mesh, call: &Value, wanted: &str) {
    wait_for(
        &format!("new connections to reach {wanted}"),
        BOUND,
        || async {
            let mut caller = client("thrift_client.py", mesh.tunnel.address(), &[]);
            let found: Counts = caller.ask(call.clone()).await;
            if found == counts(&[(wanted, CALLS)]) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_thrift_connections_follow_by_ecds_with_no_listener_update() {
    new_connections_follow("thrift-ecds", Delivery::Ecds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_thrift_connections_follow_inline() {
    new_connections_follow("thrift-inline", Delivery::Inline).await;
}
