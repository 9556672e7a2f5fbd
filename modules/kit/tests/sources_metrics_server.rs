//! The metrics-server source over HTTP, with pages, errors and a server that hangs.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on ends its test"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use trimtab_kit::sources::{
    Failure, MetricSource as _, MetricsServerConfig, MetricsServerSource, PodFacts, PodsSource,
    SampleRequest, SampleRequestId,
};

async fn source(app: Router) -> MetricsServerSource {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let config = MetricsServerConfig {
        timeout: Duration::from_millis(500).into(),
        ..MetricsServerConfig::default()
    };
    MetricsServerSource::new(client, config).unwrap()
}

fn path() -> &'static str {
    "/apis/metrics.k8s.io/v1beta1/pods"
}

fn sample_request(metrics: &[&str]) -> SampleRequest {
    let pod = |name, ready| PodFacts {
        cpu_request: Some(1.0),
        memory_limit: Some(2048.0),
        ..PodFacts::new("ns", name, ready)
    };
    SampleRequest {
        id: SampleRequestId(0),
        set: "_base".into(),
        namespace: "ns".into(),
        service: "svc".into(),
        pods: vec![pod("a", true), pod("b", true), pod("c", false)].into(),
        metrics: metrics.iter().map(|m| (*m).to_owned()).collect(),
        ..SampleRequest::default()
    }
}

fn item(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}, "timestamp": jiff::Timestamp::now().to_string(), "window": "15s",
           "containers": [{"name": "x", "usage": {"cpu": cpu, "memory": "1Ki"}}]})
}

#[tokio::test]
async fn one_paged_list_serves_all_demands() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let app = Router::new().route(
        path(),
        get(move |Query(query): Query<HashMap<String, String>>| async move {
            count.fetch_add(1, Ordering::SeqCst);
            Json(match query.get("continue").map(String::as_str) {
                None => json!({"metadata": {"continue": "next"}, "items": [item("a", "500m"), item("c", "50")]}),
                Some(_) => json!({"metadata": {}, "items": [item("b", "1500000000n")]}),
            })
        }),
    );
    let source = source(app).await;
    let names = [
        "cpu",
        "cpu.max",
        "cpu.cores",
        "memory",
        "memory.bytes",
        "other",
    ];
    let sample_requests = [
        sample_request(&names),
        SampleRequest {
            id: SampleRequestId(1),
            ..sample_request(&["cpu"])
        },
    ];
    let samples = source.sample(&sample_requests).await;
    assert_eq!((samples.queries, calls.load(Ordering::SeqCst)), (2, 2));
    let values = ["cpu", "cpu.max", "cpu.cores", "memory", "memory.bytes"]
        .map(|n| samples.get(SampleRequestId(0), n).unwrap().clone());
    assert_eq!(values, [1.0, 1.5, 2.0, 0.5, 2048.0].map(Ok));
    assert_eq!(samples.get(SampleRequestId(0), "other"), None);
    assert_eq!(samples.get(SampleRequestId(1), "cpu"), Some(&Ok(1.0)));
    source.sample(&[sample_request(&["other"])]).await;
    assert_eq!(
        calls.load(Ordering::SeqCst),
        2,
        "nobody asked, nothing sent"
    );
}

#[tokio::test]
async fn a_missing_api_names_the_fix_and_a_hanging_one_is_a_timeout() {
    let status = || json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404});
    let missing = source(Router::new().route(
        path(),
        get(move || async move { (StatusCode::NOT_FOUND, Json(status())).into_response() }),
    ))
    .await;
    let samples = missing.sample(&[sample_request(&["cpu"])]).await;
    let text = samples
        .get(SampleRequestId(0), "cpu")
        .unwrap()
        .clone()
        .unwrap_err()
        .to_string();
    assert!(text.contains("install metrics-server"), "{text}");
    assert!(!missing.health().ok());

    let hanging =
        source(Router::new().route(path(), get(|| async { std::future::pending::<()>().await })))
            .await;
    let samples = hanging.sample(&[sample_request(&["cpu"])]).await;
    assert_eq!(
        samples.get(SampleRequestId(0), "cpu"),
        Some(&Err(Failure::Timeout))
    );
    assert!(samples.elapsed < Duration::from_secs(10));
}

#[tokio::test]
async fn pod_counts_include_zero() {
    let mut none = sample_request(&["pod", "cpu"]);
    none.id = SampleRequestId(1);
    none.pods = Vec::new().into();
    let samples = PodsSource
        .sample(&[
            sample_request(&["pod"]),
            none,
            SampleRequest {
                id: SampleRequestId(2),
                ..sample_request(&["cpu"])
            },
        ])
        .await;
    let all: Vec<_> = samples
        .values
        .into_iter()
        .map(|((id, name), sample)| (id.0, name, sample))
        .collect();
    assert_eq!(
        all,
        [
            (0, "pod".to_owned(), Ok(2.0)),
            (1, "pod".to_owned(), Ok(0.0))
        ]
    );
}
