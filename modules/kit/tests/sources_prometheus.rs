//! The Prometheus source against a real Prometheus.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on ends its test"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Exporter, Prometheus, eventually};
use trimtab_kit::sources::{
    Failure, Handler, HandlerType, MetricSource as _, PodFacts, PrometheusConfig, PrometheusSource,
    SampleRequest, SampleRequestId, Samples,
};

const METRICS: &str = r#"
one{namespace="ns"} 42
nan 0
several{v="a"} 1
several{v="b"} 2
cpu{namespace="ns",pod="p1"} 1
cpu{namespace="ns",pod="p2"} 3
cpu{namespace="ns",pod="other"} 70
cpu{namespace="far",pod="p1"} 90
dotted{pod="p.1"} 5
dotted{pod="px1"} 7
calls{service="svc.ns.svc.cluster.local"} 11
calls{service="svc.far.svc.cluster.local"} 12
"#;

fn sample_request(id: u32, metrics: &[&str]) -> SampleRequest {
    SampleRequest {
        id: SampleRequestId(id),
        set: "_base".into(),
        namespace: "ns".into(),
        service: "svc".into(),
        pods: ["p1", "p2", "p.1"]
            .iter()
            .map(|n| PodFacts::new("ns", n, true))
            .collect::<Vec<_>>()
            .into(),
        metrics: metrics.iter().map(|m| (*m).to_owned()).collect(),
        ..SampleRequest::default()
    }
}

fn source(address: &str, handlers: &[(&str, &str, HandlerType)]) -> PrometheusSource {
    let mut config = PrometheusConfig::new(address);
    config.handlers = handlers
        .iter()
        .map(|(n, q, k)| ((*n).to_owned(), Handler::new(*q, *k)))
        .collect();
    PrometheusSource::new(config).unwrap()
}

/// Samples once the first scrape is in, which `probe` shows by having a value. The queries of the round that finds it may have been on both sides of it.
async fn warm(
    source: &PrometheusSource,
    sample_requests: &[SampleRequest],
    probe: &str,
) -> Samples {
    eventually(&format!("a value of {probe}"), || async move {
        let samples = source.sample(sample_requests).await;
        matches!(samples.get(SampleRequestId(0), probe), Some(Ok(_))).then_some(())
    })
    .await;
    source.sample(sample_requests).await
}

fn of(samples: &Samples, id: u32) -> BTreeMap<&str, &Result<f64, Failure>> {
    samples
        .values
        .iter()
        .filter(|((d, _), _)| *d == SampleRequestId(id))
        .map(|((_, n), s)| (n.as_str(), s))
        .collect()
}

