//! The fallback through a real istiod: a Sidecar hides a service, our EnvoyFilters lead the first call to the fallback.
//!
//! There is no network of Services here, so that the application calls the address of the server's pod; the fallback
//! goes there by itself instead of through a sidecar of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trimtab_cluster::{Forwarder, Minor, Namespace, Pod, Proxy, ProxyOptions};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::ports::free_address;
use trimtab_lab::upstream::Upstream;
use trimtab_lazyload::config::{Dispatch, GlobalSidecarMode};
use trimtab_lazyload::fallback::proxy::{ProxyOptions as FallbackOptions, bootstrap};
use trimtab_lazyload::fallback::{FallbackInput, PROXY_METADATA, filters, manifests};

use crate::collector::{Collector, metadata, path};
use crate::fixture::{BOUND, application, cluster, istiod};

/// The caller knows nothing but the fallback.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: caller, namespace: NAMESPACE}
spec:
  workloadSelector: {labels: {app: caller}}
  outboundTrafficPolicy: {mode: POLICY}
  egress: [{hosts: ['./global-sidecar.NAMESPACE.svc.cluster.local']}]
";

const PORT: u16 = 9080;
/// A port that is HTTP somewhere, and something else at the pod of the tests.
const OTHER_PORT: u16 = 9081;

struct Fixture {
    namespace: Namespace<'static>,
    minor: Minor,
    input: FallbackInput,
    reviews: Pod,
    app: Upstream,
    collector: Collector,
    fallback_pod: Pod,
    fallback: Envoy,
}

/// A fallback for the callers of a namespace, and for no other test.
fn input(namespace: &str) -> FallbackInput {
    let mut input = FallbackInput::default();
    input.ports.extend([PORT, OTHER_PORT]);
    input.config.fallback.tcp = true;
    input.config.fallback.global_sidecar_mode = GlobalSidecarMode::Namespace;
    input.config.fallback.namespace = vec![namespace.to_owned()];
    namespace.clone_into(&mut input.config.fallback.cluster_gs_namespace);
    input.workload_selector = BTreeMap::from([("net".to_owned(), namespace.to_owned())]);
    input
}

/// What a namespace has before its caller starts.
async fn fixture(
    prefix: &str,
    minor: Minor,
    policy: &str,
    change: fn(&mut FallbackInput),
) -> Fixture {
    let cluster = cluster().await;
    let namespace = Namespace::create(cluster, prefix).await.unwrap();
    let disabled = [
        "label",
        "namespace",
        namespace.name(),
        "istio-injection=disabled",
    ];
    cluster.kubectl(&disabled, "").await.unwrap();
    namespace
        .apply(&SERVICES.replace("POLICY", policy))
        .await
        .unwrap();
    let mut input = input(namespace.name());
    change(&mut input);
    let filters = filters(&input).into_iter().map(|mut filter| {
        // The operator of the other tests would take away what looks like its own and is not in its configuration.
        filter.metadata.labels = None;
        serde_json::to_value(filter).unwrap()
    });
    let objects: Vec<Value> = manifests(&input).into_iter().chain(filters).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    // Not with `kubectl -n`: in cluster mode the EnvoyFilter is in another namespace.
    cluster
        .kubectl(&["apply", "-f", "-"], &list.to_string())
        .await
        .unwrap();
    let net = ("net", namespace.name());
    let reviews = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let fallback_pod = namespace
        .pod("global-sidecar-0", &[("app", "global-sidecar"), net])
        .await
        .unwrap();
    let collector = Collector::start();
    let options = FallbackOptions {
        http: fallback_pod.address(15080),
        tcp: Some(fallback_pod.address(15081)),
        probe: fallback_pod.address(18181),
        admin: free_address().unwrap(),
        access_log: collector.address.to_string(),
        refuse: Vec::new(),
        ..FallbackOptions::default()
    };
    let dir = cluster.dir().join(format!("fallback.{}", namespace.name()));
    let fallback = Envoy::start(&bootstrap(&options), &dir).await.unwrap();
    Fixture {
        app: application(&reviews, PORT).await,
        namespace,
        minor,
        input,
        reviews,
        collector,
        fallback_pod,
        fallback,
    }
}

