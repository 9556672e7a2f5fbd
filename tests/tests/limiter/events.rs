//! What a limiter does is told by Events on it: when it begins and ceases to limit, and what is refused.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_embedded::Embedded;
use trimtab_lab::process::wait_until;

use crate::fixture::{base, limiter, one, pod};

const BOUND: Duration = Duration::from_secs(60);

async fn operator(embedded: &Embedded) -> Operator {
    let mut config = Config::parse("{}").unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    let started = Operator::start(config, embedded.client(), CancellationToken::new());
    started.await.unwrap()
}

/// Reason and type of each Event about the limiter, in the order of their reasons, once there are so many.
async fn told(embedded: &Embedded, count: usize) -> Vec<(String, String)> {
    let api: Api<Event> = Api::namespaced(embedded.client(), "default");
    let events = wait_until("Events", BOUND, || async {
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|e| e.to_string())?.items;
        if list.len() == count {
            Ok(list)
        } else {
            Err(format!("{list:#?}"))
        }
    })
    .await
    .unwrap();
    let mut out: Vec<_> = events
        .into_iter()
        .map(|event| {
            let regarding = event.regarding.unwrap();
            assert_eq!(regarding.kind.as_deref(), Some("SmartLimiter"));
            assert_eq!(regarding.name.as_deref(), Some("a"));
            assert!(regarding.uid.is_some());
            assert!(!event.note.unwrap_or_default().is_empty());
            (
                event.reason.unwrap_or_default(),
                event.type_.unwrap_or_default(),
            )
        })
        .collect();
    out.sort();
    out
}

fn named(reasons: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(reason, kind): &(&str, &str)| ((*reason).to_owned(), (*kind).to_owned());
    reasons.iter().map(owned).collect()
}

fn of_kind(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object
}

#[tokio::test]
async fn a_limiter_tells_of_its_turns() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let embedded = trimtab::standalone::embedded().unwrap();
    embedded.ensure_namespace("default").unwrap();
    let service = json!({"metadata": {"namespace": "default", "name": "a"}, "spec": {"selector": {"app": "a"}}});
    embedded.load(of_kind("Service", service)).unwrap();
    embedded
        .load(of_kind("Pod", pod("a", 0, &json!({}), "True")))
        .unwrap();
    embedded.load(limiter("a", 1, &one("true", "5"))).unwrap();
    let first = operator(&embedded).await;
    let begun = named(&[("LimitStarted", "Normal")]);
    assert_eq!(told(&embedded, 1).await, begun);
    first.stop().await.unwrap();

    // Another process tells nothing of what was told; what it tells next comes after it.
    let second = operator(&embedded).await;
    embedded.load(limiter("a", 2, &one("false", "5"))).unwrap();
    let stopped = named(&[("LimitStarted", "Normal"), ("LimitStopped", "Normal")]);
    assert_eq!(told(&embedded, 2).await, stopped);

    let rule = json!({"condition": "true", "match": [{"name": "x", "regex_match": "("}],
        "action": {"quota": "5", "fill_interval": {"seconds": 60}}});
    embedded.load(limiter("a", 3, &base(&[rule]))).unwrap();
    let refused = named(&[
        ("LimitStarted", "Normal"),
        ("LimitStopped", "Normal"),
        ("Refused", "Warning"),
    ]);
    assert_eq!(told(&embedded, 3).await, refused);
    second.stop().await.unwrap();
}
