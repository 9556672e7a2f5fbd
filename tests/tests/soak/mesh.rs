//! The mesh of the soak: the services of Bookinfo, a gateway, a Thrift service, a fallback, and what limits, scopes and routes them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use trimtab_cluster::{
    Cluster, ClusterError, Forwarder, Istiod, Kind, Namespace, Pod, Proxy, ProxyOptions, wait_for,
};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::ports::free_address;
use trimtab_lab::prometheus::{Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};
use trimtab_lazyload::config::GlobalSidecarMode;
use trimtab_lazyload::fallback::proxy::{ProxyOptions as FallbackOptions, bootstrap};
use trimtab_lazyload::fallback::{FallbackInput, manifests};

use crate::BOUND;
use crate::flow::{Flow, Open};
use crate::judge::Limit;
use crate::peers::{Peer, server};
use crate::replica::Replica;

pub const NAMESPACE: &str = "bookinfo";
pub const PORT: u16 = 9080;
const THRIFT: u16 = 9090;
/// Services that are called once, out of scope.
pub const OTHERS: usize = 120;
/// Applications, each with a sidecar.
const PODS: [&str; 6] = [
    "productpage",
    "details",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
    "ratings",
];

/// Objects that every run has.
const OBJECTS: &str = include_str!("objects.yaml");

/// A port before both replicas, as a Service is: new connections go to each in turn, past one that is dead.
struct Balancer {
    address: SocketAddr,
    _forwarder: Forwarder,
}

impl Balancer {
    async fn start(members: [SocketAddr; 2]) -> Self {
        let turn = Arc::new(Mutex::new(0));
        let open = move || {
            let first = {
                let mut turn = turn.lock();
                *turn += 1;
                *turn % 2
            };
            async move {
                if let Ok(stream) = TcpStream::connect(members[first]).await {
                    return Ok(stream);
                }
                let other = members[1 - first];
                TcpStream::connect(other)
                    .await
                    .map_err(|error| ClusterError::Other(format!("{other}: {error}")))
            }
        };
        let forwarder = Forwarder::start(free_address().unwrap(), open)
            .await
            .unwrap();
        Self {
            address: forwarder.address(),
            _forwarder: forwarder,
        }
    }
}

/// Everything that runs.
pub struct Mesh {
    pub cluster: &'static Cluster,
    pub istiod: Istiod,
    pub prometheus: Prometheus,
    pub replicas: Vec<Replica>,
    pub proxies: BTreeMap<&'static str, Proxy>,
    pub fallback: Envoy,
    pub pods: BTreeMap<&'static str, Pod>,
    pub thrift: Forwarder,
    _servers: Vec<(Peer, Forwarder)>,
    _apps: Vec<Upstream>,
    _balancers: [Balancer; 2],
}

/// Ports of the replicas, chosen before they start.
struct Ports {
    http: [SocketAddr; 2],
    xds: [SocketAddr; 2],
    logs: [SocketAddr; 2],
}

impl Ports {
    fn free() -> Self {
        let two = || [free_address().unwrap(), free_address().unwrap()];
        Self {
            http: two(),
            xds: two(),
            logs: two(),
        }
    }
}

fn configuration(ports: &Ports, number: usize, advertise: SocketAddr, prometheus: &str) -> String {
    let (xds, logs) = (ports.xds[number], ports.logs[number]);
    format!(
        "xds: {{address: '{xds}', advertise: '{advertise}'}}, mesh: {{configMap: ''}}, \
         limiter: {{refresh: 1s, holdFor: 60s}}, \
         metrics: {{prometheus: {{address: '{prometheus}', timeout: 1s, handlers: {{budget: {{query: 'max(workload_cpu_ratio) * 0 + 20'}}}}}}}}, \
         metaprotocol: {{dataPlane: Envoy, scope: serviceNamespace, deliveries: [routeDiscovery, ecds, inline]}}, \
         lazyload: {{fallback: {{globalSidecarMode: namespace, namespace: [{NAMESPACE}], tcp: true}}, \
         exclusions: {{istiod: ''}}, learn: {{accessLog: {{address: '{logs}', trusted: [127.0.0.0/8]}}}}}}"
    )
}

