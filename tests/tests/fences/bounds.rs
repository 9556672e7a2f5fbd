//! What many names and many calls do: statuses that fit, names that nobody has, and what is forgotten.

use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use trimtab_crds::fence::DependencyState;

use crate::fixture::{Fixture, GRACE, PLAIN, log, pod, reason_of};
use crate::logs::{carried, outbound};

/// A host of 253 bytes, in `namespace`.
fn long_host(i: usize) -> String {
    let label = "x".repeat(63);
    let end = format!("h{i:04}.{label}.{label}.{label}.shop.example");
    let rest = 253 - end.len() - 1;
    format!("{}.{end}", "y".repeat(rest))
}

/// ServiceEntries with hosts of 253 bytes.
fn long_services(fixture: &Fixture, count: usize) {
    fixture.api.ensure_namespace("far").unwrap();
    for i in 0..count {
        let host = long_host(i);
        assert_eq!(host.len(), 253);
        fixture.put(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"namespace": "far", "name": format!("s{i}")},
            "spec": {"hosts": [host], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"},
        }));
    }
}

fn dependencies(callers: &[&str], count: usize, state: impl Fn(usize) -> &'static str) -> Value {
    let all = callers
        .iter()
        .flat_map(|caller| (0..count).map(move |i| (*caller, i)));
    let all = all.map(|(caller, i)| {
        json!({
            "host": long_host(i), "caller": caller, "evidence": ["AccessLog", "Prometheus"],
            "firstSeen": "2026-01-01T00:00:00Z", "lastSeen": format!("2026-01-01T{:02}:{:02}:{:02}Z", i / 3600, i / 60 % 60, i % 60),
            "state": state(i),
        })
    });
    all.collect()
}

/// Bytes of an object as it is stored, with its managed fields.
async fn stored(fixture: &Fixture, version: &str, kind: &str, name: &str) -> usize {
    let (group, version) = version.split_once('/').unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(fixture.api.client(), "shop", &resource);
    let object = api.get(name).await.unwrap();
    serde_json::to_vec(&object).unwrap().len()
}

async fn fence_bytes(fixture: &Fixture) -> usize {
    stored(
        fixture,
        "microservice.slime.io/v1alpha1",
        "ServiceFence",
        "front",
    )
    .await
}

