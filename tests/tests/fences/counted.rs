//! What is called by one name and counted under another: telemetry tells of the service that a route led to.

use serde_json::{Value, json};
use trimtab_crds::fence::{DependencyState, FenceStatus};

use crate::fixture::{Fixture, log, service};
use crate::logs::carried;
use crate::prometheus::Fake;

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

fn route(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": name},
    });
    object["spec"] = spec;
    object
}

fn to_stock() -> Value {
    json!([{"route": [{"destination": {"host": "cart"}, "weight": 0}, {"destination": {"host": "stock"}, "weight": 100}]}])
}

fn is(status: &FenceStatus, host: &str, state: DependencyState) -> bool {
    let mut all = status.dependencies.iter();
    all.any(|d| d.host == host && d.state == state)
}

/// `cart` leads to `stock`, which alone is counted.
async fn stays(objects: &[Value]) {
    let fixture = Fixture::shop();
    for object in objects {
        fixture.put(object.clone());
    }
    let fake = Fake::start(&[("front", STOCK, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    let both = ["shop/cart", "shop/stock"];
    fixture.scope("shop", "front", &both).await;
    fake.pass(&fixture, 10).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &both).await;
    fixture.never_narrowed("shop", "front").await;
    let status = fixture.status("shop", "front").await;
    let active = is(&status, CART, DependencyState::Active);
    assert!(active, "{objects:?}: {:?}", status.dependencies);
    // Nothing is counted any more.
    *fake.calls.lock() = vec![("front", STOCK, false)];
    fake.pass(&fixture, 6).await;
    fixture.scope("shop", "front", &[]).await;
    let expired = |s: &FenceStatus| is(s, CART, DependencyState::Expired);
    fixture
        .status_where("shop", "front", "cart has expired", expired)
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s8_a_host_stays_while_the_one_that_its_route_leads_to_is_counted() {
    stays(&[route(
        "cart",
        json!({"hosts": ["cart"], "http": to_stock()}),
    )])
    .await;
    let delegates = json!({"hosts": ["cart"], "http": [{"delegate": {"name": "rules"}}]});
    let rules = route("rules", json!({"http": to_stock()}));
    stays(&[route("cart", delegates), rules]).await;
}

#[tokio::test]
async fn fault_s8_an_external_name_stays_while_its_target_is_counted() {
    let mut alias = service("shop", "cart");
    alias["spec"] = json!({"type": "ExternalName", "externalName": STOCK, "ports": [{"name": "http", "port": 80}]});
    stays(&[alias]).await;
}

#[tokio::test]
async fn fault_s8_copies_are_no_calls() {
    let fixture = Fixture::shop();
    let copied =
        json!([{"route": [{"destination": {"host": "cart"}}], "mirror": {"host": "stock"}}]);
    fixture.put(route("cart", json!({"hosts": ["cart"], "http": copied})));
    let fake = Fake::start(&[("front", STOCK, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fake.pass(&fixture, 6).await;
    fixture.scope("shop", "front", &["shop/stock"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s8_auto_counts_where_calls_end() {
    let fixture = Fixture::shop();
    fixture.put(route(
        "cart",
        json!({"hosts": ["cart"], "http": to_stock()}),
    ));
    let fake = Fake::start(&[("front", STOCK, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    let auto = json!({"auto": {"duration": {"seconds": 7200}}});
    fixture
        .fence("shop", "front", json!({"host": {CART: auto}}))
        .await;
    let both = ["shop/cart", "shop/stock"];
    fixture.scope("shop", "front", &both).await;
    fake.pass(&fixture, 10).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &both).await;
    fixture.never_narrowed("shop", "front").await;
    *fake.calls.lock() = vec![("front", STOCK, false)];
    fake.pass(&fixture, 6).await;
    fixture.scope("shop", "front", &[]).await;
    operator.stop().await.unwrap();
}
