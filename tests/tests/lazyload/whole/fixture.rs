//! The parts: an operator on the embedded API, a pod's proxy, two fallback proxies, servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::Sidecar;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{BootstrapOptions, FallbackInput, Listen, bootstrap};
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::{free_address, free_port};
use trimtab_lab::process::wait_until;
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};
use trimtab_lazyload::config::AccessLog;
use trimtab_lazyload::module::Lazyload;

use crate::collector::BOUND;

pub(super) const POD: IpAddr = address(1);
/// A proxy without calls for so long has no more, and what it logs of them has arrived: it gathers entries for 0.2 s.
const QUIET: Duration = Duration::from_secs(1);
const FALLBACKS: [IpAddr; 2] = [address(10), address(11)];

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(127, 78, 1, last))
}

pub(super) fn host(name: &str) -> String {
    format!("{name}.shop.svc.cluster.local")
}

/// An operator that ends at once, as by `kill -9`: its tasks stop where they are.
pub(super) struct Running(Option<tokio::runtime::Runtime>);

impl Running {
    pub(super) async fn start(config: Config, embedded: &Embedded) -> Self {
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

pub(super) struct Fixture {
    pub(super) embedded: Embedded,
    pub(super) config: Config,
    pub(super) operator: Option<Running>,
    pod: Envoy,
    fallbacks: Vec<Envoy>,
    http: u16,
    /// Ports of the services that do not share the one of HTTP, and whether they are of TCP.
    ports: BTreeMap<String, (u16, bool)>,
}

pub(super) async fn server(name: &str) -> Upstream {
    let spec = PodSpec {
        namespace: "shop".to_owned(),
        pod: name.to_owned(),
        capacity: 100_000.0,
    };
    Upstream::start(free_address().unwrap(), spec, Clock::real())
        .await
        .unwrap()
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

fn mesh(servers: &[(&str, SocketAddr)], http: u16) -> Vec<Value> {
    let mut objects: Vec<Value> = servers
        .iter()
        .flat_map(|(name, at)| service(name, "http", http, *at))
        .collect();
    objects.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
            "status": {"phase": "Running", "podIP": POD.to_string(), "podIPs": [{"ip": POD.to_string()}]}}));
    objects.push(
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"enable": true}}),
    );
    objects
}

fn config() -> Config {
    let mut config = Config::default();
    config.http.address = free_address().unwrap();
    config.xds.address = free_address().unwrap();
    let logs = free_address().unwrap();
    config.edit::<Lazyload>(|c| {
        c.fallback.enabled = false;
        c.retention.grace = trimtab_crds::Duration::from_secs(1);
        c.learn.access_log = Some(AccessLog {
            address: logs,
            ..AccessLog::default()
        });
    });
    config.data_plane = Some(Proxies {
        listen: Listen::default(),
        fallback: Some(FallbackInput {
            addresses: FALLBACKS.to_vec(),
            access_log: Some(logs.to_string().parse().unwrap()),
        }),
    });
    config
}

/// What the operator says of itself.
async fn state(http: SocketAddr) -> String {
    let mut out = Vec::new();
    for path in ["/readyz", "/api/v1/xds/nodes"] {
        let get = trimtab_lab::http::get(http, path);
        let answer = tokio::time::timeout(Duration::from_secs(5), get).await;
        out.push(format!("{path}: {answer:?}"));
    }
    out.join("; ")
}

/// The pod's proxy and the fallback proxies, in this order.
async fn proxies(of: &str, config: &Config) -> Vec<Envoy> {
    let mut proxies = Vec::new();
    let groups = FALLBACKS.iter().map(|a| format!("trimtab/fallback/{a}"));
    for group in ["shop/web-1".to_owned()].into_iter().chain(groups) {
        let mut options =
            BootstrapOptions::new(&group, config.xds.address.to_string().parse().unwrap());
        options.admin = free_address().unwrap();
        options.group = Some(group.clone());
        let name = format!(
            "trimtab-{of}-{}-{}",
            std::process::id(),
            group.replace('/', "-")
        );
        let dir = std::env::temp_dir().join(name);
        match Envoy::start(&bootstrap(&options), &dir).await {
            Ok(envoy) => proxies.push(envoy),
            Err(error) => panic!("{error}; {}", state(config.http.address).await),
        }
    }
    proxies
}

