//! All of it without Istio: a pod's Envoy is scoped by Trimtab's own xDS, two fallback Envoys carry the first calls and log
//! them, the scope follows, and nothing is lost meanwhile.
//!
//! Proxies and pods have addresses of 127.0.0.0/8, all on this machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::data_plane::Proxies;
use trimtab::lab::envoy::Envoy;
use trimtab::lab::http::{KeepAlive, Request};
use trimtab::lab::ports::{free_address, free_port, loopback};
use trimtab::lab::process::wait_until;
use trimtab::lab::upstream::{Clock, PodSpec, Upstream};
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::Sidecar;
use trimtab_embedded::Embedded;
use trimtab_lazyload::config::AccessLog;
use trimtab_metaprotocol::standalone::{BootstrapOptions, FallbackInput, Listen, bootstrap};

use crate::collector::BOUND;

const POD: IpAddr = address(1);
const FALLBACKS: [IpAddr; 2] = [address(10), address(11)];

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(127, 78, 1, last))
}

fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

/// An operator that ends at once, as by `kill -9`: its tasks stop where they are.
struct Running(Option<tokio::runtime::Runtime>);

impl Running {
    async fn start(config: Config, embedded: &Embedded) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let embedded = embedded.clone();
        runtime.spawn(async move {
            // Made here, because a client belongs to the runtime in which it is made.
            let started =
                Operator::start(config, embedded.client(), CancellationToken::new()).await;
            let operator = started.unwrap();
            sender.send(operator.readiness.clone()).ok().unwrap();
            operator.wait().await.unwrap();
        });
        let readiness = receiver.await.unwrap();
        wait_until("the operator", BOUND, || async {
            let missing = readiness.missing();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(missing.join(", "))
            }
        })
        .await
        .unwrap();
        Self(Some(runtime))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Stand {
    embedded: Embedded,
    config: Config,
    operator: Option<Running>,
    pod: Envoy,
    fallbacks: Vec<Envoy>,
    http: u16,
    tcp: u16,
}

async fn server(name: &str) -> Upstream {
    let spec = PodSpec {
        namespace: "shop".to_owned(),
        pod: name.to_owned(),
        capacity: 100_000.0,
    };
    Upstream::start(free_address().unwrap(), spec, Clock::real())
        .await
        .unwrap()
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let at = loopback(free_port().unwrap());
    let listener = TcpListener::bind(at).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                // It ends with the connection, however that ends.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    at
}

/// A Service with its endpoint.
fn service(name: &str, port_name: &str, port: u16, at: SocketAddr) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": port_name, "port": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": port_name, "port": at.port()}],
            "endpoints": [{"addresses": [at.ip().to_string()], "conditions": {"ready": true}}]}),
    ]
}

