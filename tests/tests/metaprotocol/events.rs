//! What is refused of objects that have no status of ours is told by Events on them.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::manifests::Document;
use trimtab::operator::Operator;
use trimtab::translate;
use trimtab_lab::process::wait_until;

const BOUND: Duration = Duration::from_secs(60);

fn service(name: &str, port: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.20.0.9", "selector": {"app": name}, "ports": [{"name": port, "port": 20880}]}})
}

fn route(test: &Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"hosts": ["orders"], "http": [{"match": [test], "route": [{"destination": {"host": "orders"}}]}]}})
}

/// The Events, once there are as many as these.
async fn events(api: &Api<Event>, count: usize) -> Vec<Event> {
    wait_until("Events", BOUND, || async {
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|e| e.to_string())?.items;
        if list.len() == count {
            Ok(list)
        } else {
            Err(format!("{list:#?}"))
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn fault_m14_a_refused_virtual_service_is_told_by_an_event() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let embedded = trimtab::standalone::embedded().unwrap();
    embedded.ensure_namespace("shop").unwrap();
    embedded.load(service("orders", "tcp-dubbo")).unwrap();
    let refused = route(&json!({"uri": {"prefix": "/orders"}}));
    let stored = embedded.load(refused).unwrap();
    let mut config = Config::parse("metaprotocol: {dataPlane: Envoy}").unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    let operator = Operator::start(config, embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    let api: Api<Event> = Api::namespaced(embedded.client(), "shop");

    let event = events(&api, 1).await.remove(0);
    let regarding = event.regarding.unwrap();
    assert_eq!(regarding.kind.as_deref(), Some("VirtualService"));
    assert_eq!(regarding.name.as_deref(), Some("orders"));
    assert_eq!(regarding.uid.as_deref(), stored["metadata"]["uid"].as_str());
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(
        event.reporting_controller.as_deref(),
        Some("trimtab/metaprotocol")
    );
    let (reason, note) = (event.reason.unwrap(), event.note.unwrap());
    assert_eq!(reason, "NotSupported");
    assert!(
        note.contains("spec.http[0]") && note.contains("uri"),
        "{note}"
    );

    // The same refusal after another change of the host is no other Event; another refusal is one.
    let mut labelled = service("orders", "tcp-dubbo");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    embedded.load(labelled).unwrap();
    embedded
        .load(route(&json!({"authority": {"exact": "orders"}})))
        .unwrap();
    let notes: Vec<String> = events(&api, 2)
        .await
        .into_iter()
        .filter_map(|e| e.note)
        .collect();
    assert!(
        notes.iter().any(|note| note.contains("authority")),
        "{notes:?}"
    );
    operator.stop().await.unwrap();
}

/// Rules of a VirtualService that only its namespace sees route no calls of others.
#[tokio::test]
async fn routes_are_for_those_who_see_the_virtual_service_by_the_meshs_default() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (default, written, expected) in [
        ("[]", json!([]), "istio-system"),
        ("['.']", json!([]), "shop"),
        ("['.']", json!(["*"]), "istio-system"),
    ] {
        let mesh = format!("defaultVirtualServiceExportTo: {default}");
        let mut rules = route(&json!({"method": {"exact": "order"}}));
        rules["spec"]["exportTo"] = written.clone();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}});
        let documents = [service("orders", "tcp-dubbo"), rules, map];
        let documents = documents.map(|object| Document::new("in.yaml", object));
        let mut config = Config::parse("metaprotocol: {dataPlane: Envoy}").unwrap();
        "trimtab.istio-system.svc:15010".clone_into(&mut config.xds.advertise);
        let pass = translate::pass(&documents, &<_>::default(), &config).await;
        let (_, output) = pass.unwrap();
        let text = translate::print(&output, true, true).unwrap();
        let wanted = format!("\"namespace\": \"{expected}\"");
        assert!(text.contains(&wanted), "{default} {written}: {text}");
        let root = text.contains("\"namespace\": \"istio-system\"");
        assert_eq!(
            root,
            expected == "istio-system",
            "{default} {written}: {text}"
        );
    }
}
