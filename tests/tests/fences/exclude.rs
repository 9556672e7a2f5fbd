//! Modes `Exclude` and `Auto`: nothing is left out that was not watched unused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_crds::fence::{FenceStatus, Mode};
use trimtab_embedded::Filter;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, entry, reason_of};
use crate::prometheus::Fake;

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";
const REDIS: &str = "redis.data.svc.cluster.local";

/// What istiod 1.30 says to exclusions by its webhook.
const REFUSAL: &str = "admission webhook \"validation.istio.io\" denied the request: configuration is invalid: invalid namespace value \"~data\" in sidecar";

/// An istiod's monitoring port.
struct Istiod {
    address: SocketAddr,
    says: Arc<Mutex<String>>,
    _guard: DropGuard,
}

impl Istiod {
    async fn start(version: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let says = Arc::new(Mutex::new(version.to_owned()));
        let stop = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        let text = says.clone();
        let answer = get(move || async move { text.lock().clone() });
        let app = Router::new().route("/version", answer);
        let guard = stop.clone().drop_guard();
        tokio::spawn(
            stop.run_until_cancelled_owned(async move { axum::serve(listener, app).await }),
        );
        Self {
            address,
            says,
            _guard: guard,
        }
    }
}

fn config(fake: &Fake, istiod: Option<&Istiod>, more: &str) -> String {
    let istiod = istiod.map_or(String::new(), |i| format!("http://{}", i.address));
    format!(
        "{{fallback: {{enabled: false}}, retention: {{min: 4h}}, exclusions: {{istiod: '{istiod}'}}, {more} learn: {{prometheus: {{address: 'http://{}', interval: 20ms, timeout: 1h}}}}}}",
        fake.address()
    )
}

/// Entries of a Sidecar that leaves these services out.
fn all_but(services: &[&str]) -> BTreeSet<String> {
    let out = services.iter().map(|s| format!("~{}", entry(s)));
    std::iter::once("*/*".to_owned()).chain(out).collect()
}

impl Fixture {
    async fn leaves_out(&self, name: &str, services: &[&str]) {
        let wanted = all_but(services);
        let what = format!("{name}: {wanted:?}");
        self.hosts_where("shop", name, &what, |hosts| *hosts == wanted)
            .await;
    }

    async fn mode(&self, name: &str, mode: Mode) -> FenceStatus {
        let what = format!("{name} at {mode:?}");
        self.status_where("shop", name, &what, |s| s.mode == Some(mode))
            .await
    }
}

