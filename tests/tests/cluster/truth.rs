//! Limiters where nothing can be limited, through a real API server and istiod: each says so, and none says that it limits.

use std::time::Instant;

use serde_json::{Value, json};
use trimtab_cluster::{Minor, Namespace, Proxy, wait_for};

use crate::fixture::{BOUND, application, cluster, istiod, operator};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {app: NAME}
  ports: [{name: PORT, port: 80, targetPort: 9080}]
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  sets: {_base: {descriptor: [{condition: 'true', action: {quota: '10', fill_interval: {seconds: '60'}}}]}}
";

const OUTBOUND: &str = "
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  delivery: DELIVERY
  workloadSelector: {app: good}
  sets: {_base: {descriptor: [{condition: 'true', target: {direction: outbound, host: ['HOST']}, action: {quota: '10', fill_interval: {seconds: 60}}}]}}
";

/// A Service with a limiter, and a Ready pod with this metadata and spec.
async fn situation(
    namespace: &Namespace<'_>,
    name: &str,
    port: &str,
    metadata: &Value,
    spec: &Value,
) {
    let objects = SERVICE.replace("NAME\n", &format!("{name}\n"));
    let objects = objects
        .replace("NAME,", &format!("{name},"))
        .replace("app: NAME}", &format!("app: {name}}}"));
    namespace
        .apply(&objects.replace("PORT", port))
        .await
        .unwrap();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    pod["spec"]["nodeName"] = json!("trimtab-test-node");
    pod["metadata"]["annotations"] = metadata.clone();
    namespace.apply(&pod.to_string()).await.unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = ready.to_string();
    let patch = [
        "patch",
        "pod",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &ready,
    ];
    namespace.kubectl(&patch, "").await.unwrap();
}

/// Waits until a condition of a limiter has a reason; then the limiter must not say that it limits.
async fn says(namespace: &Namespace<'_>, name: &str, kind: &str, reason: &str) {
    let what = format!("{name} to say {reason}");
    let asked = Instant::now();
    let status = wait_for(&what, BOUND, || async {
        let get = [
            "get",
            "smartlimiters.microservice.slime.io",
            name,
            "-o",
            "json",
        ];
        let text = namespace.kubectl(&get, "").await;
        let text = text.map_err(|error| error.to_string())?;
        let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let conditions = object["status"]["conditions"].as_array().cloned();
        let found =
            |c: &Value| c["type"] == kind && c["reason"] == reason && c["status"] == "False";
        if conditions.iter().flatten().any(found) {
            return Ok(object["status"].clone());
        }
        Err(object["status"].to_string())
    });
    let status = status.await.unwrap();
    println!("{name} says {reason} after {:?}", asked.elapsed());
    assert_ne!(status["state"], "Limiting", "{name}: {status}");
    assert_ne!(
        status["descriptors"][0]["state"], "Limiting",
        "{name}: {status}"
    );
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "False";
    let conditions = status["conditions"].as_array().cloned();
    assert!(conditions.iter().flatten().any(ready), "{name}: {status}");
}

#[tokio::test]
async fn fault_l7_each_place_where_nothing_can_be_limited_says_so() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    operator().await;
    let namespace = Namespace::create(cluster, "nowhere").await.unwrap();
    let app = json!({"name": "app", "image": "app"});
    let proxy = json!({"name": "istio-proxy", "image": "proxy"});
    let meshed = json!({"containers": [app, proxy]});
    let none = json!({});
    let alone = json!({"containers": [app]});
    let waypoint = json!({"containers": [{"name": "istio-proxy", "image": "proxy", "args": ["proxy", "waypoint"]}]});
    let host = json!({"hostNetwork": true, "containers": [app, proxy]});
    let excluded = json!({"traffic.sidecar.istio.io/excludeInboundPorts": "9080"});
    let ambient = json!({"ambient.istio.io/redirection": "enabled"});
    for (name, port, metadata, spec) in [
        ("tcp", "tcp-x", &none, &meshed),
        ("alone", "http", &none, &alone),
        ("excluded", "http", &excluded, &meshed),
        ("host", "http", &none, &host),
        ("ambient", "http", &ambient, &alone),
        ("waypoint", "http", &none, &waypoint),
    ] {
        situation(&namespace, name, port, metadata, spec).await;
    }
    says(&namespace, "tcp", "Programmed", "PortNotHTTP").await;
    for name in ["alone", "excluded", "host", "ambient", "waypoint"] {
        says(&namespace, name, "Programmed", "NoProxy").await;
    }

    // One with a proxy: it says that it limits, and what it names that nobody has does not.
    let pod = namespace.pod("good-0", &[("app", "good")]).await.unwrap();
    let _app = application(&pod, 9080).await;
    let _proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    for (name, host, delivery) in [
        ("short", "tcp:80", "EnvoyFilter"),
        (
            "portless",
            "alone.NAMESPACE.svc.cluster.local",
            "EnvoyFilter",
        ),
        ("nobody", "nobody.example.com:80", "ECDS"),
    ] {
        let limiter = OUTBOUND.replace("NAME,", &format!("{name},"));
        let limiter = limiter.replace("HOST", host).replace("DELIVERY", delivery);
        namespace.apply(&limiter).await.unwrap();
        says(&namespace, name, "Programmed", "NoSuchVirtualHost").await;
    }
    let limiter = OUTBOUND
        .replace("NAME,", "known,")
        .replace("DELIVERY", "ECDS");
    let limiter = limiter.replace("HOST", "alone.NAMESPACE.svc.cluster.local:80");
    namespace.apply(&limiter).await.unwrap();
    crate::fixture::limiter_state(&namespace, "known", "Limiting").await;
}

/// Objects of Slime's older releases are taken by an API server that is strict.
#[tokio::test]
async fn fault_l9_old_statuses_and_numbers_as_text_are_taken() {
    operator().await;
    let namespace = Namespace::create(cluster().await, "old").await.unwrap();
    let old = |name: &str, status: &Value| {
        json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": {"name": name},
            "spec": {"sets": {"_base": {"descriptor": [
                {"condition": "true", "target": {"port": "80"}, "action": {"quota": "10", "fill_interval": {"seconds": "60", "nanos": "0"}}}]}}},
            "status": status})
        .to_string()
    };
    let action = |key: &str| json!({"quota": "10", key: {"seconds": "60"}});
    for (name, key) in [("camel", "fillInterval"), ("snake", "fill_interval")] {
        let status = json!({"metricStatus": {"_base.pod": "2"}, "endPointStatus": {"a": "1"},
            "ratelimitStatus": {"_base": {"descriptor": [{"action": action(key), "x_y": 1}]}}});
        namespace.apply(&old(name, &status)).await.unwrap();
        says(&namespace, name, "Resolved", "ServiceNotFound").await;
    }
    let fence = json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence", "metadata": {"name": "old"},
        "spec": {"enable": false}, "status": {"domains": {"a": {"hosts": ["a"], "status": "ACTIVE"}}, "old_key": {"a_b": "1"}}});
    namespace.apply(&fence.to_string()).await.unwrap();
    let bad = old("bad", &json!({})).replace("\"60\"", "\"1m\"");
    assert!(namespace.apply(&bad).await.is_err(), "no number");
}
