//! One proxy with a listener of every kind, in front of one pod.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trimtab_crds::limiter::Delivery;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::load::burst;
use trimtab_lab::ports::{free_address, loopback};
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};
use trimtab_limiter::input::LimiterInput;
use trimtab_limiter::translate::Translation;
use trimtab_tests::merge::{self, ProxyFacts};
use trimtab_tests::mesh::{Listener, Proxy, Route, VirtualHost};
use trimtab_xds::{ECDS, Resource, ResourceCache, ServeError, content_version, serve};

use crate::cases::{self, Case};

pub(crate) const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// Far more than anything here takes; only a hang reaches it.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// Host of the service that the workload calls.
pub(crate) const RATINGS: &str = "ratings.default.svc.cluster.local:9080";

/// Host of the second Service port of a workload port.
pub(crate) const SECOND: &str = "second";

/// A bootstrap that has a place for every target of the golden cases.
pub(crate) struct Mesh {
    pub proxy: Proxy,
    /// Inbound port 9080.
    pub inbound: SocketAddr,
    /// Inbound port 9090.
    pub other: SocketAddr,
    /// Inbound port 9081, which two ports of its Service lead to: 80, and 8080 with the host [`SECOND`].
    pub service: SocketAddr,
    /// Outbound port 9080.
    pub outbound: SocketAddr,
    /// Gateway port 80.
    pub gateway: SocketAddr,
}

/// An address that nobody listens on: enough to validate a configuration.
pub(crate) fn nowhere() -> SocketAddr {
    loopback(1)
}

impl Mesh {
    pub(crate) fn new(pod: SocketAddr) -> Self {
        let at = || free_address().expect("a port");
        let (inbound, other, service, outbound, gateway) = (at(), at(), at(), at(), at());
        let route = |host: &str, port: u16, name: &str, prefix: &str| Route {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            cluster: format!("outbound|{port}||{host}"),
            endpoints: vec![pod],
        };
        let two = |host: &str, port: u16| {
            let routes = vec![
                route(host, port, "slow", "/slow"),
                route(host, port, "default", "/"),
            ];
            VirtualHost::with_routes(host, port, routes)
        };
        let ratings = two("ratings.default.svc.cluster.local", 9080);
        let details = VirtualHost::service("details.default.svc.cluster.local", 9080, vec![pod]);
        let (a, b) = (
            two("a.example.com", 80),
            VirtualHost::service("b.example.com", 80, vec![pod]),
        );
        let proxy = Proxy::new("reviews-1.default", "default", &BTreeMap::new(), at())
            .listener(Listener::inbound(9080, inbound, pod).trusting(1))
            .listener(Listener::inbound(9090, other, pod).trusting(1))
            .listener(of_service(service, pod))
            .listener(Listener::outbound(9080, outbound, vec![ratings, details]))
            .listener(Listener::gateway(80, gateway, vec![a, b]).trusting(1));
        Self {
            proxy,
            inbound,
            other,
            service,
            outbound,
            gateway,
        }
    }

    /// The bootstrap with the objects merged into it; every patch must find its place.
    pub(crate) fn merged(&self, filters: &[Value]) -> Value {
        let mut config = self.proxy.bootstrap();
        let report = merge::apply(&mut config, filters, &facts(filters)).expect("patches that fit");
        assert_eq!(report.unmatched, Vec::<String>::new());
        assert_eq!(report.skipped, Vec::<String>::new());
        config
    }
}

/// Virtual hosts have the Service's ports in their names, the listener has the workload's.
fn of_service(listen: SocketAddr, pod: SocketAddr) -> Listener {
    let mut listener = Listener::inbound(9081, listen, pod).trusting(1);
    let mut second = listener.virtual_hosts[0].clone();
    "inbound|http|80".clone_into(&mut listener.virtual_hosts[0].name);
    "inbound|http|8080".clone_into(&mut second.name);
    second.domains = vec![SECOND.to_owned()];
    listener.virtual_hosts.push(second);
    listener
}