impl Fixture {
    /// `of`: the test; `http`: services of HTTP/1.1; `others`: name, name of the port, and address of each.
    pub(super) async fn start(
        of: &str,
        http: &[(&str, SocketAddr)],
        others: &[(&str, &str, SocketAddr)],
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http_port = free_port().unwrap();
        let embedded = standalone::embedded().unwrap();
        embedded.ensure_namespace("shop").unwrap();
        let mut objects = mesh(http, http_port);
        let mut ports = BTreeMap::new();
        for (name, port_name, at) in others {
            let port = free_port().unwrap();
            objects.extend(service(name, port_name, port, *at));
            ports.insert((*name).to_owned(), (port, *port_name == "tcp"));
        }
        for object in objects {
            embedded.load(object).unwrap();
        }
        let config = config();
        let operator = Running::start(config.clone(), &embedded).await;
        let mut proxies = proxies(of, &config).await;
        let fallbacks = proxies.split_off(1);
        Self {
            embedded,
            config,
            operator: Some(operator),
            pod: proxies.pop().unwrap(),
            fallbacks,
            http: http_port,
            ports,
        }
    }

    /// Where the pod's proxy takes calls of HTTP/1.1.
    pub(super) fn http(&self) -> SocketAddr {
        SocketAddr::new(POD, self.http)
    }

    /// Where it takes those to one of the other services.
    pub(super) fn at(&self, name: &str) -> SocketAddr {
        SocketAddr::new(POD, self.ports[name].0)
    }

