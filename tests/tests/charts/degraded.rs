//! Rights and CRDs that are missing: they degrade the module that needs them, by name, and nothing else.

use std::time::Duration;

use kube::Api;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::v1alpha2;
use trimtab_embedded::Embedded;
use trimtab_lab::http;
use trimtab_lab::process::wait_until;

use crate::guard::{Guard, rights};
use crate::helm::{object, render};

const BOUND: Duration = Duration::from_secs(60);

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-1, namespace: shop, labels: {app: orders}}
spec: {containers: [{name: c, image: c}]}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: orders, namespace: shop}
spec: {sets: {_base: {descriptor: [{condition: 'true', action: {quota: '30', fill_interval: {seconds: 1}}}]}}}
";

fn load(embedded: &Embedded) {
    for document in manifests::parse(std::path::Path::new("mesh"), MESH).unwrap() {
        standalone::load(embedded, &document).unwrap();
    }
}

fn config() -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config
}

async fn ready(operator: &Operator) {
    wait_until("the xDS server is open", BOUND, || async {
        let missing = operator.readiness.missing();
        let open = missing.is_empty() && operator.cache.is_ready();
        open.then_some(()).ok_or_else(|| format!("{missing:?}"))
    })
    .await
    .unwrap();
}

async fn has_filter(embedded: &Embedded) {
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "shop");
    wait_until("the limit", BOUND, || async {
        let list = api.list(&<_>::default()).await.map_err(|e| e.to_string())?;
        let found = list.items.len();
        (found == 1)
            .then_some(())
            .ok_or_else(|| format!("{found} EnvoyFilters"))
    })
    .await
    .unwrap();
}

/// Group and plural, the modules that need the list, and whether limits work without it.
const LISTS: [(&str, &str, &[&str], bool); 6] = [
    ("", "namespaces", &["lazyload", "metaprotocol"], true),
    ("networking.istio.io", "sidecars", &["lazyload"], true),
    (
        "metaprotocol.aeraki.io",
        "metarouters",
        &["metaprotocol"],
        true,
    ),
    (
        "discovery.k8s.io",
        "endpointslices",
        &["lazyload", "metaprotocol"],
        true,
    ),
    (
        "microservice.slime.io",
        "smartlimiters",
        &["limiter"],
        false,
    ),
    (
        "",
        "services",
        &["lazyload", "limiter", "metaprotocol"],
        false,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn fault_o12_a_forbidden_list_degrades_the_modules_that_need_it() {
    for (group, resource, degraded, works) in LISTS {
        let text = render("trimtab", &["--set", "fallback.enabled=true"]).unwrap();
        let mut granted = rights(&object(&text, "ClusterRole", "trimtab"));
        granted.retain(|r| r.0 != group || r.1 != resource);
        let embedded = standalone::embedded().unwrap();
        load(&embedded);
        let guard = Guard::new(embedded.client(), granted);
        let operator = Operator::start(config(), guard.client(), CancellationToken::new())
            .await
            .unwrap();
        ready(&operator).await;
        assert!(operator.cache.is_partial(), "{resource}");
        if works {
            has_filter(&embedded).await;
        }
        is_told(&operator, group, resource, degraded).await;
        operator.stop().await.unwrap();
    }
}

async fn is_told(operator: &Operator, group: &str, resource: &str, degraded: &[&str]) {
    let told = http::get(operator.http, "/readyz").await.unwrap();
    for module in degraded {
        let begin = format!("degraded: module {module}:");
        let line = told.lines().find(|l| l.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("{resource}: no line for {module} in\n{told}"));
        assert!(line.contains(resource) && line.contains("grant"), "{line}");
    }
    let modules = told.lines().filter(|l| l.starts_with("degraded: module "));
    assert_eq!(modules.count(), degraded.len(), "{resource}:\n{told}");
    let series = http::get(operator.http, "/metrics").await.unwrap();
    let down = format!("trimtab_watch_up{{resource=\"{resource}.{group}");
    let down = format!("{}\"}} 0.0", down.trim_end_matches('.'));
    assert!(series.lines().any(|l| l == down), "{down}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_o12_a_missing_crd_is_told_in_readyz_and_in_the_status() {
    let embedded = Embedded::new();
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        embedded.install_crd(&crd).unwrap();
    }
    load(&embedded);
    let operator = Operator::start(config(), embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    ready(&operator).await;
    let told = http::get(operator.http, "/readyz").await.unwrap();
    let remedy = "EnvoyFilter is not installed: install Istio's CRDs";
    assert!(told.contains(remedy), "{told}");
    let api: Api<v1alpha2::SmartLimiter> = Api::namespaced(embedded.client(), "shop");
    wait_until("a condition with the remedy", BOUND, || async {
        let status = api.get("orders").await.map_err(|e| e.to_string())?.status;
        let conditions = status.map(|s| json!(s.conditions)).unwrap_or_default();
        let text = conditions.to_string();
        text.contains(remedy).then_some(()).ok_or(text)
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}