/// A proxy that all of the objects are for.
pub(crate) fn facts(filters: &[Value]) -> ProxyFacts {
    let mut labels = BTreeMap::new();
    for filter in filters {
        let wanted = filter["spec"]["workloadSelector"]["labels"].as_object();
        for (key, value) in wanted.into_iter().flatten() {
            labels.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
    }
    let namespace = filters
        .first()
        .and_then(|f| f["metadata"]["namespace"].as_str())
        .unwrap_or("default");
    ProxyFacts::new(namespace, labels)
}

pub(crate) fn typed_struct(value: &Value) -> Value {
    json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": LOCAL_RATE_LIMIT, "value": value})
}

/// A fresh folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("limiter-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A pod that answers 200.
pub(crate) async fn pod() -> Upstream {
    let spec = PodSpec {
        namespace: "default".into(),
        pod: "reviews-1".into(),
        capacity: 1000.0,
    };
    Upstream::start(free_address().expect("a port"), spec, Clock::real())
        .await
        .expect("a pod")
}

/// A running xDS server.
pub(crate) struct Xds {
    pub cache: ResourceCache,
    pub address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Xds {
    pub(crate) async fn start() -> Self {
        let cache = ResourceCache::new();
        cache.mark_ready();
        Self::start_at(cache, free_address().expect("a port")).await
    }

    pub(crate) async fn start_at(cache: ResourceCache, address: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .expect("the address");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(cache.clone(), listener, shutdown.clone()));
        Self {
            cache,
            address,
            shutdown,
            task,
        }
    }

    /// Stops the server and frees its port.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(BOUND, self.task)
            .await
            .expect("the server stops")
            .expect("no panic")
            .expect("no error");
    }
}

/// What the engine puts into the cache.
pub(crate) fn resources(translation: &Translation) -> Vec<Resource> {
    translation
        .extension_configs
        .iter()
        .map(|c| Resource {
            name: c.name.clone(),
            version: content_version(c.canonical.as_bytes()),
            body: c.body.clone().into(),
            origin: "default/reviews".into(),
        })
        .collect()
}

/// Waits for `n` acceptances.
pub(crate) async fn acked(deliveries: &mut Receiver<trimtab_xds::Delivery>, n: usize) {
    for _ in 0..n {
        let delivery = tokio::time::timeout(BOUND, deliveries.recv())
            .await
            .expect("Envoy answers")
            .expect("a report");
        assert!(
            matches!(delivery, trimtab_xds::Delivery::Acked { .. }),
            "{delivery:?}"
        );
    }
}

/// An Envoy that runs what a case makes.
pub(crate) struct Driven {
    pub mesh: Mesh,
    pub envoy: Envoy,
    pub pod: Upstream,
    pub xds: Option<Xds>,
}

/// Runs an input on a real Envoy, delivered in the given way, ready for requests.
pub(crate) async fn drive(what: &str, input: LimiterInput, delivery: Delivery) -> Driven {
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let dir = folder(&format!("{what}-{delivery:?}"));
    let xds = match delivery {
        Delivery::EnvoyFilter => None,
        Delivery::Ecds => Some(Xds::start().await),
    };
    let address = xds
        .as_ref()
        .map_or_else(String::new, |x| x.address.to_string());
    let case = Case::delivered_by(input, delivery, &address);
    assert!(
        !case.translation.envoy_filters.is_empty(),
        "{what}: nothing to run: {:?}",
        case.refused()
    );
    let config = mesh.merged(&case.envoy_filters());
    let mut deliveries = xds.as_ref().map(|x| x.cache.deliveries());
    if let Some(xds) = &xds {
        xds.cache.update(ECDS, resources(&case.translation), &[]);
    }
    let envoy = Envoy::start(&config, &dir)
        .await
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    if let Some(deliveries) = &mut deliveries {
        acked(deliveries, case.translation.extension_configs.len()).await;
    }
    Driven {
        mesh,
        envoy,
        pod,
        xds,
    }
}

/// Runs a golden case.
pub(crate) async fn drive_case(name: &str, delivery: Delivery) -> Driven {
    drive(name, cases::input(name), delivery).await
}

/// Sends `n` requests, one after the other, and gives how many were served and how many refused with `refusal`.
pub(crate) async fn tally(
    at: SocketAddr,
    n: usize,
    request: &Request,
    refusal: u16,
) -> (usize, usize) {
    let counts = burst(at, n, request).await.expect("answers");
    let of = |status| counts.get(&status).copied().unwrap_or(0);
    assert_eq!(
        of(200) + of(refusal),
        n,
        "only 200 and {refusal}: {counts:?}"
    );
    (of(200), of(refusal))
}

/// A golden limit of 2 per minute: two requests are served, two refused.
pub(crate) async fn limited(what: &str, at: SocketAddr, request: &Request) {
    assert_eq!(
        tally(at, 4, request, 429).await,
        (2, 2),
        "{what}: {request:?}"
    );
}

/// No limit.
pub(crate) async fn free(what: &str, at: SocketAddr, request: &Request) {
    assert_eq!(
        tally(at, 4, request, 429).await,
        (4, 0),
        "{what}: {request:?}"
    );
}