    /// Whether calls arrive at all, and the other listeners are there.
    pub(super) async fn ready(&self) {
        let (at, admin) = (self.http(), self.pod.admin());
        wait_until("the proxies", BOUND, || async move {
            let listeners = trimtab_lab::http::get(admin, "/listeners").await;
            let listeners = listeners.map_err(|e| e.to_string())?;
            if let Some((name, _)) = self
                .ports
                .iter()
                .find(|(_, (port, _))| !listeners.contains(&format!(":{port}\n")))
            {
                return Err(format!("no listener for {name}: {listeners}"));
            }
            let mut connection = KeepAlive::connect(at).await.map_err(|e| e.to_string())?;
            let answer = connection
                .send(&Request::get("/").header("host", &host("ready")))
                .await
                .map_err(|e| e.to_string())?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.status.to_string())
            }
        })
        .await
        .unwrap();
    }

    /// Calls of HTTP/1.1 that came through the fallback proxies.
    pub(super) async fn detours(&self) -> u64 {
        self.sum(|address| format!("http.{address}_{}.downstream_rq_total", self.http))
            .await
    }

    /// Calls to one of the other services that came through them, or connections where it is of TCP.
    pub(super) async fn carried(&self, name: &str) -> u64 {
        let (port, tcp) = self.ports[name];
        self.sum(|address| {
            if tcp {
                format!("listener.{address}_{port}.downstream_cx_total")
            } else {
                format!("http.{address}_{port}.downstream_rq_total")
            }
        })
        .await
    }

    async fn sum(&self, name: impl Fn(IpAddr) -> String) -> u64 {
        let mut sum = 0;
        for (envoy, address) in self.fallbacks.iter().zip(FALLBACKS) {
            sum += envoy.stat(&name(address)).await.unwrap_or_default();
        }
        sum
    }

    /// The number once all calls go past them, as it does not grow any more.
    pub(super) async fn no_detours(&self) -> u64 {
        let same = parking_lot::Mutex::new((u64::MAX, Instant::now()));
        wait_until("no call by the fallback", BOUND, || async {
            let now = self.detours().await;
            let mut same = same.lock();
            if same.0 != now {
                *same = (now, Instant::now());
            }
            if same.1.elapsed() > QUIET {
                Ok(now)
            } else {
                Err(format!("{now} so far"))
            }
        })
        .await
        .unwrap()
    }

    pub(super) async fn scope(&self) -> Vec<String> {
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

    pub(super) async fn scoped(&self, what: &str, good: impl Fn(&[String]) -> bool) {
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

    /// What Trimtab says of the fence.
    pub(super) async fn view(&self) -> String {
        let path = "/api/v1/lazyload/fences/shop/web";
        let view = trimtab_lab::http::get(self.config.http.address, path).await;
        view.unwrap_or_else(|error| error.to_string())
    }

    /// What was learned is learned anew, as by an operator's hand.
    pub(super) async fn forget(&self) {
        let path = "/api/v1/lazyload/fences/shop/web/forget";
        let request = Request::get(path)
            .method("POST")
            .header(trimtab::http::REQUEST_HEADER, "1");
        let answer = trimtab_lab::http::send(self.config.http.address, &request);
        assert_eq!(answer.await.unwrap().status, 200);
    }

    /// A fallback proxy leaves as its pod does: it takes no new connections, closes each that it has after the call under
    /// way, and goes when nothing is left to do.
    pub(super) async fn restart_fallback(&mut self, number: usize) {
        let fallback = &self.fallbacks[number];
        for path in ["/healthcheck/fail", "/drain_listeners"] {
            let post = Request::get(path).method("POST");
            let answer = trimtab_lab::http::send(fallback.admin(), &post).await;
            assert_eq!(answer.unwrap().status, 200, "{path}");
        }
        // A call on a connection that was idle may still come: so a while without any.
        let same = parking_lot::Mutex::new(((1, 0), Instant::now()));
        wait_until("the last calls", BOUND, || async {
            let work = self.work(number).await?;
            let mut same = same.lock();
            if same.0 != work {
                *same = (work, Instant::now());
            }
            if work.0 == 0 && same.1.elapsed() > QUIET {
                Ok(())
            } else {
                Err(format!("{work:?}"))
            }
        })
        .await
        .unwrap();
        self.fallbacks[number].kill();
        self.fallbacks[number].restart().await.unwrap();
    }

    /// Calls and connections that a fallback proxy has open, and calls that it ever had.
    async fn work(&self, number: usize) -> Result<(u64, u64), String> {
        let (envoy, address) = (&self.fallbacks[number], FALLBACKS[number]);
        let http = format!("http.{address}_{}", self.http);
        let mut values = Vec::new();
        for name in [
            format!("{http}.downstream_rq_active"),
            format!(
                "listener.{address}_{}.downstream_cx_active",
                self.ports["bytes"].0
            ),
            format!("{http}.downstream_rq_total"),
        ] {
            values.push(
                envoy
                    .stat(&name)
                    .await
                    .map_err(|e| format!("{name}: {e}"))?,
            );
        }
        Ok((values[0] + values[1], values[2]))
    }

    /// Makes `a`, which is called all the time, a dependency of a spec alone, with a deadline, and waits until it has expired:
    /// its calls make a detour again.
    pub(super) async fn expire(&self) {
        let api: Api<ServiceFence> = Api::namespaced(self.embedded.client(), "shop");
        let soon = jiff::Timestamp::now().as_second() + 4;
        let patch =
            json!({"spec": {"host": {host("a"): {"deadline": {"expire": {"seconds": soon}}}}}});
        api.patch("web", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        self.no_detours().await;
        let before = self.detours_to("a").await;
        self.forget().await;
        wait_until("the deadline", BOUND, || async {
            let now = self.detours_to("a").await;
            let early = jiff::Timestamp::now().as_second() < soon;
            assert!(
                !early || now == before,
                "{now} detours to a before its deadline"
            );
            if now > before {
                Ok(())
            } else {
                Err(self.view().await)
            }
        })
        .await
        .unwrap();
    }

    /// Calls of HTTP/1.1 to one service that came through the fallback proxies.
    async fn detours_to(&self, name: &str) -> u64 {
        let cluster = format!("outbound|{}||{}", self.http, host(name)).replace('.', "_");
        self.sum(|_| format!("cluster.{cluster}.upstream_rq_total"))
            .await
    }
}