impl Fixture {
    async fn caller_pod(&self) -> Pod {
        let labels = [("app", "caller"), ("net", self.namespace.name())];
        self.namespace.pod("caller-0", &labels).await.unwrap()
    }

    /// A caller that is scoped and knows the fallback's pod.
    async fn caller(&self) -> Proxy {
        let (cluster, istiod) = (cluster().await, istiod(self.minor).await);
        let proxy = Proxy::start(cluster, istiod, &self.caller_pod().await)
            .await
            .unwrap();
        self.wait_wired(&proxy).await;
        proxy
    }

    async fn wait_wired(&self, proxy: &Proxy) {
        let member = self.fallback_pod.local().to_string();
        proxy
            .wait_config("the fallback's pod and routes", |dump| {
                let routes = sections(dump, "RoutesConfigDump").to_string();
                let endpoints = sections(dump, "EndpointsConfigDump").to_string();
                if routes.contains("trimtab-") && endpoints.contains(&member) {
                    return Ok(());
                }
                Err(format!("{endpoints} {routes}"))
            })
            .await
            .unwrap();
        let dump = proxy.envoy().config_dump().await.unwrap();
        let clusters = sections(&dump, "ClustersConfigDump").to_string();
        assert!(!clusters.contains("||reviews."), "the service is hidden");
    }

    fn destination(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.reviews.local(), PORT)
    }

    /// Requests that the fallback carried.
    async fn carried(&self) -> u64 {
        self.fallback
            .stat("http.http.downstream_rq_total")
            .await
            .unwrap()
    }

    async fn call(&self, proxy: &Proxy, host: &str, path: &str) -> u16 {
        let mut connection = proxy.outbound(self.destination()).await.unwrap();
        connection.send(host, &Request::get(path)).await.unwrap().0
    }
}

fn sections(dump: &Value, kind: &str) -> Value {
    let all = dump["configs"].as_array().unwrap().iter();
    all.filter(|s| s["@type"].as_str().is_some_and(|t| t.ends_with(kind)))
        .cloned()
        .collect()
}