/// Services that only the first call of each needs, all at one pod.
fn others() -> Vec<Value> {
    let service = |i: usize| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("other{i}"), "namespace": NAMESPACE},
            "spec": {"selector": {"app": "other"}, "ports": [{"name": "http", "port": PORT}]}})
    };
    (0..OTHERS).map(service).collect()
}

async fn apply(cluster: &Cluster, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    cluster.kubectl(&["apply", "-f", "-"], &list).await.unwrap();
}

async fn application(pod: &Pod) -> Upstream {
    let spec = PodSpec {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        capacity: 1000.0,
    };
    let address = pod.address(PORT);
    Upstream::start(address, spec, Clock::real()).await.unwrap()
}

/// The bootstrap of a sidecar that knows the authority of our xDS server, as `docs/metaprotocol.md` gives it.
fn with_authority(xds: SocketAddr) -> Value {
    let xds = XdsEndpoint::plain(xds.to_string());
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

async fn start_fallback(cluster: &Cluster, pod: &Pod, logs: SocketAddr) -> Envoy {
    let options = FallbackOptions {
        http: pod.address(15080),
        tcp: Some(pod.address(15081)),
        probe: pod.address(18181),
        admin: free_address().unwrap(),
        access_log: logs.to_string(),
        refuse: Vec::new(),
        ..FallbackOptions::default()
    };
    let dir = cluster.dir().join("fallback");
    Envoy::start(&bootstrap(&options), &dir).await.unwrap()
}

/// Pods by their names, with the applications that stand for them.
async fn pods(namespace: &Namespace<'_>) -> (BTreeMap<&'static str, Pod>, Vec<Upstream>) {
    let (mut pods, mut apps) = (BTreeMap::new(), Vec::new());
    for name in PODS {
        let (app, version) = name.split_once('-').unwrap_or((name, "v1"));
        let labels = [("app", app), ("version", version)];
        pods.insert(name, namespace.pod(name, &labels).await.unwrap());
    }
    pods.insert(
        "other",
        namespace.pod("other", &[("app", "other")]).await.unwrap(),
    );
    for pod in pods.values() {
        apps.push(application(pod).await);
    }
    let edge = [("istio", "edge")];
    pods.insert("edge", namespace.pod("edge", &edge).await.unwrap());
    let fallback = [("app", "global-sidecar")];
    pods.insert(
        "fallback",
        namespace.pod("global-sidecar-0", &fallback).await.unwrap(),
    );
    (pods, apps)
}

/// Two versions of the Thrift service; a third of its calls would go to each wrong one without its router.
async fn thrift_servers(namespace: &Namespace<'_>) -> Vec<(Peer, Forwarder)> {
    let mut servers = Vec::new();
    for version in ["v1", "v2"] {
        let labels = [("app", "orders"), ("version", version)];
        let pod = namespace
            .pod(&format!("orders-{version}"), &labels)
            .await
            .unwrap();
        let (peer, at) = server("thrift_server.py", version).await;
        servers.push((peer, Forwarder::to(pod.address(THRIFT), at).await.unwrap()));
    }
    servers
}

impl Mesh {
    /// Starts all of it, and waits until every limit, scope and route is in force.
    pub async fn start() -> Self {
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::audited().await.unwrap()));
        let istiod = Istiod::start(cluster).await.unwrap();
        let namespace = Namespace::named(cluster, NAMESPACE).await.unwrap();
        let disabled = ["label", "namespace", NAMESPACE, "istio-injection=disabled"];
        cluster.kubectl(&disabled, "").await.unwrap();
        let mut input = FallbackInput::default();
        input.ports.insert(PORT);
        input.config.fallback.tcp = true;
        input.config.fallback.global_sidecar_mode = GlobalSidecarMode::Namespace;
        input.config.fallback.namespace = vec![NAMESPACE.to_owned()];
        let objects: Vec<Value> = others().into_iter().chain(manifests(&input)).collect();
        apply(cluster, &objects).await;
        namespace.apply(OBJECTS).await.unwrap();
        let (pods, apps) = pods(&namespace).await;
        let target = Target::new(apps[0].address(), METRICS_PATH);
        let dir = cluster.dir().join("prometheus");
        let prometheus = Prometheus::start(&dir, Duration::from_secs(1), &[target])
            .await
            .unwrap();
        let ports = Ports::free();
        let balancers = [
            Balancer::start(ports.xds).await,
            Balancer::start(ports.logs).await,
        ];
        let mut replicas = Vec::new();
        for number in 0..2 {
            let text = configuration(&ports, number, balancers[0].address, &prometheus.url());
            let at = (ports.http[number], ports.xds[number]);
            let replica = Replica::start_with(cluster, number, cluster.server(), at, &text);
            replicas.push(replica.await);
        }
        let servers = thrift_servers(&namespace).await;
        let fallback = start_fallback(cluster, &pods["fallback"], balancers[1].address).await;
        let proxies = proxies(cluster, &istiod, &pods, balancers[0].address).await;
        let get = [
            "get",
            "service",
            "orders",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ];
        let vip = namespace.kubectl(&get, "").await.unwrap();
        let to = format!("{vip}:{THRIFT}").parse().unwrap();
        let thrift = proxies["productpage"].tunnel(to).await.unwrap();
        Self {
            cluster,
            istiod,
            prometheus,
            replicas,
            proxies,
            fallback,
            pods,
            thrift,
            _servers: servers,
            _apps: apps,
            _balancers: balancers,
        }
    }

    fn at(&self, pod: &str) -> SocketAddrV4 {
        SocketAddrV4::new(self.pods[pod].local(), PORT)
    }

    /// A first call of a host that the fenced caller does not know.
    pub fn first_call(&self, number: usize) -> Flow {
        Flow {
            host: format!("other{number}:{PORT}"),
            ..self.out(
                "first calls",
                "other",
                &["productpage", "fallback"],
                "other",
            )
        }
    }

    /// A call of the fenced caller to the address of one pod, which another answers when the route of the host says so.
    fn out(
        &self,
        name: &'static str,
        address: &str,
        through: &'static [&'static str],
        from: &'static str,
    ) -> Flow {
        Flow {
            name,
            through,
            open: Open::outbound(&self.pods["productpage"], self.at(address)),
            host: format!("{address}:{PORT}"),
            request: Request::get("/"),
            from,
            pace: Duration::from_millis(100),
            limit: None,
        }
    }

    fn inbound(
        &self,
        name: &'static str,
        pod: &'static str,
        through: &'static [&'static str],
    ) -> Flow {
        Flow {
            name,
            through,
            open: Open::inbound(&self.pods[pod], PORT),
            host: pod.to_owned(),
            request: Request::get("/"),
            from: pod,
            pace: Duration::from_millis(25),
            limit: Some(CONSTANT),
        }
    }

    fn edge(&self, host: &str, from: &'static str) -> Flow {
        Flow {
            name: "gateway, limited",
            through: &["edge"],
            open: Open::Plain(self.pods["edge"].address(8080)),
            host: host.to_owned(),
            request: Request::get("/"),
            from,
            pace: Duration::from_millis(25),
            limit: Some(CONSTANT),
        }
    }

    /// The clients.
    pub fn flows(&self) -> Vec<Flow> {
        let version = |name, version: &'static str, pod: &'static str| Flow {
            host: format!("reviews:{PORT}"),
            request: Request::get("/").header("version", version),
            // The address is another pod's: without the route of the VirtualService this one would answer.
            ..self.out(name, "details", &["productpage"], pod)
        };
        vec![
            self.edge("shop.example.com", "productpage"),
            Flow {
                name: "gateway, free",
                limit: None,
                pace: Duration::from_millis(50),
                ..self.edge("free.example.com", "details")
            },
            version("productpage to reviews v1", "v1", "reviews-v1"),
            version("productpage to reviews v2", "v2", "reviews-v2"),
            version("productpage to reviews v3", "v3", "reviews-v3"),
            self.out(
                "productpage to details",
                "details",
                &["productpage"],
                "details",
            ),
            self.inbound("reviews v1, above its limit", "reviews-v1", &["reviews-v1"]),
            Flow {
                pace: Duration::from_millis(100),
                ..self.inbound("reviews v2, below its limit", "reviews-v2", &["reviews-v2"])
            },
            self.inbound("details, limited by ECDS", "details", &["details"]),
            Flow {
                limit: Some(STEPPED),
                ..self.inbound("ratings, by a metric", "ratings", &["ratings"])
            },
            Flow {
                open: Open::outbound(&self.pods["reviews-v3"], self.at("details")),
                host: format!("ratings:{PORT}"),
                from: "ratings",
                ..self.inbound(
                    "reviews v3 to ratings, limited",
                    "reviews-v3",
                    &["reviews-v3"],
                )
            },
        ]
    }

    /// The fence holds: a service that nobody called is not in the caller's configuration.
    pub async fn scoped(&self) {
        let out = format!("||other{}.", OTHERS - 1);
        let scoped = self.proxies["productpage"].wait_config("the scope", |dump| {
            let text = dump["configs"].to_string();
            let left_out = !text.contains(&out) && text.contains("||global-sidecar.");
            left_out
                .then_some(())
                .ok_or_else(|| "it has all services".to_owned())
        });
        scoped.await.unwrap();
    }

    /// Waits until each client meets what it should: its limit, its route, its scope.
    pub async fn settled(&self) {
        for flow in self.flows() {
            let what = format!("{}: its answer and its limit", flow.name);
            let above = flow.limit.is_some() && flow.pace < Duration::from_millis(50);
            let settled = wait_for(&what, BOUND, || async {
                let mut connection = flow.open.connection().await.map_err(|e| e.to_string())?;
                let mut limited = false;
                for _ in 0..if above { 25 } else { 1 } {
                    let answer = connection.send(&flow.host, &flow.request).await;
                    let (status, body) = answer.map_err(|e| e.to_string())?;
                    limited |= status == 429;
                    if status != 429 && (status != 200 || body.trim() != flow.from) {
                        return Err(format!("{status} {body}"));
                    }
                }
                if limited == above {
                    Ok(())
                } else {
                    Err(format!("limited: {limited}"))
                }
            });
            settled.await.unwrap();
        }
    }
}