#[tokio::test]
async fn fault_s14_two_thousand_long_names_fit_and_none_is_missing() {
    let fixture = Fixture::shop();
    long_services(&fixture, 2000);
    fixture.fence("shop", "front", json!({})).await;
    let learned = dependencies(&["front"], 2000, |_| "Active");
    fixture
        .set_status("shop", "front", json!({"dependencies": learned}))
        .await;
    let operator = fixture.operator(PLAIN).await;
    let hosts = fixture
        .hosts_where("shop", "front", "all hosts", |hosts| hosts.len() >= 2000)
        .await;
    assert!(hosts.contains(&format!("far/{}", long_host(1999))));
    let status = fixture
        .status_where("shop", "front", "it is written", |s| {
            reason_of(s, "Programmed") == "Programmed"
        })
        .await;
    assert_eq!(status.dependencies.len(), 2000);
    assert_eq!(reason_of(&status, "Accepted"), "AcceptedWithRemarks");
    let said = &status
        .conditions
        .iter()
        .find(|c| c.type_ == "Accepted")
        .unwrap()
        .message;
    assert!(said.contains("domains (2000)"), "{said}");
    let bytes = fence_bytes(&fixture).await;
    assert!(bytes < 1_400_000, "{bytes} bytes");
    let bytes = stored(&fixture, "networking.istio.io/v1", "Sidecar", "front").await;
    assert!(bytes < 1_400_000, "{bytes} bytes");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s14_what_does_not_fit_is_said_and_stays_in_the_sidecar() {
    let fixture = Fixture::shop();
    long_services(&fixture, 2000);
    fixture.put(pod("shop", "front-b", &json!({"app": "front"}), "10.0.0.9"));
    // Two callers: more than one object may hold, so it comes by telemetry and not by a status; at once, before there is a
    // fence to work out.
    let operator = fixture.operator(PLAIN).await;
    let names: Vec<String> = (0..2000).map(long_host).collect();
    let messages = ["front-1", "front-b-1"].iter().flat_map(|caller| {
        names.chunks(250).map(move |part| {
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            carried("shop", caller, &part)
        })
    });
    log(&operator, messages.collect()).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .hosts_where("shop", "front", "all hosts", |hosts| hosts.len() >= 2000)
        .await;
    let status = fixture
        .status_where("shop", "front", "what is left out is said", |s| {
            let accepted = s.conditions.iter().find(|c| c.type_ == "Accepted");
            accepted.is_some_and(|c| c.message.contains("of 4000 dependencies"))
                && reason_of(s, "Programmed") == "Programmed"
        })
        .await;
    assert!(
        status.dependencies.len() > 2000,
        "{}",
        status.dependencies.len()
    );
    let bytes = fence_bytes(&fixture).await;
    assert!(bytes < 1_400_000, "{bytes} bytes");
    operator.stop().await.unwrap();
}

/// A store that takes less than etcd does: the status becomes smaller, and the Sidecar does not wait.
#[tokio::test]
async fn fault_s14_a_sidecar_does_not_wait_for_a_status_that_is_refused_as_too_large() {
    let fixture = Fixture::shop();
    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {"cart": {}}, "mode": "Enforce"}),
        )
        .await;
    let statuses = trimtab_embedded::Filter::any().resource("servicefences");
    let statuses = statuses.verb("patch");
    fixture.api.faults().fail_next(statuses, 1000, 413);
    let operator = fixture.operator(PLAIN).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.api.faults().clear();
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s15_names_that_nobody_has_keep_no_service_out() {
    for what in ["clusters", "authorities"] {
        let fixture = Fixture::shop();
        let operator = fixture.operator(PLAIN).await;
        fixture.fence("shop", "front", json!({})).await;
        let mut messages = Vec::new();
        for i in 0..2500 {
            let host = format!("h{i:05}.invented.svc.cluster.local");
            messages.push(match what {
                "clusters" => outbound("shop", "front-1", &format!("outbound|80||{host}"), "x"),
                _ => carried("shop", "front-1", &[&host]),
            });
        }
        log(&operator, messages).await;
        fixture.service("shop", "late");
        log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
        fixture.settle().await;
        log(&operator, vec![carried("shop", "front-1", &["late"])]).await;
        fixture
            .scope("shop", "front", &["shop/cart", "shop/late"])
            .await;
        let status = fixture
            .status_where("shop", "front", what, |s| {
                s.dependencies.iter().any(|d| d.host.starts_with("late."))
            })
            .await;
        let unknown = status.dependencies.iter();
        let unknown = unknown.filter(|d| d.state == DependencyState::Unresolved);
        let count = unknown.count();
        assert!((1..=100).contains(&count), "{what}: {count}");
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn fault_s15_names_of_a_status_that_nobody_has_keep_no_service_out() {
    let fixture = Fixture::shop();
    fixture.fence("shop", "front", json!({})).await;
    let keys = (0..2500).map(|i| {
        let host = format!("h{i:05}.invented.svc.cluster.local");
        (format!("{{destination_service=\"{host}\"}}"), json!("1"))
    });
    let keys: serde_json::Map<String, Value> = keys.collect();
    fixture
        .set_status("shop", "front", json!({"metricStatus": keys}))
        .await;
    let operator = fixture.operator(PLAIN).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s15_a_service_that_is_away_keeps_its_entry() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.delete("v1", "Service", "shop", "cart").await;
    fixture.settle().await;
    operator.stop().await.unwrap();
    let again = fixture.operator(PLAIN).await;
    fixture.clock.advance(GRACE);
    fixture.settle().await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    again.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s22_what_is_forgotten_is_gone_whoever_wrote_it() {
    let fixture = Fixture::shop();
    fixture.put(json!({
        "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"namespace": "shop", "name": "front"}, "spec": {"enable": true},
        "status": {
            "dependencies": [{
                "host": "cart.shop.svc.cluster.local", "caller": "front", "evidence": ["AccessLog"],
                "firstSeen": "2026-01-01T00:00:00Z", "lastSeen": "2026-01-01T00:00:00Z", "state": "Active",
            }],
            "domains": {"cart.shop.svc.cluster.local": {"hosts": ["cart.shop.svc.cluster.local"], "status": "ACTIVE"}},
            "metricStatus": {"{destination_service=\"stock.shop.svc.cluster.local\"}": "1"},
        },
    }));
    let operator = fixture.operator(PLAIN).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let url = format!(
        "http://{}/api/v1/lazyload/fences/shop/front/forget",
        operator.http
    );
    let request = reqwest::Client::new()
        .post(url)
        .header(trimtab::http::REQUEST_HEADER, "1");
    request.send().await.unwrap().error_for_status().unwrap();
    fixture
        .status_where("shop", "front", "nothing is learned", |s| {
            s.dependencies.is_empty() && s.metric_status.is_empty()
        })
        .await;
    // Hosts stay for the grace, and what is called meanwhile stays longer.
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &[]).await;
    fixture
        .status_where("shop", "front", "no domains", |s| s.domains.is_empty())
        .await;
    operator.stop().await.unwrap();
    let again = fixture.operator(PLAIN).await;
    fixture.clock.advance(Duration::from_secs(1));
    fixture.settle().await;
    fixture.scope("shop", "front", &[]).await;
    let status = fixture.status("shop", "front").await;
    assert!(status.dependencies.is_empty() && status.metric_status.is_empty());
    again.stop().await.unwrap();
}
