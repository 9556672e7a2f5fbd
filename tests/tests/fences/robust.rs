//! Faults: nothing of them narrows a scope.

use broken::unfinished;
use serde_json::json;
use trimtab_embedded::Filter;

use crate::fixture::{Fixture, GRACE, PLAIN, entry, log};
use crate::logs::carried;

mod broken {
    //! A stream that says something and then breaks off.

    use std::net::SocketAddr;

    use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
    use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
    use futures::StreamExt;

    /// Sends a message, and resets the stream once `done` resolves.
    pub(super) async fn unfinished(
        server: SocketAddr,
        message: StreamAccessLogsMessage,
        done: impl Future<Output = ()>,
    ) {
        let mut client = AccessLogServiceClient::connect(format!("http://{server}"))
            .await
            .unwrap();
        let forever = futures::stream::iter([message]).chain(futures::stream::pending());
        tokio::select! {
            answer = client.stream_access_logs(forever) => panic!("{answer:?}"),
            () = done => {}
        }
    }
}

#[tokio::test]
async fn a_log_stream_that_is_reset_has_taught_what_it_said() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    let server = operator.listeners["lazyload.learn.accessLog.address"];
    let done = fixture.scope("shop", "front", &["shop/cart"]);
    unfinished(server, carried("shop", "front-1", &["cart"]), done).await;
    let done = fixture.scope("shop", "front", &["shop/cart", "shop/stock"]);
    unfinished(server, carried("shop", "front-1", &["stock"]), done).await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_between_learning_and_writing_loses_no_scope() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    // The status is written, the Sidecar is not.
    let sidecars = Filter::any().resource("sidecars").verb("patch");
    fixture.api.faults().fail_next(sidecars, 1000, 500);
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .status_where("shop", "front", "stock is in the status", |s| {
            s.dependencies.len() == 2
        })
        .await;
    operator.stop().await.unwrap();
    fixture.api.faults().clear();
    let again = fixture.operator(PLAIN).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    again.stop().await.unwrap();
    // Neither is written: it is learned anew with the next call, and what was there stays.
    let again = fixture.operator(PLAIN).await;
    let all = Filter::any().verb("patch");
    fixture.api.faults().fail_next(all, 1000, 500);
    log(&again, vec![carried("shop", "front-1", &["redis.data"])]).await;
    again.stop().await.unwrap();
    fixture.api.faults().clear();
    let again = fixture.operator(PLAIN).await;
    fixture.settle().await;
    log(&again, vec![carried("shop", "front-1", &["redis.data"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    again.stop().await.unwrap();
}

#[tokio::test]
async fn clocks_that_jump_by_years_narrow_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence("shop", "front", json!({"host": {"redis.data": {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    let years = 10 * 365 * 24;
    for hours in [years, -2 * years, years] {
        fixture.clock.jump(hours);
        fixture.settle().await;
        log(
            &operator,
            vec![carried("shop", "front-1", &["cart", "stock"])],
        )
        .await;
        fixture
            .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
            .await;
    }
    operator.stop().await.unwrap();
    for hours in [years, -2 * years, years] {
        fixture.clock.jump(hours);
        let operator = fixture.operator(PLAIN).await;
        fixture.settle().await;
        fixture
            .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
            .await;
        operator.stop().await.unwrap();
    }
    fixture.never_narrowed("shop", "front").await;
}

#[tokio::test]
async fn a_service_that_is_deleted_and_made_again_changes_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture
        .fence(
            "shop",
            "front",
            json!({"host": {"redis.data.svc.cluster.local": {}}}),
        )
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    let sidecars = fixture.sidecars.of("shop", "front").len();
    for (namespace, name) in [("shop", "cart"), ("data", "redis"), ("shop", "front")] {
        fixture.delete("v1", "Service", namespace, name).await;
        fixture.settle().await;
        fixture.service(namespace, name);
        fixture.settle().await;
    }
    fixture.caught_up().await;
    assert_eq!(fixture.sidecars.of("shop", "front").len(), sidecars);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn an_api_server_in_trouble_delays_and_loses_nothing() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &[]).await;
    let patch = |plural: &str| Filter::any().resource(plural).verb("patch");
    for code in [409, 429, 500, 503] {
        fixture.api.faults().fail_next(patch("sidecars"), 1, code);
        fixture
            .api
            .faults()
            .fail_next(patch("servicefences"), 1, code);
    }
    fixture.api.faults().lose_next(patch("sidecars"), 1);
    fixture.api.faults().lose_next(patch("servicefences"), 1);
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    // Watches that end, and histories that are gone.
    for plural in ["services", "pods", "servicefences", "endpointslices"] {
        fixture
            .api
            .faults()
            .drop_watches(Filter::any().resource(plural));
        fixture.api.expire_history(plural);
    }
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture
        .status_where("shop", "front", "both", |s| s.dependencies.len() == 2)
        .await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_write_that_fails_shows_in_the_status_until_it_succeeds() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    let patch = Filter::any().resource("sidecars").verb("patch");
    fixture.api.faults().fail_next(patch, 10_000, 403);
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Forbidden")
        .await;
    fixture.api.faults().clear();
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_status_that_is_wiped_is_written_again() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(
        &operator,
        vec![carried("shop", "front-1", &["cart", "stock"])],
    )
    .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let full = fixture
        .status_where("shop", "front", "both", |s| s.dependencies.len() == 2)
        .await;
    let mut half = serde_json::to_value(&full).unwrap();
    half["dependencies"].as_array_mut().unwrap().pop();
    let mut bare = serde_json::to_value(&full).unwrap();
    bare["conditions"] = json!([]);
    for status in [json!({}), half, bare] {
        fixture.set_status("shop", "front", status).await;
        fixture
            .status_where("shop", "front", "it is whole again", |s| {
                s.dependencies == full.dependencies
                    && s.conditions.len() == 4
                    && s.domains == full.domains
            })
            .await;
    }
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_status_that_is_wiped_while_nobody_looks_narrows_nothing_before_the_grace() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(
        &operator,
        vec![carried("shop", "front-1", &["cart", "stock"])],
    )
    .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
    fixture.set_status("shop", "front", json!({})).await;
    let operator = fixture.operator(PLAIN).await;
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    // A call within the grace keeps it; so does another restart keep what is left.
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture
        .status_where("shop", "front", "cart is learned again", |s| {
            s.dependencies.len() == 1
        })
        .await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn sidecars_of_slime_are_taken_over_without_a_gap() {
    let fixture = Fixture::shop();
    fixture.fence("shop", "front", json!({})).await;
    let fence = fixture.fence_of("shop", "front").await.unwrap();
    let hosts = [
        "*/cart.shop.svc.cluster.local",
        "*/stock.shop.svc.cluster.local",
        "istio-system/*",
        "mesh-operator/*",
    ];
    fixture
        .apply(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"namespace": "shop", "name": "front", "ownerReferences": [{
                "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence", "name": "front",
                "uid": fence.metadata.uid, "controller": true, "blockOwnerDeletion": true,
            }]},
            "spec": {"workloadSelector": {"labels": {"app": "front"}}, "egress": [{"hosts": hosts}]},
        }))
        .await;
    let learned =
        json!({"metricStatus": {"{destination_service=\"cart.shop.svc.cluster.local\"}": "3"}});
    fixture.set_status("shop", "front", learned).await;
    let operator = fixture.operator(PLAIN).await;
    fixture
        .hosts_where("shop", "front", "ours", |h| h.contains(&entry("shop/cart")))
        .await;
    fixture.settle().await;
    let now = crate::history::hosts(&fixture.sidecar("shop", "front").await.unwrap());
    assert!(
        now.contains(hosts[1]),
        "nobody names it, so it stays for the grace: {now:?}"
    );
    assert!(
        !now.contains(hosts[0]),
        "the exact entry stands for it: {now:?}"
    );
    fixture.clock.advance(GRACE);
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fence_that_is_made_again_knows_what_its_workload_calls() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.delete_fence("shop", "front").await;
    fixture.no_sidecar("shop", "front").await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}