/// 20 a second, with a burst of 20.
const CONSTANT: Limit = Limit {
    bucket: 20,
    interval: Duration::from_secs(1),
    leak: 0.0,
};

/// The same as a limit that may change has it: half of it each half second, and at most a fifth more.
const STEPPED: Limit = Limit {
    bucket: 10,
    interval: Duration::from_millis(500),
    leak: 0.2,
};

async fn proxies(
    cluster: &Cluster,
    istiod: &Istiod,
    pods: &BTreeMap<&'static str, Pod>,
    xds: SocketAddr,
) -> BTreeMap<&'static str, Proxy> {
    let mut proxies = BTreeMap::new();
    let authority = with_authority(xds);
    let options = ProxyOptions {
        kind: Kind::Gateway,
        bootstrap: authority.clone(),
        ..ProxyOptions::default()
    };
    let edge = Proxy::start_with(cluster, istiod, &pods["edge"], &options);
    proxies.insert("edge", edge.await.unwrap());
    for name in PODS {
        let pod = &pods[name];
        // Each proxy that gets a Thrift filter needs the authority in its bootstrap, and all are in the service's namespace.
        let started = Proxy::start_by_agent(cluster, istiod, pod, &authority).await;
        proxies.insert(name, started.unwrap());
    }
    proxies
}