impl Stand {
    async fn start(servers: &[(&str, SocketAddr)], bytes: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (http, tcp) = (free_port().unwrap(), free_port().unwrap());
        let embedded = standalone::embedded().unwrap();
        embedded.ensure_namespace("shop").unwrap();
        let mut objects: Vec<Value> = servers
            .iter()
            .flat_map(|(name, at)| service(name, "http", http, *at))
            .collect();
        objects.extend(service("bytes", "tcp", tcp, bytes));
        objects.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
            "status": {"phase": "Running", "podIP": POD.to_string(), "podIPs": [{"ip": POD.to_string()}]}}));
        objects.push(
            json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"enable": true}}),
        );
        for object in objects {
            embedded.load(object).unwrap();
        }
        let mut config = Config::default();
        config.http.address = free_address().unwrap();
        config.xds.address = free_address().unwrap();
        config.lazyload.fallback.enabled = false;
        "1s".clone_into(&mut config.lazyload.retention.grace);
        let logs = free_address().unwrap();
        config.lazyload.learn.access_log = Some(AccessLog { address: logs });
        config.data_plane = Some(Proxies {
            listen: Listen::default(),
            fallback: Some(FallbackInput {
                addresses: FALLBACKS.to_vec(),
                access_log: Some(logs.to_string().parse().unwrap()),
            }),
        });
        let operator = Running::start(config.clone(), &embedded).await;
        let mut proxies = Vec::new();
        let groups = FALLBACKS.iter().map(|a| format!("trimtab/fallback/{a}"));
        for group in ["shop/web-1".to_owned()].into_iter().chain(groups) {
            let mut options =
                BootstrapOptions::new(&group, config.xds.address.to_string().parse().unwrap());
            options.admin = free_address().unwrap();
            options.group = Some(group.clone());
            let name = format!(
                "trimtab-whole-{}-{}",
                std::process::id(),
                group.replace('/', "-")
            );
            let dir = std::env::temp_dir().join(name);
            proxies.push(Envoy::start(&bootstrap(&options), &dir).await.unwrap());
        }
        let fallbacks = proxies.split_off(1);
        Self {
            embedded,
            config,
            operator: Some(operator),
            pod: proxies.pop().unwrap(),
            fallbacks,
            http,
            tcp,
        }
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::new(POD, self.http)
    }

    /// Whether calls arrive at all.
    async fn ready(&self) {
        let (at, tcp) = (self.http(), SocketAddr::new(POD, self.tcp));
        wait_until("the proxies", BOUND, || async move {
            let mut connection = KeepAlive::connect(at).await.map_err(|e| e.to_string())?;
            let answer = connection
                .send(&Request::get("/").header("host", &host("ready")))
                .await
                .map_err(|e| e.to_string())?;
            TcpStream::connect(tcp).await.map_err(|e| e.to_string())?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.status.to_string())
            }
        })
        .await
        .unwrap();
    }

    /// Calls of HTTP that came through the fallback proxies.
    async fn detours(&self) -> u64 {
        let mut sum = 0;
        for (envoy, address) in self.fallbacks.iter().zip(FALLBACKS) {
            let name = format!("http.{address}_{}.downstream_rq_total", self.http);
            sum += envoy.stat(&name).await.unwrap_or_default();
        }
        sum
    }

    async fn scope(&self) -> Vec<String> {
        let api: Api<Sidecar> = Api::namespaced(self.embedded.client(), "shop");
        match api.get_opt("web").await.unwrap() {
            Some(sidecar) => sidecar
                .spec
                .egress
                .iter()
                .flat_map(|e| e.hosts.clone())
                .collect(),
            None => vec!["*/*".to_owned()],
        }
    }

    async fn scoped(&self, what: &str, good: impl Fn(&[String]) -> bool) {
        wait_until(what, BOUND, || async {
            let scope = self.scope().await;
            if good(&scope) {
                Ok(())
            } else {
                Err(format!("{scope:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// What was learned is learned anew, as by an operator's hand.
    async fn forget(&self) {
        let path = "/api/v1/lazyload/fences/shop/web/forget";
        let request = Request::get(path).method("POST");
        let answer = trimtab::lab::http::send(self.config.http.address, &request);
        assert_eq!(answer.await.unwrap().status, 200);
    }

    /// A fallback proxy leaves as a pod does: no new connections, the old ones to their end, and then away.
    async fn restart_fallback(&mut self, number: usize) {
        let admin = self.fallbacks[number].admin();
        let drain = Request::get("/drain_listeners").method("POST");
        trimtab::lab::http::send(admin, &drain).await.unwrap();
        let name = format!(
            "http.{}_{}.downstream_rq_active",
            FALLBACKS[number], self.http
        );
        let fallback = &self.fallbacks[number];
        wait_until("the last calls", BOUND, || async {
            let connections = format!(
                "http.{}_{}.downstream_cx_active",
                FALLBACKS[number], self.http
            );
            let active = fallback.stat(&name).await.map_err(|e| e.to_string())?
                + fallback
                    .stat(&connections)
                    .await
                    .map_err(|e| e.to_string())?;
            if active == 0 {
                Ok(())
            } else {
                Err(format!("{active} open"))
            }
        })
        .await
        .unwrap();
        self.fallbacks[number].kill();
        self.fallbacks[number].restart().await.unwrap();
    }
}

/// Calls that go on all the time, and what went wrong.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    good: AtomicU64,
    connections: AtomicU64,
    lost: std::sync::Mutex<Vec<String>>,
}

impl Load {
    fn lose(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }

    /// One connection after the other: a proxy that leaves asks for that with `connection: close`.
    async fn call(self: Arc<Self>, at: SocketAddr, name: &'static str) {
        let request = Request::get("/").header("host", &host(name));
        let mut connection = KeepAlive::connect(at).await.unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            match connection.send(&request).await {
                Ok(answer) if answer.status == 200 && answer.body.trim() == name => {
                    self.good.fetch_add(1, Ordering::Relaxed);
                    let close = answer
                        .headers
                        .iter()
                        .any(|(k, v)| k == "connection" && v == "close");
                    if close {
                        connection = KeepAlive::connect(at).await.unwrap();
                    }
                }
                other => {
                    self.lose(format!("{name}: {other:?}"));
                    connection = KeepAlive::connect(at).await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn connect(self: Arc<Self>, at: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let exchange = async {
                let mut stream = TcpStream::connect(at).await?;
                stream.write_all(b"hello").await?;
                let mut back = [0; 5];
                stream.read_exact(&mut back).await
            };
            match tokio::time::timeout(BOUND, exchange).await {
                Ok(Ok(_)) => {
                    self.connections.fetch_add(1, Ordering::Relaxed);
                }
                other => self.lose(format!("connection: {other:?}")),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn has(scope: &[String], name: &str) -> bool {
    scope.contains(&format!("shop/{}", host(name)))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_scopes_are_learned_expire_and_parts_restart() {
    let (a, b, ready) = (server("a").await, server("b").await, server("ready").await);
    let servers = [
        ("a", a.address()),
        ("b", b.address()),
        ("ready", ready.address()),
    ];
    let mut stand = Stand::start(&servers, echo().await).await;
    stand.ready().await;
    stand
        .scoped("the first call to be learned", |s| {
            has(s, "ready") && !has(s, "a")
        })
        .await;

    // One call by hand, with the clock in the hand.
    let mut connection = KeepAlive::connect(stand.http()).await.unwrap();
    let request = Request::get("/").header("host", &host("a"));
    let before = stand.detours().await;
    let begun = Instant::now();
    let answer = connection.send(&request).await.unwrap();
    let first = begun.elapsed();
    assert_eq!((answer.status, answer.body.trim()), (200, "a"));
    assert_eq!(stand.detours().await, before + 1, "the fallback carried it");
    stand.scoped("a in scope", |s| has(s, "a")).await;
    let in_scope = begun.elapsed();
    wait_until("a direct call", BOUND, || async {
        let before = stand.detours().await;
        let mut connection = KeepAlive::connect(stand.http())
            .await
            .map_err(|e| e.to_string())?;
        let answer = connection.send(&request).await.map_err(|e| e.to_string())?;
        assert_eq!(answer.status, 200);
        if stand.detours().await == before {
            Ok(())
        } else {
            Err("still by the fallback".to_owned())
        }
    })
    .await
    .unwrap();
    let direct = begun.elapsed();
    let begun = Instant::now();
    connection.send(&request).await.unwrap();
    println!(
        "first call {first:?}, in scope after {in_scope:?}, direct after {direct:?}; a direct call takes {:?}",
        begun.elapsed()
    );

    let load = Arc::new(Load::default());
    let mut tasks: Vec<_> = ["a", "b", "a", "b"]
        .into_iter()
        .map(|name| tokio::spawn(load.clone().call(stand.http(), name)))
        .collect();
    tasks.push(tokio::spawn(
        load.clone().connect(SocketAddr::new(POD, stand.tcp)),
    ));
    let all = |s: &[String]| ["a", "b", "bytes"].iter().all(|n| has(s, n));
    stand.scoped("all in scope", all).await;
    for _ in 0..3 {
        stand.forget().await;
        let before = stand.detours().await;
        wait_until("calls by the fallback again", BOUND, || async {
            if stand.detours().await > before {
                Ok(())
            } else {
                Err("none".to_owned())
            }
        })
        .await
        .unwrap();
        stand.scoped("all in scope again", all).await;
    }
    expire(&stand).await;

    // Trimtab dies and comes back: the scope is as it was, and so are the proxies.
    stand.operator = None;
    let good = load.good.load(Ordering::Relaxed);
    wait_until("calls without Trimtab", BOUND, || async {
        let now = load.good.load(Ordering::Relaxed);
        if now > good + 500 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await
    .unwrap();
    let writes = stand.embedded.writes("sidecars", "patch");
    stand.operator = Some(Running::start(stand.config.clone(), &stand.embedded).await);
    assert!(all(&stand.scope().await), "{:?}", stand.scope().await);
    assert_eq!(
        stand.embedded.writes("sidecars", "patch"),
        writes,
        "a restart writes nothing"
    );

    for number in [0, 1] {
        stand.forget().await;
        stand.restart_fallback(number).await;
        stand
            .scoped("all in scope after the fallback's restart", all)
            .await;
    }
    wait_until("10,000 calls", BOUND * 2, || async {
        let sum = load.good.load(Ordering::Relaxed) + load.connections.load(Ordering::Relaxed);
        if sum >= 10_000 {
            Ok(())
        } else {
            Err(sum.to_string())
        }
    })
    .await
    .unwrap();
    load.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let lost = load.lost.lock().unwrap().clone();
    let (good, connections) = (
        load.good.load(Ordering::Relaxed),
        load.connections.load(Ordering::Relaxed),
    );
    println!(
        "{good} requests, {connections} connections, {} lost",
        lost.len()
    );
    assert_eq!(lost, Vec::<String>::new());
}

/// A static dependency that nobody calls expires by the clock.
async fn expire(stand: &Stand) {
    let api: Api<ServiceFence> = Api::namespaced(stand.embedded.client(), "shop");
    let soon = jiff::Timestamp::now().as_second() + 2;
    let patch = json!({"spec": {"host": {"never.example.com": {"deadline": {"expire": {"seconds": soon}}}}}});
    api.patch("web", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    wait_until("the deadline", BOUND, || async {
        let fence = api.get("web").await.map_err(|e| e.to_string())?;
        let domains = fence.status.unwrap_or_default().domains;
        let state = domains.get("never.example.com").map(|d| d.status);
        if state == Some(trimtab_crds::fence::DomainState::Expire) {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await
    .unwrap();
}
