//! Modes `Exclude` and `Auto` through a real istiod and a real Envoy, where what is not known is lost: the mesh is
//! REGISTRY_ONLY. Each test has a cluster of its own, as its operator sees all fences.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace, Pod, Proxy, wait_for};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::ports::free_address;
use trimtab_lab::upstream::Upstream;
use trimtab_lazyload::config::GlobalSidecarMode;
use trimtab_lazyload::fallback::proxy::{ProxyOptions as FallbackOptions, bootstrap};
use trimtab_lazyload::fallback::{FallbackInput, manifests};
use trimtab_metaprotocol::module::Metaprotocol;

use crate::fixture::{BOUND, application};

const NAMESPACE: &str = "books";
const PORT: u16 = 9080;
/// Calls of the acceptance.
const CALLS: usize = 10_000;

fn host(name: &str) -> String {
    format!("{name}.{NAMESPACE}.svc.cluster.local")
}

/// Counters of the caller's proxy, as a Prometheus gives them.
#[derive(Clone)]
struct Telemetry {
    calls: Arc<Mutex<BTreeMap<String, u64>>>,
    address: SocketAddr,
    _guard: Arc<DropGuard>,
}

impl Telemetry {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (calls, stop) = (Arc::default(), CancellationToken::new());
        let telemetry = Self {
            calls: Arc::clone(&calls),
            address: listener.local_addr().unwrap(),
            _guard: Arc::new(stop.clone().drop_guard()),
        };
        let app = Router::new()
            .route("/api/v1/query", post(answer))
            .with_state(calls);
        tokio::spawn(
            stop.run_until_cancelled_owned(async move { axum::serve(listener, app).await }),
        );
        telemetry
    }

    fn count(&self, host: &str) {
        *self.calls.lock().entry(host.to_owned()).or_default() += 1;
    }
}

async fn answer(
    State(calls): State<Arc<Mutex<BTreeMap<String, u64>>>>,
    query: String,
) -> Json<Value> {
    let row = |(host, count): (&String, &u64)| {
        json!({"metric": {
            "source_workload": "caller-0", "source_workload_namespace": NAMESPACE, "destination_service": host,
            "destination_service_namespace": NAMESPACE, "reporter": "source",
        }, "value": [0.0, count.to_string()]})
    };
    let rows: Vec<Value> = if query.contains("tcp") {
        Vec::new()
    } else {
        calls.lock().iter().map(row).collect()
    };
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": rows}}))
}

struct Fixture<'c> {
    namespace: Namespace<'c>,
    server: Pod,
    proxy: Proxy,
    telemetry: Telemetry,
    operator: Operator,
    lost: AtomicU64,
    _app: Upstream,
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": PORT}]}})
}

fn fence(mode: &str) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"name": "caller", "namespace": NAMESPACE},
        "spec": {"enable": true, "mode": mode, "workloadSelector": {"labels": {"app": "caller"}}}})
}

async fn apply(cluster: &Cluster, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let apply = ["apply", "-f", "-"];
    cluster.kubectl(&apply, &list.to_string()).await.unwrap();
}

fn asks(istiod: &Istiod) -> String {
    format!("exclusions: {{istiod: 'http://{}'}}", istiod.monitoring())
}

fn registry_only() -> Value {
    json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})
}

async fn operator(cluster: &Cluster, telemetry: &Telemetry, more: &str) -> Operator {
    let text = format!(
        "{{retention: {{min: 8s, grace: 10s}}, learn: {{prometheus: {{address: 'http://{}', interval: 200ms, timeout: 5s}}}}, writes: {{gather: 20ms}}, {more}}}",
        telemetry.address
    );
    let mut config = Config::default();
    let lazyload = serde_saphyr::from_str(&text).unwrap();
    config.modules.insert("lazyload".to_owned(), lazyload);
    config.check().unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Metaprotocol>(|c| c.enabled = false);
    // It exists when another part made it.
    let _ = cluster
        .kubectl(&["create", "namespace", "trimtab-system"], "")
        .await;
    let client = cluster.client().await.unwrap();
    Operator::start(config, client, CancellationToken::new())
        .await
        .unwrap()
}

