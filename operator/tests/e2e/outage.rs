//! A metric that goes away: the last value holds, then the fallback; a real Prometheus is killed and comes back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;
use trimtab_lab::ports::free_address;
use trimtab_lab::prometheus::{Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};

use crate::support::{Dial, bucket, config, folder, mesh, operator, status_where};

#[tokio::test]
async fn a_missing_metric_holds_the_last_state_and_says_so() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.85);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms, holdFor: 2s}").await;
    bucket(&embedded, Some(15)).await;
    dial.set(None);
    let held = status_where(&embedded, "held", |s| s.state.as_deref() == Some("Held")).await;
    assert_eq!(held.limit.as_deref(), Some("15/1s per pod"));
    assert!(held.reason.unwrap().contains("held for up to 2s"));
    let condition = held
        .conditions
        .iter()
        .find(|c| c.type_ == "MetricsAvailable")
        .unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "Held")
    );
    let fallback = status_where(&embedded, "fallback", |s| {
        s.state.as_deref() == Some("Fallback")
    })
    .await;
    assert!(fallback.reason.unwrap().contains("KeepLast"));
    bucket(&embedded, Some(15)).await;
    dial.set(0.2);
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn without_any_value_there_is_no_limit_and_the_status_says_so() {
    let (embedded, dial) = (mesh(true), Dial::default());
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms, holdFor: 60s}").await;
    let seen = status_where(&embedded, "unknown", |s| {
        s.state.as_deref() == Some("Unknown")
    })
    .await;
    assert!(seen.reason.unwrap().contains("no value for cpu"));
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn prometheus_is_killed_and_comes_back() {
    let dir = folder("outage");
    let upstream = Upstream::start(
        free_address().unwrap(),
        PodSpec {
            namespace: "default".to_owned(),
            pod: "a-0".to_owned(),
            capacity: 0.5,
        },
        Clock::real(),
    )
    .await
    .unwrap();
    let mut prometheus = Prometheus::start(
        &dir,
        Duration::from_secs(1),
        &[Target::new(upstream.address(), METRICS_PATH)],
    )
    .await
    .unwrap();
    let embedded = mesh(true);
    // A constant that needs the scrape: present only while Prometheus answers.
    let text = format!(
        "{{limiter: {{refresh: 200ms, holdFor: 60s}}, metrics: {{prometheus: {{address: '{}', timeout: 1s, handlers: {{cpu: {{query: 'max(workload_cpu_ratio) * 0 + 0.9'}}}}}}}}}}",
        prometheus.url()
    );
    let operator = Operator::start(config(&text), embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    bucket(&embedded, Some(15)).await;
    prometheus.kill();
    let held = status_where(&embedded, "held", |s| s.state.as_deref() == Some("Held")).await;
    assert_eq!(held.limit.as_deref(), Some("15/1s per pod"));
    prometheus.restart().await.unwrap();
    status_where(&embedded, "limiting again", |s| {
        s.state.as_deref() == Some("Limiting")
    })
    .await;
    bucket(&embedded, Some(15)).await;
    operator.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn the_series_of_a_group_limit_by_their_name() {
    let dir = folder("group");
    let pod = PodSpec {
        namespace: "default".to_owned(),
        pod: "a-0".to_owned(),
        capacity: 0.5,
    };
    let upstream = Upstream::start(free_address().unwrap(), pod, Clock::real())
        .await
        .unwrap();
    let target = Target::new(upstream.address(), METRICS_PATH);
    let prometheus = Prometheus::start(&dir, Duration::from_secs(1), &[target])
        .await
        .unwrap();
    let embedded = mesh(true);
    let mut limiter = serde_json::json!({"apiVersion": "microservice.netease.com/v1alpha1", "kind": "SmartLimiter",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"descriptors": [{"condition": r#"{{index . "{pod=\"a-0\"}"}} > 0.8"#,
            "action": {"quota": "30/{pod}", "fill_interval": {"seconds": 1}}}]}});
    embedded.load(limiter.clone()).unwrap();
    let text = format!(
        "{{limiter: {{refresh: 200ms}}, metrics: {{prometheus: {{address: '{}', handlers: {{load: {{query: 'sum by (pod) (workload_cpu_ratio) * 0 + 0.9', type: 1}}}}}}}}}}",
        prometheus.url()
    );
    let operator = Operator::start(config(&text), embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    bucket(&embedded, Some(15)).await;
    limiter["spec"]["descriptors"][0]["condition"] = r#"{{index . "{pod=\"a-0\"}"}} > 0.95"#.into();
    embedded.load(limiter).unwrap();
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}
