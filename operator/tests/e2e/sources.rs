//! Metrics that are pushed (MDS) and those of the Kubernetes metrics API drive a limit end to end.

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;
use trimtab_kit::sources::mds_proto::metric_discovery_client::MetricDiscoveryClient;
use trimtab_kit::sources::mds_proto::{PushRequest, Series, series::Target};

use crate::support::{bucket, config, mesh, pod, status_where};

#[tokio::test]
async fn a_pushed_metric_limits() {
    let embedded = mesh(true);
    let text = "{limiter: {refresh: 100ms}, metrics: {mds: {address: '127.0.0.1:0'}}}";
    let operator = Operator::start(config(text), embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    // Nobody has pushed cpu yet: the name is not known, and the status says which are.
    let seen = status_where(&embedded, "unknown metric", |s| {
        s.state.as_deref() == Some("Refused")
    })
    .await;
    assert!(seen.reason.unwrap().contains("unknown metric \"cpu\""));
    let address = format!("http://{}", operator.mds.unwrap());
    let mut client = MetricDiscoveryClient::connect(address).await.unwrap();
    let push = |value| PushRequest {
        series: vec![Series {
            name: "cpu".to_owned(),
            namespace: "default".to_owned(),
            target: Some(Target::Service("a".to_owned())),
            value,
            ..Series::default()
        }],
    };
    let answer = client.put(push(0.95)).await.unwrap().into_inner();
    assert_eq!(answer.accepted, 1, "{:?}", answer.rejected);
    bucket(&embedded, Some(15)).await;
    client.put(push(0.1)).await.unwrap();
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn the_metrics_api_limits() {
    let embedded = mesh(true);
    let measure = |name: &str, cpu: &str| {
        embedded
            .load(
                json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                "metadata": {"name": name, "namespace": "default"},
                "timestamp": k8s_openapi::jiff::Timestamp::now().to_string(), "window": "15s",
                "containers": [{"name": "app", "usage": {"cpu": cpu, "memory": "10Mi"}}]}),
            )
            .unwrap();
    };
    for name in ["a-0", "a-1"] {
        let mut object = pod(name, true);
        object["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "500m", "memory": "100Mi"}});
        embedded.load(object).unwrap();
        measure(name, "450m");
    }
    let text = "{limiter: {refresh: 100ms}, metrics: {metricsServer: {}}}";
    let operator = Operator::start(config(text), embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    bucket(&embedded, Some(15)).await;
    let seen = status_where(&embedded, "the value", |s| {
        s.metric_status.get("_base.cpu").map(String::as_str) == Some("0.9")
    })
    .await;
    assert_eq!(seen.state.as_deref(), Some("Limiting"));
    for name in ["a-0", "a-1"] {
        measure(name, "100m");
    }
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}