async fn the_first_call_arrives(minor: Minor, policy: &str) {
    let fixture = fixture("fallback", minor, policy, |_| {}).await;
    let proxy = fixture.caller().await;
    assert_eq!(fixture.call(&proxy, "reviews:9080", "/first").await, 200);
    assert_eq!((fixture.app.requests(), fixture.carried().await), (1, 1));
    let entry = fixture
        .collector
        .http("the entry", |e| path(e) == "/first")
        .await;
    let common = entry.common_properties.as_ref();
    let namespace = fixture.namespace.name();
    assert_eq!(
        metadata(common, "source_namespace").as_deref(),
        Some(namespace)
    );
    assert_eq!(
        metadata(common, "destination"),
        Some(fixture.destination().to_string())
    );
    assert_eq!(
        entry.request.unwrap().authority,
        format!("reviews.{namespace}:9080")
    );
    let link_local = fixture.call(&proxy, "169.254.169.254", "/").await;
    let as_istio_does = if policy == "ALLOW_ANY" { 200 } else { 502 };
    assert_eq!((link_local, fixture.carried().await), (as_istio_does, 1));
    assert_eq!(fixture.collector.count_http(|e| path(e) == "/first"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_arrives_with_allow_any() {
    the_first_call_arrives(Minor::Newest, "ALLOW_ANY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_arrives_with_registry_only() {
    the_first_call_arrives(Minor::Newest, "REGISTRY_ONLY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_arrives_with_the_istio_before() {
    the_first_call_arrives(Minor::Previous, "ALLOW_ANY").await;
}

/// The EnvoyFilter of the whole mesh, and a proxy as its container runs it: it knows its pod.
#[tokio::test(flavor = "multi_thread")]
async fn one_fallback_for_the_mesh_learns_the_pod() {
    let whole_mesh = |input: &mut FallbackInput| {
        input.config.fallback.global_sidecar_mode = GlobalSidecarMode::Cluster;
    };
    let fixture = fixture("mesh", Minor::Newest, "ALLOW_ANY", whole_mesh).await;
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    let pod = fixture.caller_pod().await;
    let proxy = Proxy::start_by_agent(cluster, istiod, &pod, &json!({}))
        .await
        .unwrap();
    fixture.wait_wired(&proxy).await;
    assert_eq!(fixture.call(&proxy, "reviews", "/mesh").await, 200);
    let entry = fixture
        .collector
        .http("the entry", |e| path(e) == "/mesh")
        .await;
    let common = entry.common_properties.as_ref();
    let namespace = fixture.namespace.name();
    assert_eq!(
        metadata(common, "source"),
        Some(format!("{namespace}/caller-0"))
    );
    assert_eq!(
        metadata(common, "source_namespace").as_deref(),
        Some(namespace)
    );
    let remove = [
        "-n",
        "istio-system",
        "delete",
        "envoyfilter",
        "to-global-sidecar",
    ];
    cluster.kubectl(&remove, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatches_and_lua_are_taken() {
    let all = |input: &mut FallbackInput| {
        let fallback = &mut input.config.fallback;
        fallback.add_env_header_via_lua = true;
        fallback.dispatches = vec![
            Dispatch {
                name: "out".to_owned(),
                domains: vec!["*.out.com".to_owned()],
                cluster: "PassthroughCluster".to_owned(),
                ..Dispatch::default()
            },
            Dispatch {
                name: "numbers".to_owned(),
                domain_regex: r"n[0-9]+\.com".to_owned(),
                cluster: "PassthroughCluster".to_owned(),
                ..Dispatch::default()
            },
        ];
    };
    let fixture = fixture("dispatch", Minor::Newest, "ALLOW_ANY", all).await;
    let proxy = fixture.caller().await;
    proxy
        .wait_listener("trimtab.lazyload.source")
        .await
        .unwrap();
    for (host, carried) in [("a.out.com", 0), ("n7.com", 0), ("other.com", 1)] {
        assert_eq!(fixture.call(&proxy, host, "/").await, 200, "{host}");
        assert_eq!(fixture.carried().await, carried, "{host}");
    }
}

/// On a port of its own, and on one that is HTTP for other services.
async fn tcp_arrives(policy: &str) {
    let fixture = fixture("tcp", Minor::Newest, policy, |_| {}).await;
    let echo = echo().await;
    let proxy = fixture.caller().await;
    proxy.wait_listener("trimtab-link-local").await.unwrap();
    for port in [7777, OTHER_PORT] {
        let _server = Forwarder::to(fixture.reviews.address(port), echo)
            .await
            .unwrap();
        let destination = SocketAddrV4::new(fixture.reviews.local(), port);
        let mut stream = proxy.outbound_stream(destination).await.unwrap();
        stream.write_all(b"\x00\x01hello").await.unwrap();
        let mut back = [0; 7];
        let read = stream.read_exact(&mut back);
        tokio::time::timeout(BOUND, read).await.unwrap().unwrap();
        assert_eq!(&back, b"\x00\x01hello");
        let is = |address: Option<&Address>, ip: Ipv4Addr, port: Option<u16>| {
            let Some(Kind::SocketAddress(socket)) = address.and_then(|a| a.address.as_ref()) else {
                return false;
            };
            let wanted = port.map(|port| PortSpecifier::PortValue(u32::from(port)));
            let found = socket.port_specifier.clone();
            socket.address == ip.to_string() && (wanted.is_none() || found == wanted)
        };
        let wanted = |common: &AccessLogCommon| {
            let (to, from) = (
                common.downstream_local_address.as_ref(),
                common.downstream_remote_address.as_ref(),
            );
            is(to, fixture.reviews.local(), Some(port)) && is(from, proxy.pod().local(), None)
        };
        fixture
            .collector
            .tcp("the entry", |e| {
                e.common_properties.as_ref().is_some_and(wanted)
            })
            .await;
    }
}

/// HTTP/2 with trailers, on the port of the Service that is named HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_arrives() {
    let fixture = fixture("grpc", Minor::Newest, "ALLOW_ANY", |_| {}).await;
    let server = Collector::start();
    let _server = Forwarder::to(fixture.reviews.address(OTHER_PORT), server.address)
        .await
        .unwrap();
    let proxy = fixture.caller().await;
    let destination = SocketAddrV4::new(fixture.reviews.local(), OTHER_PORT);
    let tunnel = proxy.tunnel(destination).await.unwrap();
    let mut client = AccessLogServiceClient::connect(format!("http://{}", tunnel.address()))
        .await
        .unwrap();
    let logs = HttpAccessLogEntries {
        log_entry: vec![HttpAccessLogEntry {
            request: Some(HttpRequestProperties {
                path: "/by-grpc".to_owned(),
                ..HttpRequestProperties::default()
            }),
            ..HttpAccessLogEntry::default()
        }],
    };
    let message = StreamAccessLogsMessage {
        log_entries: Some(LogEntries::HttpLogs(logs)),
        ..StreamAccessLogsMessage::default()
    };
    let call = client.stream_access_logs(futures::stream::iter([message]));
    tokio::time::timeout(BOUND, call).await.unwrap().unwrap();
    server.http("the message", |e| path(e) == "/by-grpc").await;
    assert_eq!(fixture.carried().await, 1);
}

async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(free_address().unwrap())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_arrives_with_allow_any() {
    tcp_arrives("ALLOW_ANY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_arrives_with_registry_only() {
    tcp_arrives("REGISTRY_ONLY").await;
}

/// The fallback's own sidecar has all services, is not sent to itself, and speaks to Envoy as it is spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn the_fallbacks_own_sidecar_is_left_as_it_was() {
    let fixture = fixture("own", Minor::Newest, "ALLOW_ANY", |_| {}).await;
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    let (key, value) = PROXY_METADATA;
    let options = ProxyOptions {
        metadata: json!({key: value}),
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start_with(cluster, istiod, &fixture.fallback_pod, &options)
        .await
        .unwrap();
    let inbound = proxy
        .wait_config("its inbound cluster", |dump| {
            let clusters = sections(dump, "ClustersConfigDump");
            let all = clusters[0]["dynamic_active_clusters"].as_array().cloned();
            let mut all = all
                .unwrap_or_default()
                .into_iter()
                .map(|c| c["cluster"].clone());
            all.find(|c| c["name"] == "inbound|15080||")
                .ok_or_else(|| clusters.to_string())
        })
        .await
        .unwrap();
    assert!(
        inbound
            .to_string()
            .contains("use_downstream_protocol_config"),
        "{inbound}"
    );
    let server = format!("unknown.{}", fixture.namespace.name());
    assert_eq!(fixture.call(&proxy, &server, "/").await, 200);
    assert_eq!(fixture.carried().await, 0, "it went there itself");
    let echo = echo().await;
    let _server = Forwarder::to(fixture.reviews.address(7778), echo)
        .await
        .unwrap();
    let destination = SocketAddrV4::new(fixture.reviews.local(), 7778);
    let mut stream = proxy.outbound_stream(destination).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(
        fixture
            .fallback
            .stat("tcp.tcp.downstream_cx_total")
            .await
            .unwrap(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn istioctl_analyze_is_silent() {
    let fixture = fixture("analyze-fallback", Minor::Newest, "ALLOW_ANY", |_| {}).await;
    // Else it misses the pod that the test's own Sidecar is for.
    fixture.caller_pod().await;
    let analyze = ["analyze", "-n", fixture.namespace.name(), "-o", "json"];
    let text = cluster().await.istioctl(&analyze).await.unwrap();
    let found: Vec<Value> = serde_json::from_str(text.trim()).unwrap();
    let codes: Vec<&Value> = found.iter().map(|message| &message["code"]).collect();
    // Of every EnvoyFilter it says that it exposes internals.
    assert_eq!(codes, ["IST0133"], "{text}");
    assert!(!fixture.input.all_ports().is_empty());
}