#[tokio::test]
async fn every_kind_of_result_has_its_outcome_and_failures_stay_alone() {
    let exporter = Exporter::start(METRICS).await;
    let prometheus = Prometheus::start(exporter.address).await;
    let source = source(
        &prometheus.url(),
        &[
            ("one", "one", HandlerType::Value),
            ("absent", "no_such_series", HandlerType::Value),
            ("nan", "nan / 0", HandlerType::Value),
            ("several", "several", HandlerType::Value),
            ("broken", "sum(", HandlerType::Value),
            ("range", "one[1m]", HandlerType::Value),
            ("scalar", "6 * 7", HandlerType::Value),
            ("group", "several", HandlerType::Group),
            ("calls", "calls", HandlerType::PerService),
        ],
    );
    let names = [
        "one",
        "absent",
        "nan",
        "several",
        "broken",
        "range",
        "scalar",
        "group",
        "calls",
        r#"several{v="b"}"#,
        "foreign",
    ];
    let samples = warm(&source, &[sample_request(0, &names)], "one").await;
    let got = of(&samples, 0);
    assert_eq!(got["one"], &Ok(42.0));
    assert_eq!(got["absent"], &Err(Failure::Empty));
    assert_eq!(got["nan"], &Err(Failure::NotFinite));
    assert_eq!(got["several"], &Err(Failure::Multiple(2)));
    assert!(
        matches!(got["broken"], Err(Failure::Error(text)) if text.contains("bad_data")),
        "{:?}",
        got["broken"]
    );
    assert!(
        matches!(got["range"], Err(Failure::Error(_))),
        "{:?}",
        got["range"]
    );
    assert_eq!(got["scalar"], &Ok(42.0));
    assert_eq!(
        (got[r#"several{v="a"}"#], got[r#"several{v="b"}"#]),
        (&Ok(1.0), &Ok(2.0))
    );
    assert_eq!(got["calls"], &Ok(11.0));
    assert!(!got.contains_key("foreign") && !got.contains_key("group"));
    let health = source.health();
    assert!(health.ok() && health.last_error.is_some_and(|e| e.contains("sum(")));
}

#[tokio::test]
async fn pods_are_grouped_by_one_query_for_the_mesh() {
    let exporter = Exporter::start(METRICS).await;
    let prometheus = Prometheus::start(exporter.address).await;
    let source = source(
        &prometheus.url(),
        &[
            ("cpu", "cpu", HandlerType::PerPod),
            ("cpu.min", "one", HandlerType::Value),
            ("unused", "no_such_series", HandlerType::Value),
        ],
    );
    let names = ["cpu", "cpu.sum", "cpu.max", "cpu.count", "cpu.min"];
    let mut sample_requests: Vec<_> = (0..200).map(|id| sample_request(id, &names)).collect();
    sample_requests[199].pods = vec![PodFacts::new("far", "p1", true)].into();
    let samples = warm(&source, &sample_requests, "cpu").await;
    assert_eq!(samples.queries, 2, "cpu once, cpu.min once, unused never");
    let got = of(&samples, 0);
    assert_eq!(
        names.map(|n| got[n].clone()),
        [2.0, 4.0, 3.0, 2.0, 42.0].map(Ok)
    );
    assert_eq!(of(&samples, 199)["cpu"], &Ok(90.0));
    assert_eq!(samples.values.len(), 200 * names.len());
}

#[tokio::test]
async fn templates_are_filled_and_equal_queries_are_sent_once() {
    let exporter = Exporter::start(METRICS).await;
    let prometheus = Prometheus::start(exporter.address).await;
    let source = source(
        &prometheus.url(),
        &[
            (
                "mine",
                r#"sum(cpu{namespace="$namespace",pod=~"$pod_name"})"#,
                HandlerType::Value,
            ),
            ("dotted", r#"dotted{pod=~"$pod_name"}"#, HandlerType::Value),
            ("raw", "dotted{pod=~`$pod_name`}", HandlerType::Value),
        ],
    );
    let mut far = sample_request(2, &["mine"]);
    far.namespace = "far".into();
    let mut nobody = sample_request(3, &["mine"]);
    nobody.pods = Vec::new().into();
    let mut own = sample_request(4, &["mine"]);
    own.custom = vec![("mine".into(), Handler::new("vector(8)", HandlerType::Value))];
    let sample_requests = [
        sample_request(0, &["mine", "dotted", "raw"]),
        sample_request(1, &["mine"]),
        far,
        nobody,
        own,
    ];
    let samples = warm(&source, &sample_requests, "mine").await;
    assert_eq!(
        samples.queries, 5,
        "two namespaces, two forms of dotted, one own query"
    );
    let value = |id, name| samples.get(SampleRequestId(id), name).unwrap().clone();
    assert_eq!(
        [value(0, "mine"), value(1, "mine"), value(2, "mine")],
        [4.0, 4.0, 90.0].map(Ok)
    );
    assert_eq!([value(0, "dotted"), value(0, "raw")], [5.0, 5.0].map(Ok));
    assert_eq!(value(3, "mine"), Err(Failure::Empty));
    assert_eq!(value(4, "mine"), Ok(8.0));
}

#[tokio::test]
async fn old_samples_are_stale_only_with_a_max_age() {
    let minute_ago = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        - 60_000;
    let exporter = Exporter::start(&format!("old 3 {minute_ago}\nyoung 4\n")).await;
    let prometheus = Prometheus::start(exporter.address).await;
    let mut config = PrometheusConfig::new(prometheus.url());
    let limited = |q: &str| Handler {
        max_age: Some(Duration::from_secs(20).into()),
        ..Handler::new(q, HandlerType::Value)
    };
    config.handlers = BTreeMap::from([
        ("free".to_owned(), Handler::new("old", HandlerType::Value)),
        ("old".to_owned(), limited("old")),
        ("young".to_owned(), limited("young")),
        ("absent".to_owned(), limited("no_such_series")),
    ]);
    let source = PrometheusSource::new(config).unwrap();
    let sample_requests = [sample_request(0, &["free", "old", "young", "absent"])];
    warm(&source, &sample_requests, "young").await;
    let samples = warm(&source, &sample_requests, "free").await;
    let got = of(&samples, 0);
    assert_eq!((got["free"], got["old"]), (&Ok(3.0), &Err(Failure::Stale)));
    assert_eq!(
        (got["young"], got["absent"]),
        (&Ok(4.0), &Err(Failure::Empty))
    );
    assert_eq!(
        samples.queries,
        1 + 3 * 2,
        "a limit of age costs a second query, nothing else does"
    );
}

#[tokio::test]
async fn an_outage_fails_all_values_and_a_restart_brings_them_back() {
    let exporter = Exporter::start(METRICS).await;
    let mut prometheus = Prometheus::start(exporter.address).await;
    let source = source(
        &prometheus.url(),
        &[
            ("one", "one", HandlerType::Value),
            ("cpu", "cpu", HandlerType::PerPod),
        ],
    );
    let sample_requests = [sample_request(0, &["one", "cpu"])];
    warm(&source, &sample_requests, "one").await;

    prometheus.kill();
    let start = Instant::now();
    let samples = source.sample(&sample_requests).await;
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "an outage must not outlast the time-out"
    );
    for sample in samples.values.values() {
        assert!(
            matches!(sample, Err(Failure::Error(text)) if text.contains("check metrics.prometheus.address")),
            "{sample:?}"
        );
    }
    let health = source.health();
    assert!(!health.ok() && health.last_error.is_some() && health.last_success.is_some());

    exporter.set("one{namespace=\"ns\"} 43\n");
    prometheus.restart().await;
    eventually("the new value after the restart", || async {
        let samples = source.sample(&sample_requests).await;
        (samples.get(SampleRequestId(0), "one") == Some(&Ok(43.0))).then_some(())
    })
    .await;
    assert!(source.health().ok());
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout_of_each_query_alone() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    // The threads end when the client closes; the acceptor ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || while stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {});
        }
    });
    let mut config = PrometheusConfig::new(format!("http://{address}"));
    config.timeout = Duration::from_millis(600).into();
    config.handlers = BTreeMap::from([
        ("slow".to_owned(), Handler::new("a", HandlerType::Value)),
        (
            "fast".to_owned(),
            Handler {
                timeout: Some(Duration::from_millis(100).into()),
                ..Handler::new("b", HandlerType::Value)
            },
        ),
    ]);
    let source = PrometheusSource::new(config).unwrap();
    let samples = source.sample(&[sample_request(0, &["slow", "fast"])]).await;
    assert!(
        samples.values.len() == 2 && samples.values.values().all(|s| *s == Err(Failure::Timeout)),
        "{samples:?}"
    );
    assert!(
        samples.elapsed >= Duration::from_millis(600) && samples.elapsed < Duration::from_secs(5),
        "{:?}",
        samples.elapsed
    );
    assert_eq!(
        accepted.load(Ordering::SeqCst),
        2,
        "the queries are sent in parallel"
    );
    assert!(!source.health().ok());
}