impl<'c> Fixture<'c> {
    /// A caller, and Services that one pod serves.
    async fn new(cluster: &'c Cluster, istiod: &Istiod, names: &[String], more: &str) -> Self {
        let namespace = Namespace::named(cluster, NAMESPACE).await.unwrap();
        let services: Vec<Value> = names.iter().map(|name| service(name)).collect();
        apply(cluster, &services).await;
        let server = namespace
            .pod("server-0", &[("app", "server")])
            .await
            .unwrap();
        let caller = namespace
            .pod("caller-0", &[("app", "caller")])
            .await
            .unwrap();
        let telemetry = Telemetry::start().await;
        let operator = operator(cluster, &telemetry, more).await;
        Self {
            proxy: Proxy::start(cluster, istiod, &caller).await.unwrap(),
            _app: application(&server, PORT).await,
            namespace,
            server,
            telemetry,
            operator,
            lost: AtomicU64::new(0),
        }
    }

    /// A call over a connection of its own; 200 or what came instead.
    async fn call(&self, name: &str) -> u16 {
        let host = host(name);
        self.telemetry.count(&host);
        let destination = SocketAddrV4::new(self.server.local(), PORT);
        let mut connection = self.proxy.outbound(destination).await.unwrap();
        let request = Request::get("/");
        let authority = format!("{host}:{PORT}");
        let (status, body) = connection.send(&authority, &request).await.unwrap();
        if status != 200 {
            eprintln!("a call to {name} is answered with {status}: {body}");
        }
        status
    }

