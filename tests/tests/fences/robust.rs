//! Faults: nothing of them narrows a scope.

use broken::unfinished;
use serde_json::json;
use trimtab_embedded::Filter;

use crate::logs::carried;
use crate::stand::{GRACE, PLAIN, Stand, entry, log};

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
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    let server = operator.listeners["lazyload.learn.accessLog.address"];
    let done = stand.scope("shop", "front", &["shop/cart"]);
    unfinished(server, carried("shop", "front-1", &["cart"]), done).await;
    let done = stand.scope("shop", "front", &["shop/cart", "shop/stock"]);
    unfinished(server, carried("shop", "front-1", &["stock"]), done).await;
    stand.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_between_learning_and_writing_loses_no_scope() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    // The status is written, the Sidecar is not.
    let sidecars = Filter::any().resource("sidecars").verb("patch");
    stand.api.faults().fail_next(sidecars, 1000, 500);
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand
        .status_where("shop", "front", "stock is in the status", |s| {
            s.dependencies.len() == 2
        })
        .await;
    operator.stop().await.unwrap();
    stand.api.faults().clear();
    let again = stand.operator(PLAIN).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    again.stop().await.unwrap();
    // Neither is written: it is learned anew with the next call, and what was there stays.
    let again = stand.operator(PLAIN).await;
    let all = Filter::any().verb("patch");
    stand.api.faults().fail_next(all, 1000, 500);
    log(&again, vec![carried("shop", "front-1", &["redis.data"])]).await;
    again.stop().await.unwrap();
    stand.api.faults().clear();
    let again = stand.operator(PLAIN).await;
    stand.settle().await;
    log(&again, vec![carried("shop", "front-1", &["redis.data"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
        .await;
    stand.never_narrowed("shop", "front").await;
    again.stop().await.unwrap();
}

#[tokio::test]
async fn clocks_that_jump_by_years_narrow_nothing() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence("shop", "front", json!({"host": {"redis.data": {}}}))
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    let years = 10 * 365 * 24;
    for hours in [years, -2 * years, years] {
        stand.clock.jump(hours);
        stand.settle().await;
        log(
            &operator,
            vec![carried("shop", "front-1", &["cart", "stock"])],
        )
        .await;
        stand
            .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
            .await;
    }
    operator.stop().await.unwrap();
    for hours in [years, -2 * years, years] {
        stand.clock.jump(hours);
        let operator = stand.operator(PLAIN).await;
        stand.settle().await;
        stand
            .scope("shop", "front", &["shop/cart", "shop/stock", "data/redis"])
            .await;
        operator.stop().await.unwrap();
    }
    stand.never_narrowed("shop", "front").await;
}

#[tokio::test]
async fn a_service_that_is_deleted_and_made_again_changes_nothing() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand
        .fence(
            "shop",
            "front",
            json!({"host": {"redis.data.svc.cluster.local": {}}}),
        )
        .await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "data/redis"])
        .await;
    let sidecars = stand.sidecars.of("shop", "front").len();
    for (namespace, name) in [("shop", "cart"), ("data", "redis"), ("shop", "front")] {
        stand.delete("v1", "Service", namespace, name).await;
        stand.settle().await;
        stand.service(namespace, name);
        stand.settle().await;
    }
    stand.caught_up().await;
    assert_eq!(stand.sidecars.of("shop", "front").len(), sidecars);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn an_api_server_in_trouble_delays_and_loses_nothing() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    stand.scope("shop", "front", &[]).await;
    let patch = |plural: &str| Filter::any().resource(plural).verb("patch");
    for code in [409, 429, 500, 503] {
        stand.api.faults().fail_next(patch("sidecars"), 1, code);
        stand
            .api
            .faults()
            .fail_next(patch("servicefences"), 1, code);
    }
    stand.api.faults().lose_next(patch("sidecars"), 1);
    stand.api.faults().lose_next(patch("servicefences"), 1);
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    // Watches that end, and histories that are gone.
    for plural in ["services", "pods", "servicefences", "endpointslices"] {
        stand
            .api
            .faults()
            .drop_watches(Filter::any().resource(plural));
        stand.api.expire_history(plural);
    }
    log(&operator, vec![carried("shop", "front-1", &["stock"])]).await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand
        .status_where("shop", "front", "both", |s| s.dependencies.len() == 2)
        .await;
    stand.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_write_that_fails_shows_in_the_status_until_it_succeeds() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    let patch = Filter::any().resource("sidecars").verb("patch");
    stand.api.faults().fail_next(patch, 10_000, 403);
    stand.fence("shop", "front", json!({})).await;
    stand
        .condition("shop", "front", "Programmed", "Forbidden")
        .await;
    stand.api.faults().clear();
    stand
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_status_that_is_wiped_is_written_again() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    log(
        &operator,
        vec![carried("shop", "front-1", &["cart", "stock"])],
    )
    .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    let full = stand
        .status_where("shop", "front", "both", |s| s.dependencies.len() == 2)
        .await;
    let mut half = serde_json::to_value(&full).unwrap();
    half["dependencies"].as_array_mut().unwrap().pop();
    let mut bare = serde_json::to_value(&full).unwrap();
    bare["conditions"] = json!([]);
    for status in [json!({}), half, bare] {
        stand.set_status("shop", "front", status).await;
        stand
            .status_where("shop", "front", "it is whole again", |s| {
                s.dependencies == full.dependencies
                    && s.conditions.len() == 3
                    && s.domains == full.domains
            })
            .await;
    }
    stand.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_status_that_is_wiped_while_nobody_looks_narrows_nothing_before_the_grace() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    log(
        &operator,
        vec![carried("shop", "front-1", &["cart", "stock"])],
    )
    .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    operator.stop().await.unwrap();
    stand.set_status("shop", "front", json!({})).await;
    let operator = stand.operator(PLAIN).await;
    stand.settle().await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    // A call within the grace keeps it; so does another restart keep what is left.
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand
        .status_where("shop", "front", "cart is learned again", |s| {
            s.dependencies.len() == 1
        })
        .await;
    stand
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    stand.never_narrowed("shop", "front").await;
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn sidecars_of_slime_are_taken_over_without_a_gap() {
    let stand = Stand::shop();
    stand.fence("shop", "front", json!({})).await;
    let fence = stand.fence_of("shop", "front").await.unwrap();
    let hosts = [
        "*/cart.shop.svc.cluster.local",
        "*/stock.shop.svc.cluster.local",
        "istio-system/*",
        "mesh-operator/*",
    ];
    stand
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
    stand.set_status("shop", "front", learned).await;
    let operator = stand.operator(PLAIN).await;
    stand
        .hosts_where("shop", "front", "ours", |h| h.contains(&entry("shop/cart")))
        .await;
    stand.settle().await;
    let now = crate::history::hosts(&stand.sidecar("shop", "front").await.unwrap());
    assert!(
        now.contains(hosts[1]),
        "nobody names it, so it stays for the grace: {now:?}"
    );
    assert!(
        !now.contains(hosts[0]),
        "the exact entry stands for it: {now:?}"
    );
    stand.clock.advance(GRACE);
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fence_that_is_made_again_knows_what_its_workload_calls() {
    let stand = Stand::shop();
    let operator = stand.operator(PLAIN).await;
    stand.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    stand.delete_fence("shop", "front").await;
    stand.no_sidecar("shop", "front").await;
    stand.fence("shop", "front", json!({})).await;
    stand.scope("shop", "front", &["shop/cart"]).await;
    operator.stop().await.unwrap();
}