#[tokio::test]
async fn something_that_is_not_prometheus_is_named() {
    let exporter = Exporter::start("one 1\n").await;
    let source = source(
        &format!("http://{}", exporter.address),
        &[("one", "one", HandlerType::Value)],
    );
    let samples = source.sample(&[sample_request(0, &["one"])]).await;
    let text = samples
        .get(SampleRequestId(0), "one")
        .unwrap()
        .clone()
        .unwrap_err()
        .to_string();
    assert!(text.contains("404") && text.contains("base URL"), "{text}");
}

#[tokio::test]
async fn the_bearer_token_is_read_anew_and_a_missing_file_is_named() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("token-{}", std::process::id()));
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app = axum::Router::new().route(
        "/api/v1/query",
        axum::routing::post(move |headers: axum::http::HeaderMap| async move {
            log.lock().push(headers["authorization"].to_str().unwrap().to_owned());
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            axum::Json(serde_json::json!({"status":"success","warnings":["partial"],"data":{"resultType":"vector","result":[{"metric":{},"value":[now.unwrap().as_secs_f64(),"5"]}]}}))
        }),
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let mut config = PrometheusConfig::new(format!("http://{}", listener.local_addr().unwrap()));
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    config.bearer_token_file = Some(file.clone());
    config
        .handlers
        .insert("x".into(), Handler::new("x", HandlerType::Value));
    let source = PrometheusSource::new(config).unwrap();
    let sample_requests = [sample_request(0, &["x"])];

    let samples = source.sample(&sample_requests).await;
    assert!(
        matches!(&samples.values[&(SampleRequestId(0), "x".into())], Err(Failure::Error(t)) if t.contains("bearerTokenFile"))
    );
    for token in ["t1", "t2\n"] {
        std::fs::write(&file, token).unwrap();
        assert_eq!(
            source
                .sample(&sample_requests)
                .await
                .get(SampleRequestId(0), "x"),
            Some(&Ok(5.0))
        );
    }
    assert_eq!(*seen.lock(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(source.health().warnings, 2);
    std::fs::remove_file(&file).unwrap();
    server.abort();
}

#[test]
fn addresses_that_are_no_urls_are_refused() {
    for address in ["prometheus:9090", "", "ftp://x"] {
        let error = PrometheusSource::new(PrometheusConfig::new(address))
            .unwrap_err()
            .to_string();
        assert!(error.contains("http://"), "{error}");
    }
}