#[tokio::test]
async fn fault_s16_exclude_leaves_out_what_was_watched_unused_and_nothing_else() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let istiod = Istiod::start("1.31.0-abc-Clean").await;
    let text = config(&fake, Some(&istiod), "");
    let operator = fixture.operator(&text).await;
    let spec = json!({"mode": "Exclude", "host": {STOCK: {"stable": {}}}});
    fixture.fence("shop", "front", spec).await;
    fixture.leaves_out("front", &[]).await;
    fixture.condition("shop", "front", "Ready", "Ready").await;
    fake.pass(&fixture, 3).await;
    fixture.settle().await;
    fixture.leaves_out("front", &[]).await;
    fake.pass(&fixture, 2).await;
    fixture
        .leaves_out("front", &["data/redis", "shop/front"])
        .await;
    let size = fixture
        .status_where("shop", "front", "the size", |s| {
            s.scope.as_ref().is_some_and(|s| s.services == 2)
        })
        .await
        .scope
        .unwrap();
    assert!(
        size.mesh_services == 4 && size.bytes < size.mesh_bytes,
        "{size:?}"
    );
    // In the order in which people read it.
    let sidecar = fixture.sidecar("shop", "front").await.unwrap();
    assert_eq!(sidecar.spec.egress[0].hosts[0], "*/*");

    // A new service was not watched.
    fixture.service("data", "late");
    fake.pass(&fixture, 3).await;
    fixture.settle().await;
    fixture
        .leaves_out("front", &["data/redis", "shop/front"])
        .await;
    fake.pass(&fixture, 2).await;
    fixture
        .leaves_out("front", &["data/late", "data/redis", "shop/front"])
        .await;
    // A call, and a service that is deleted, take their exclusions away.
    *fake.calls.lock() = vec![("front", CART, true), ("front", REDIS, true)];
    fixture
        .leaves_out("front", &["data/late", "shop/front"])
        .await;
    fixture.delete("v1", "Service", "data", "late").await;
    fixture.leaves_out("front", &["shop/front"]).await;
    fixture.service("data", "late");
    fake.pass(&fixture, 1).await;
    fixture.settle().await;
    fixture.leaves_out("front", &["shop/front"]).await;
    operator.stop().await.unwrap();

    // After a restart watching begins anew.
    let operator = fixture.operator(&text).await;
    fixture.leaves_out("front", &[]).await;
    fake.pass(&fixture, 5).await;
    fixture
        .leaves_out("front", &["data/late", "shop/front"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s16_telemetry_that_is_away_proves_nothing() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("cart", STOCK, true)]).await;
    let operator = fixture.operator(&config(&fake, None, "")).await;
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    fake.pass(&fixture, 10).await;
    fixture.settle().await;
    fixture.leaves_out("front", &[]).await;
    *fake.calls.lock() = vec![("cart", STOCK, true), ("front", CART, true)];
    fake.pass(&fixture, 5).await;
    let unused = ["data/redis", "shop/front", "shop/stock"];
    fixture.leaves_out("front", &unused).await;
    // Nobody knows which istiod it is: no saving is claimed.
    let status = fixture.status("shop", "front").await;
    let size = status.scope.unwrap();
    assert_eq!(
        (size.services, size.bytes),
        (size.mesh_services, size.mesh_bytes)
    );
    // A pod of another workload: nothing is known of it.
    fixture.pod("shop", "night", &json!({"app": "front"}), "10.0.0.9");
    fixture.leaves_out("front", &[]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s16_fences_that_share_pods_leave_out_what_neither_needs() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let operator = fixture.operator(&config(&fake, None, "")).await;
    let shared = json!({"labels": {"app": "front"}});
    let spec = json!({"mode": "Enforce", "host": {STOCK: {}}, "workloadSelector": shared});
    fixture.fence("shop", "a-narrow", spec.clone()).await;
    fixture
        .scope("shop", "a-narrow", &["shop/cart", "shop/stock"])
        .await;
    let wide = json!({"mode": "Exclude", "host": {REDIS: {}}, "workloadSelector": shared});
    fixture.fence("shop", "b-wide", wide).await;
    fixture.leaves_out("a-narrow", &[]).await;
    fixture
        .condition("shop", "b-wide", "Programmed", "Merged")
        .await;
    fake.pass(&fixture, 5).await;
    fixture.leaves_out("a-narrow", &["shop/front"]).await;
    for name in ["a-narrow", "b-wide"] {
        let size = fixture.status("shop", name).await.scope.unwrap();
        assert_eq!(size.services, size.mesh_services, "{name}");
    }
    fixture.delete_fence("shop", "b-wide").await;
    fixture
        .scope("shop", "a-narrow", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s16_a_change_of_mode_finds_what_was_watched() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let operator = fixture.operator(&config(&fake, None, "")).await;
    fixture
        .fence("shop", "front", json!({"mode": "Observe"}))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "Observing")
        .await;
    fake.pass(&fixture, 5).await;
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    let unused = ["data/redis", "shop/front", "shop/stock"];
    fixture.leaves_out("front", &unused).await;
    fixture
        .fence("shop", "front", json!({"mode": "Enforce"}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    fixture.leaves_out("front", &unused).await;
    // A user's Sidecar stays alone.
    fixture
        .apply(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"namespace": "shop", "name": "mine"},
            "spec": {"workloadSelector": {"labels": {"app": "front"}}, "egress": [{"hosts": ["./*"]}]},
        }))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "UserSidecar")
        .await;
    fixture.no_sidecar("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s16_an_api_server_that_refuses_exclusions_leaves_the_last_good_sidecar() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let sidecars = Filter::any().resource("sidecars");
    fixture.api.faults().deny(sidecars, "\"~data/", REFUSAL);
    let text = config(&fake, None, "auto: {learn: 2h, quiet: 1h},");
    let operator = fixture.operator(&text).await;
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    fixture.leaves_out("front", &[]).await;
    fake.pass(&fixture, 5).await;
    fixture
        .condition("shop", "front", "Programmed", "Unsupported")
        .await;
    let status = fixture.status("shop", "front").await;
    let programmed = status.conditions.iter().find(|c| c.type_ == "Programmed");
    let message = &programmed.unwrap().message;
    assert!(message.contains("1.31"), "{message}");
    fixture.leaves_out("front", &[]).await;
    // Mode Auto does without a Sidecar there.
    fixture
        .fence("shop", "front", json!({"mode": "Auto"}))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "Open")
        .await;
    fixture.no_sidecar("shop", "front").await;
    fixture
        .condition("shop", "front", "Ready", "Observing")
        .await;
    fake.pass(&fixture, 3).await;
    fixture.mode("front", Mode::Enforce).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    // Another istiod: it is tried again.
    fixture.api.faults().clear();
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    let unused = ["data/redis", "shop/front", "shop/stock"];
    fixture.leaves_out("front", &unused).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s16_an_older_istiod_without_its_webhook_gets_no_exclusions() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let istiod = Istiod::start("1.30.4-abc-Clean").await;
    let operator = fixture.operator(&config(&fake, Some(&istiod), "")).await;
    fixture
        .fence("shop", "front", json!({"mode": "Enforce"}))
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture
        .fence("shop", "front", json!({"mode": "Exclude"}))
        .await;
    fixture
        .condition("shop", "front", "Programmed", "Unsupported")
        .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    let size = fixture.status("shop", "front").await.scope.unwrap();
    assert_eq!(size.services, size.mesh_services);
    "1.31.0-abc-Clean".clone_into(&mut istiod.says.lock());
    fake.pass(&fixture, 5).await;
    let unused = ["data/redis", "shop/front", "shop/stock"];
    fixture.leaves_out("front", &unused).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn auto_tightens_by_evidence_and_goes_back_when_calls_miss() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let more = "auto: {learn: 6h, quiet: 3h, hold: 1h, window: 1h, calls: 5},";
    let text = config(&fake, None, more);
    let operator = fixture.operator(&text).await;
    fixture
        .fence("shop", "front", json!({"mode": "Auto"}))
        .await;
    fixture.leaves_out("front", &[]).await;
    fixture
        .condition("shop", "front", "Tightened", "Learning")
        .await;
    fake.pass(&fixture, 4).await;
    fixture.mode("front", Mode::Exclude).await;
    // A restart goes on.
    fixture
        .status_where("shop", "front", "progress", |s| {
            s.auto.as_ref().is_some_and(|a| a.watched.is_some())
        })
        .await;
    operator.stop().await.unwrap();
    let operator = fixture.operator(&text).await;
    fake.pass(&fixture, 4).await;
    let status = fixture.mode("front", Mode::Enforce).await;
    assert_eq!(reason_of(&status, "Tightened"), "Tightened");
    fixture.scope("shop", "front", &["shop/cart"]).await;
    // A dependency that is new is a first call, and no reason to go back.
    *fake.calls.lock() = vec![("front", CART, true), ("front", REDIS, true)];
    fixture
        .scope("shop", "front", &["data/redis", "shop/cart"])
        .await;
    fixture.mode("front", Mode::Enforce).await;
    // Calls that nobody takes are.
    fake.calls
        .lock()
        .push(("front", "PassthroughCluster", true));
    for _ in 0..6 {
        fake.round().await;
    }
    let status = fixture.mode("front", Mode::Exclude).await;
    assert_eq!(reason_of(&status, "Tightened"), "Learning");
    assert_eq!(status.auto.unwrap().returns, Some(1));
    let wide = |hosts: &BTreeSet<String>| hosts.contains("*/*");
    fixture
        .hosts_where("shop", "front", "everything", wide)
        .await;
    let events: Api<Event> = Api::namespaced(fixture.api.client(), "shop");
    wait_until("the events", BOUND, || async {
        let all = events.list(&<_>::default()).await.unwrap();
        let reasons: BTreeSet<String> = all.iter().filter_map(|e| e.reason.clone()).collect();
        let wanted = ["Tightened", "WentBack"].map(str::to_owned);
        (reasons == BTreeSet::from(wanted))
            .then_some(())
            .ok_or(format!("{reasons:?}"))
    })
    .await
    .unwrap();
    let url = format!("http://{}/metrics", operator.http);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    for line in [
        "trimtab_lazyload_auto_steps_total{to=\"Enforce\"} 1",
        "trimtab_lazyload_auto_steps_total{to=\"Exclude\"} 1",
        "trimtab_lazyload_modes{mode=\"Exclude\"} 1.0",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(line)),
            "{line} in {text}"
        );
    }
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn auto_without_telemetry_or_a_fallback_does_not_tighten() {
    let fixture = Fixture::shop();
    let operator = fixture.operator("{fallback: {enabled: false}}").await;
    fixture
        .fence("shop", "front", json!({"mode": "Auto"}))
        .await;
    fixture
        .condition("shop", "front", "Tightened", "NoTelemetry")
        .await;
    fixture.leaves_out("front", &[]).await;
    operator.stop().await.unwrap();

    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true)]).await;
    let more = "auto: {learn: 2h, quiet: 1h, hold: 1h},";
    let text = config(&fake, None, more).replace("enabled: false", "enabled: true");
    let operator = fixture.operator(&text).await;
    fixture
        .fence("shop", "front", json!({"mode": "Auto"}))
        .await;
    fake.pass(&fixture, 3).await;
    fixture
        .condition("shop", "front", "Tightened", "NoFallback")
        .await;
    fixture.mode("front", Mode::Exclude).await;
    operator.stop().await.unwrap();
}

/// A TCP connection to an excluded service has no name: all of them are taken back.
#[tokio::test]
async fn fault_s16_connections_without_a_name_take_tcp_services_back() {
    let fixture = Fixture::shop();
    let mut service = crate::fixture::service("data", "sql");
    service["spec"]["ports"] = json!([{"name": "tcp-sql", "port": 5432, "protocol": "TCP"}]);
    fixture.put(service);
    let fake = Fake::start(&[("front", CART, true)]).await;
    let operator = fixture.operator(&config(&fake, None, "")).await;
    fixture
        .fence(
            "shop",
            "front",
            json!({"mode": "Exclude", "host": {STOCK: {}}}),
        )
        .await;
    fake.pass(&fixture, 5).await;
    fixture
        .leaves_out("front", &["data/redis", "data/sql", "shop/front"])
        .await;
    fake.connections
        .lock()
        .push(("front", "PassthroughCluster", true));
    fixture
        .leaves_out("front", &["data/redis", "shop/front"])
        .await;
    fake.connections.lock().clear();
    fake.pass(&fixture, 5).await;
    fixture
        .leaves_out("front", &["data/redis", "data/sql", "shop/front"])
        .await;
    operator.stop().await.unwrap();
}
