//! Strategy `adaptive` as users run it: the operator, a real Prometheus, a real Envoy, and a service that can do 100 requests a second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::v1alpha2::SmartLimiter;
use trimtab_crds::limiter::{AdaptiveStatus, LimiterStatus};
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::load::{Load, Running, Targets};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_tests::merge::{ProxyFacts, apply};
use trimtab_tests::mesh::{Listener, Proxy, Telemetry};

use crate::fixture::{base, limiter, pod};
use crate::lab::folder;

const BOUND: Duration = Duration::from_secs(120);
/// Workers, and the time of an answer: 100 requests a second.
const WORKERS: usize = 4;
const ANSWER: Duration = Duration::from_millis(40);

/// Answers each request after a worker was free for 40 ms.
async fn service() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let workers = Arc::new(Semaphore::new(WORKERS));
    let answer = move || {
        let workers = workers.clone();
        async move {
            let worker = workers.acquire_owned().await;
            tokio::time::sleep(ANSWER).await;
            drop(worker);
            "done"
        }
    };
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    address
}

fn of_kind(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object
}

fn objects() -> Embedded {
    let embedded = trimtab::standalone::embedded().unwrap();
    embedded.ensure_namespace("default").unwrap();
    let service = json!({"metadata": {"namespace": "default", "name": "a"}, "spec": {"selector": {"app": "a"}}});
    embedded.load(of_kind("Service", service)).unwrap();
    let pod = pod("a", 0, &json!({}), "True");
    embedded.load(of_kind("Pod", pod)).unwrap();
    let options = json!({"slo": "500ms", "floor": 5});
    let mut spec = base(&[json!({"action": {"strategy": "adaptive", "adaptive": options}})]);
    spec["delivery"] = json!("ECDS");
    embedded.load(limiter("a", 1, &spec)).unwrap();
    embedded
}

async fn generated(embedded: &Embedded) -> Value {
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    wait_until("the EnvoyFilter", BOUND, || async {
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|e| e.to_string())?;
        let filter = list.items.into_iter().next().ok_or("there is none yet")?;
        serde_json::to_value(filter).map_err(|e| e.to_string())
    })
    .await
    .unwrap()
}

async fn status(embedded: &Embedded) -> Result<LimiterStatus, String> {
    let api: Api<SmartLimiter> = Api::namespaced(embedded.client(), "default");
    let object = api.get("a").await.map_err(|e| e.to_string())?;
    object.status.ok_or_else(|| "no status yet".to_owned())
}

/// Waits until the status says what is wanted and so do the answers of the last seconds.
async fn until(
    what: &str,
    embedded: &Embedded,
    load: &Running,
    status_is: impl Fn(&AdaptiveStatus) -> bool,
    second_is: impl Fn(u64, u64) -> bool,
) -> LimiterStatus {
    wait_until(what, BOUND, || async {
        let status = status(embedded).await?;
        let law = status.descriptors.first().and_then(|d| d.adaptive.clone());
        let law = law.unwrap_or_default();
        let seconds = load.seconds();
        let last: Vec<(u64, u64)> = seconds
            .iter()
            .rev()
            .skip(1)
            .take(4)
            .map(|s| (s.status(200), s.status(429)))
            .collect();
        let fits = last.len() == 4 && last.iter().all(|(ok, refused)| second_is(*ok, *refused));
        if fits && status_is(&law) {
            Ok(status)
        } else {
            Err(format!(
                "{:?}, served and refused {last:?}",
                AdaptiveStatus {
                    memory: None,
                    ..law
                }
            ))
        }
    })
    .await
    .unwrap()
}

/// What runs.
struct Run {
    embedded: Embedded,
    operator: Operator,
    /// The proxy of the service.
    listen: SocketAddr,
    _prometheus: Prometheus,
    _envoy: Envoy,
}

async fn start() -> Run {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = folder("adaptive-real");
    let upstream = service().await;
    let [xds, listen, admin] = [(); 3].map(|()| free_address().unwrap());
    let target = Target::new(admin, ENVOY_METRICS_PATH).label("namespace", "default");
    let second = Duration::from_secs(1);
    let prometheus = Prometheus::start(&dir.join("prometheus"), second, &[target])
        .await
        .unwrap();
    let embedded = objects();
    let config = format!(
        "http: {{address: '127.0.0.1:0'}}\nxds: {{address: '{xds}', advertise: '{xds}'}}\n\
         limiter: {{refresh: 1s, adaptive: {{window: 4s}}}}\nmetrics: {{prometheus: {{address: '{}'}}}}",
        prometheus.url()
    );
    let config = Config::parse(&config).unwrap();
    let started = Operator::start(config, embedded.client(), CancellationToken::new());
    let operator = started.await.unwrap();

    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let telemetry = Telemetry {
        reporter: "destination".into(),
        destination_service: "a.default.svc.cluster.local".into(),
        namespace: "default".into(),
        pod: "a-0".into(),
    };
    let mut bootstrap = Proxy::new("a-0", "default", &labels, admin)
        .listener(Listener::inbound(9080, listen, upstream).counting(telemetry))
        .bootstrap();
    // Histograms would lag by 5 s, for which the window is too short.
    bootstrap["stats_flush_interval"] = json!("1s");
    let filter = generated(&embedded).await;
    let report = apply(
        &mut bootstrap,
        &[filter],
        &ProxyFacts::new("default", labels),
    )
    .unwrap();
    assert_eq!(report.unmatched, Vec::<String>::new());
    let envoy = Envoy::start(&bootstrap, &dir.join("envoy")).await.unwrap();
    Run {
        embedded,
        operator,
        listen,
        _prometheus: prometheus,
        _envoy: envoy,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_proxy_refuses_in_an_overload_and_lets_go_afterwards() {
    let run = start().await;
    let embedded = &run.embedded;
    let rate = Arc::new(AtomicU32::new(50));
    let shared = rate.clone();
    let load = Load {
        targets: Targets::new(vec![run.listen]),
        request: Request::get("/"),
        max_in_flight: 400,
    };
    let load = load.start(move |_| f64::from(shared.load(Ordering::Relaxed)));
    let calm = |law: &AdaptiveStatus| ["Open", "Armed"].contains(&law.state.as_str());
    until(
        "measured in calm",
        embedded,
        &load,
        |law| calm(law) && law.offered.is_some_and(|o| o > 40.0),
        |_, refused| refused == 0,
    )
    .await;
    assert_eq!(load.seconds().iter().map(|s| s.status(429)).sum::<u64>(), 0);

    rate.store(250, Ordering::Relaxed);
    let status = until(
        "the overload is held",
        embedded,
        &load,
        |law| law.state == "Limiting",
        |ok, refused| (60..=120).contains(&ok) && refused > 100,
    )
    .await;
    let d = &status.descriptors[0];
    let law = d.adaptive.clone().unwrap();
    assert!(law.limit.is_some_and(|l| l > 50.0 && l < 120.0), "{law:?}");
    assert!(law.memory.is_some());
    // The operator reads it back as it is.
    assert!(status.limit.is_some_and(|l| l.ends_with("/s")), "{d:?}");

    rate.store(50, Ordering::Relaxed);
    until(
        "all is served again",
        embedded,
        &load,
        calm,
        |ok, refused| ok > 40 && refused == 0,
    )
    .await;
    load.stop().await;
    run.operator.stop().await.unwrap();
}
