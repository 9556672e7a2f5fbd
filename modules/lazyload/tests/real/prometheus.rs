//! Series of a real Prometheus: what is called, what is not, and what happens when it goes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::SystemClock;
use trimtab_lazyload::config::{PrometheusLearning, Retention};
use trimtab_lazyload::edges::{Edge, EdgeStore, Limits};
use trimtab_lazyload::learn::Rules;
use trimtab_lazyload::learn::prometheus::{Backend, run};
use trimtab_lazyload::object::{Caller, Directory};

use crate::process::{self, BOUND, Process, free_port};

const PAUSE: Duration = Duration::from_millis(20);

/// A mesh that knows each full host.
struct Mesh;

impl Directory for Mesh {
    fn caller_at(&self, _: IpAddr) -> Option<Caller> {
        None
    }

    fn caller_of_pod(&self, _: &str, _: &str) -> Option<Caller> {
        None
    }

    fn host_of_name(&self, name: &str, _: &str) -> Option<Arc<str>> {
        name.ends_with(".svc.cluster.local").then(|| name.into())
    }

    fn hosts_at(&self, _: IpAddr, _: u16) -> Vec<Arc<str>> {
        Vec::new()
    }
}

/// Metrics as the proxy of `shop/front` has them: with each scrape it has called `a` once more, and `redis` never again.
async fn metrics() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = AtomicU64::new(1);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let calls = calls.fetch_add(1, Ordering::Relaxed);
            let labels = |host: &str| {
                format!(
                    r#"{{reporter="source",source_workload="front",source_workload_namespace="shop",destination_service="{host}.svc.cluster.local",response_code="200"}}"#
                )
            };
            let body = format!(
                "# TYPE istio_requests_total counter\nistio_requests_total{} {calls}\n\
                 # TYPE istio_tcp_connections_opened_total counter\nistio_tcp_connections_opened_total{} 7\n",
                labels("a.shop"),
                labels("redis.data"),
            );
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain";
            let text = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    port
}

fn start(metrics: u16, port: u16) -> Process {
    let cached = [process::cache().join("prometheus/usr/bin/prometheus")];
    let program: PathBuf = process::find("PROMETHEUS_BIN", &cached, "prometheus");
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
         scrape_configs: [{{job_name: proxies, static_configs: [{{targets: ['127.0.0.1:{metrics}']}}]}}]\n"
    );
    let listen = format!("--web.listen-address=127.0.0.1:{port}");
    let args = [
        "--config.file={folder}/prometheus.yaml",
        "--storage.tsdb.path={folder}/data",
        "--log.level=warn",
        &listen,
    ];
    Process::start(program, "prometheus", &[("prometheus.yaml", config)], &args)
}

async fn until(prometheus: &mut Process, what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            prometheus.check();
            tokio::time::sleep(PAUSE).await;
        }
    };
    let done = tokio::time::timeout(BOUND, wait).await;
    assert!(done.is_ok(), "not within {BOUND:?}: {what}");
}

#[tokio::test]
async fn what_is_not_called_ages_while_prometheus_watches() {
    let port = free_port();
    let mut prometheus = start(metrics().await, port);
    let backend = Backend {
        directory: Arc::new(Mesh),
        rules: Rules::default(),
        store: Arc::new(EdgeStore::new(Limits::new(&Retention::default(), 100))),
        clock: Arc::new(SystemClock::new()),
        answers: <_>::default(),
        stats: Arc::default(),
    };
    let config = PrometheusLearning {
        address: format!("http://127.0.0.1:{port}"),
        interval: trimtab_crds::Duration::from_millis(200),
        timeout: trimtab_crds::Duration::from_secs(5),
        ..PrometheusLearning::default()
    };
    let stop = CancellationToken::new();
    let learner = tokio::spawn({
        let (backend, stop) = (backend.clone(), stop.clone());
        async move { run(&config, &backend, stop).await }
    });
    let (store, stats) = (backend.store.clone(), backend.stats.clone());
    // Both edges of `front`: to `a`, and to `redis`.
    let edges = || -> Option<[Edge; 2]> {
        let edges = store.of(&Caller::new("shop", "front"));
        edges.try_into().ok()
    };
    until(&mut prometheus, "both edges", || edges().is_some()).await;
    let aged = || {
        let [a, redis] = edges().unwrap();
        redis.idle > Duration::from_secs(2) && a.idle < redis.idle / 2
    };
    until(&mut prometheus, "redis to age", aged).await;
    assert_eq!(stats.error(), None);

    prometheus.kill();
    let failed = stats.failures();
    let wait = async {
        // Whatever was asked before it went has been taken by then.
        while stats.failures() < failed + 4 {
            tokio::time::sleep(PAUSE).await;
        }
        let idle = edges().unwrap()[1].idle;
        while stats.failures() < failed + 12 {
            tokio::time::sleep(PAUSE).await;
        }
        idle
    };
    let idle = tokio::time::timeout(BOUND, wait).await.unwrap();
    assert_eq!(edges().unwrap()[1].idle, idle, "nobody watches");
    assert!(stats.error().unwrap().contains("cannot be asked"));
    stop.cancel();
    learner.await.unwrap().unwrap();
}