    async fn must(&self, name: &str) {
        let status = self.call(name).await;
        if status != 200 {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the proxy has a route, a cluster and an endpoint for a service, or has none of them.
    async fn knows(&self, name: &str, wanted: bool) {
        let what = format!("{name} known: {wanted}");
        let cluster = format!("outbound|{PORT}||{}", host(name));
        let server = self.server.local().to_string();
        let found = self.proxy.wait_config(&what, |dump| {
            let section = |kind: &str| {
                let mut all = dump["configs"].as_array().unwrap().iter();
                let of_kind = all.find(|s| s["@type"].as_str().is_some_and(|t| t.ends_with(kind)));
                of_kind.cloned().unwrap_or_default()
            };
            let any = |list: &Value, good: &dyn Fn(&Value) -> bool| {
                list.as_array().is_some_and(|list| list.iter().any(good))
            };
            // One that is warm: a Service has its endpoints a moment after itself.
            let clusters = section(".ClustersConfigDump")["dynamic_active_clusters"].clone();
            let active = any(&clusters, &|c| c["cluster"]["name"] == cluster.as_str());
            let endpoints = section(".EndpointsConfigDump")["dynamic_endpoint_configs"].clone();
            let has_endpoint = any(&endpoints, &|e| {
                let of = &e["endpoint_config"];
                of["cluster_name"] == cluster.as_str() && of.to_string().contains(&server)
            });
            let routed = section(".RoutesConfigDump").to_string().contains(&cluster);
            let has = [active, has_endpoint, routed];
            (has == [wanted; 3]).then_some(()).ok_or(format!("{has:?}"))
        });
        if let Err(error) = found.await {
            panic!("{error}; {:#}", self.fence().await["status"]);
        }
    }

    async fn fence(&self) -> Value {
        let get = ["get", "servicefence", "caller", "-o", "json"];
        let text = self.namespace.kubectl(&get, "").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn sidecar(&self) -> Result<Vec<String>, String> {
        let get = [
            "get",
            "sidecars.networking.istio.io",
            "caller",
            "-o",
            "json",
        ];
        let text = self.namespace.kubectl(&get, "").await;
        let sidecar: Value =
            serde_json::from_str(&text.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let hosts = sidecar["spec"]["egress"][0]["hosts"].clone();
        serde_json::from_value(hosts).map_err(|e| e.to_string())
    }

    /// Waits for the entries of the Sidecar while calls go on.
    async fn entries(&self, what: &str, good: impl Fn(&[String]) -> bool, called: &[String]) {
        let found = wait_for(what, BOUND, || async {
            for name in called {
                self.must(name).await;
            }
            let hosts = self.sidecar().await?;
            good(&hosts).then_some(()).ok_or(format!("{hosts:?}"))
        });
        if let Err(error) = found.await {
            panic!("{error}; {:#}", self.fence().await["status"]);
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    async fn reason(&self, kind: &str, reason: &str) -> Value {
        let what = format!("{kind} {reason}");
        let found = wait_for(&what, BOUND, || async {
            let fence = self.fence().await;
            let all = fence["status"]["conditions"].as_array().cloned();
            let all = all.unwrap_or_default();
            let found = all
                .iter()
                .find(|c| c["type"] == kind && c["reason"] == reason);
            found.cloned().ok_or(format!("{all:?}"))
        });
        found.await.unwrap()
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

fn all_but(names: &[String]) -> Vec<String> {
    let out: BTreeSet<String> = names
        .iter()
        .map(|name| format!("~{NAMESPACE}/{}", host(name)))
        .collect();
    std::iter::once("*/*".to_owned()).chain(out).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_s16_first_calls_arrive_without_a_fallback_while_services_come_and_go() {
    let cluster = Cluster::start().await.unwrap();
    let istiod = Istiod::start_with(&cluster, Minor::Newest, &registry_only())
        .await
        .unwrap();
    let (called, idle) = (names("called", 10), names("idle", 20));
    let all = [called.clone(), idle.clone()].concat();
    let more = format!("fallback: {{enabled: false}}, {}", asks(&istiod));
    let fixture = Fixture::new(&cluster, &istiod, &all, &more).await;
    // Services have their endpoints one after the other.
    for name in &all {
        fixture.knows(name, true).await;
    }
    apply(&cluster, &[fence("Exclude")]).await;
    let mut wanted = all_but(&idle);
    wanted.push("~default/kubernetes.default.svc.cluster.local".to_owned());
    fixture
        .entries("what is idle is left out", |hosts| hosts == wanted, &called)
        .await;
    fixture.knows("idle0", false).await;
    fixture.knows("called0", true).await;
    let size = fixture.fence().await["status"]["scope"].clone();
    assert!(
        size["services"].as_i64() < size["meshServices"].as_i64(),
        "{size}"
    );

    // Services come, are called at once, and go.
    let rounds = 20;
    for round in 0..rounds {
        let new = format!("new{round}");
        apply(&cluster, &[service(&new)]).await;
        fixture.knows(&new, true).await;
        fixture.must(&new).await;
        for n in 0..CALLS / rounds {
            fixture.must(&called[n % called.len()]).await;
        }
        let delete = ["delete", "service", &new];
        fixture.namespace.kubectl(&delete, "").await.unwrap();
    }
    assert_eq!(fixture.lost(), 0, "of {CALLS} calls");
    let never = fixture.fence().await["status"]["conditions"].to_string();
    assert!(!never.contains("WaitsForFallback"), "{never}");

    // A call to what is left out takes its exclusion away.
    assert_eq!(fixture.call("idle3").await, 502, "nobody carries it");
    fixture.knows("idle3", true).await;
    assert_eq!(fixture.call("idle3").await, 200);
    // What is left out, deleted and made again is new.
    let delete = ["delete", "service", "idle4"];
    fixture.namespace.kubectl(&delete, "").await.unwrap();
    let gone = format!("~{NAMESPACE}/{}", host("idle4"));
    fixture
        .entries(
            "idle4 is not named",
            |hosts| !hosts.contains(&gone),
            &called,
        )
        .await;
    apply(&cluster, &[service("idle4")]).await;
    fixture.knows("idle4", true).await;
    assert_eq!((fixture.call("idle4").await, fixture.lost()), (200, 0));
    fixture.operator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_tightens_and_goes_back_under_load_and_loses_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let istiod = Istiod::start_with(&cluster, Minor::Newest, &registry_only())
        .await
        .unwrap();
    let (called, idle) = (names("called", 5), names("idle", 20));
    let all = [called.clone(), idle.clone()].concat();
    let mut input = FallbackInput::default();
    input.ports.insert(PORT);
    input.config.fallback.global_sidecar_mode = GlobalSidecarMode::Namespace;
    input.config.fallback.namespace = vec![NAMESPACE.to_owned()];
    let more = format!(
        "fallback: {{globalSidecarMode: namespace, namespace: [{NAMESPACE}]}}, auto: {{learn: 4s, quiet: 2s, hold: 1s, window: 5s, calls: 8}}, {}",
        asks(&istiod)
    );
    let fixture = Fixture::new(&cluster, &istiod, &all, &more).await;
    let disabled = ["label", "namespace", NAMESPACE, "istio-injection=disabled"];
    cluster.kubectl(&disabled, "").await.unwrap();
    apply(&cluster, &manifests(&input)).await;
    let pod = fixture
        .namespace
        .pod("global-sidecar-0", &[("app", "global-sidecar")])
        .await
        .unwrap();
    let options = FallbackOptions {
        http: pod.address(15080),
        tcp: None,
        probe: pod.address(18181),
        admin: free_address().unwrap(),
        access_log: free_address().unwrap().to_string(),
        refuse: Vec::new(),
        ..FallbackOptions::default()
    };
    let dir = cluster.dir().join("fallback.books");
    let fallback = Envoy::start(&bootstrap(&options), &dir).await.unwrap();
    apply(&cluster, &[fence("Auto")]).await;
    fixture.reason("Tightened", "Learning").await;
    let tight = |hosts: &[String]| {
        hosts.iter().all(|h| !h.contains('*')) && hosts.iter().any(|h| h.contains("called0"))
    };
    fixture.entries("the scope alone", tight, &called).await;
    fixture.reason("Tightened", "Tightened").await;
    fixture.knows("idle0", false).await;
    for n in 0..1000 {
        fixture.must(&called[n % called.len()]).await;
    }
    // First calls are carried, and when there are many, it goes back.
    let carried = || async {
        fallback
            .stat("http.http.downstream_rq_total")
            .await
            .unwrap()
    };
    let before = carried().await;
    for name in &idle {
        fixture.must(name).await;
        fixture.telemetry.count(&host("global-sidecar"));
    }
    assert!(carried().await > before, "the fallback has carried them");
    let wide = |hosts: &[String]| hosts.iter().any(|h| h == "*/*");
    fixture.entries("everything", wide, &called).await;
    for name in &idle {
        // A host that comes into scope has its route a moment before its cluster is warm, with a Sidecar of any kind.
        fixture.knows(name, true).await;
        fixture.must(name).await;
    }
    assert_eq!(fixture.lost(), 0);
    fixture.operator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_s16_the_webhook_of_the_istio_before_refuses_exclusions() {
    let cluster = Cluster::start().await.unwrap();
    let istiod = Istiod::start_checking(&cluster, Minor::Previous, &registry_only())
        .await
        .unwrap();
    let all = [names("called", 2), names("idle", 2)].concat();
    // It is not asked: the webhook alone says it.
    let more = "fallback: {enabled: false}, exclusions: {istiod: ''}";
    let fixture = Fixture::new(&cluster, &istiod, &all, more).await;
    // The caller has telemetry.
    assert_eq!(fixture.call("called0").await, 200);
    apply(&cluster, &[fence("Exclude")]).await;
    let condition = fixture.reason("Programmed", "Unsupported").await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("1.31"), "{message}");
    fixture.knows("idle0", true).await;
    assert_eq!(
        (fixture.call("idle0").await, fixture.call("called0").await),
        (200, 200)
    );
    let size = fixture.fence().await["status"]["scope"].clone();
    assert_eq!(size["services"], size["meshServices"], "{size}");
    fixture.operator.stop().await.unwrap();
}
