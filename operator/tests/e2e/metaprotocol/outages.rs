//! Restarts, replicas and an API server that fails: nothing is lost, and nothing is written twice.

use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use trimtab_crds::istio::ServiceEntry;
use trimtab_embedded::Filter;
use trimtab_lab::process::wait_until;
use trimtab_metaprotocol::object::Kind;
use trimtab_xds::RDS;

use super::{
    AERAKI, HOST, ROUTES, api, condition, filters, filters_are, get, load, mesh, operator, quiet,
    ready, router, router_with, told, version_not,
};
use crate::support::BOUND;

/// A route that no proxy could follow.
fn bad() -> serde_json::Value {
    router_with(
        "orders",
        json!({"hosts": [HOST], "routes": [
        {"match": {"attributes": {"method": {"regex": "("}}}, "route": [{"destination": {"host": HOST, "subset": "v2"}}]}]}),
    )
}

#[tokio::test]
async fn a_restart_writes_nothing_and_replicas_have_the_same_versions() {
    let embedded = mesh();
    let first = operator(&embedded, AERAKI).await;
    filters_are(&embedded, 2).await;
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Programmed", "True NoProxies")],
    )
    .await;
    let version = version_not(&first, None).await;
    let writes = quiet(&embedded).await;
    let second = operator(&embedded, AERAKI).await;
    ready(&second).await;
    assert_eq!(version_not(&second, None).await, version);
    assert_eq!(
        quiet(&embedded).await,
        writes,
        "a second replica has nothing to write"
    );
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    let third = operator(&embedded, AERAKI).await;
    ready(&third).await;
    assert_eq!(version_not(&third, None).await, version);
    assert_eq!(quiet(&embedded).await, writes, "a restart wrote");
    third.stop().await.unwrap();
}

#[tokio::test]
async fn a_bad_router_keeps_the_last_good_routes_and_is_told_so() {
    let embedded = mesh();
    let operator = operator(&embedded, AERAKI).await;
    let good = version_not(&operator, None).await;
    load(&embedded, bad());
    let object = told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[
            ("Accepted", "False InvalidRegex"),
            ("Programmed", "False InvalidRegex"),
        ],
    )
    .await;
    assert!(
        condition(&object, "Programmed")
            .1
            .contains("last good routes stay"),
        "{object}"
    );
    assert_eq!(object["status"]["routes"], 1);
    assert_eq!(
        operator.cache.get(RDS, ROUTES).map(|r| r.version.clone()),
        good
    );
    filters_are(&embedded, 2).await;

    // After a restart nobody knows the good routes: nothing is served in their place, and the objects stay.
    operator.stop().await.unwrap();
    let writes = quiet(&embedded).await;
    let operator = super::operator(&embedded, AERAKI).await;
    ready(&operator).await;
    let object = told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Accepted", "False InvalidRegex")],
    )
    .await;
    filters_are(&embedded, 2).await;
    assert_eq!(operator.cache.get(RDS, ROUTES), None, "{object}");
    assert!(
        quiet(&embedded).await <= writes + 1,
        "no more than the status"
    );
    load(&embedded, router("v1"));
    assert_eq!(version_not(&operator, None).await, good);
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[
            ("Accepted", "True Accepted"),
            ("Programmed", "True NoProxies"),
        ],
    )
    .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_goes_while_the_api_server_fails() {
    let embedded = mesh();
    let operator = operator(&embedded, AERAKI).await;
    let names = filters_are(&embedded, 2).await;
    let version = version_not(&operator, None).await;
    quiet(&embedded).await;
    for kind in ["services", "metarouters", "destinationrules"] {
        for verb in ["list", "watch"] {
            let filter = Filter::any().verb(verb).resource(kind);
            embedded.faults().fail_next(filter, 40, 503);
        }
        embedded.faults().drop_watches(Filter::any().resource(kind));
    }
    // Changes come through once it answers again; until then everything is as it was.
    load(&embedded, router("v2"));
    assert_eq!(filters(&embedded).await, names);
    embedded.faults().clear();
    assert_ne!(version_not(&operator, version.as_deref()).await, None);
    assert_eq!(filters(&embedded).await, names);

    // Writes that fail are tried again, and the status tells.
    embedded
        .faults()
        .fail_next(Filter::any().verb("patch").resource("envoyfilters"), 3, 500);
    load(&embedded, super::service("carts", "tcp-metaprotocol-dubbo"));
    filters_are(&embedded, 4).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn objects_of_an_owner_go_only_when_its_kind_was_listed() {
    let embedded = api();
    load(
        &embedded,
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "out", "namespace": "shop"},
        "spec": {"hosts": ["out.example.com"], "addresses": ["192.0.2.7"], "resolution": "DNS", "ports": [{"number": 7000, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}]}}),
    );
    let first = operator(&embedded, AERAKI).await;
    let names = filters_are(&embedded, 1).await;
    first.stop().await.unwrap();
    // The API of ServiceEntries is not there when the next one starts: that is no reason to take anything away.
    embedded.faults().fail_next(
        Filter::any().verb("list").resource("serviceentries"),
        1,
        404,
    );
    let second = operator(&embedded, AERAKI).await;
    ready(&second).await;
    quiet(&embedded).await;
    assert_eq!(filters(&embedded).await, names);
    second.stop().await.unwrap();
    // Deleted while nobody looked: gone after the next list.
    let entries: Api<ServiceEntry> = Api::namespaced(embedded.client(), "shop");
    entries
        .delete("out", &DeleteParams::default())
        .await
        .unwrap();
    let third = operator(&embedded, AERAKI).await;
    filters_are(&embedded, 0).await;
    third.stop().await.unwrap();
}

#[tokio::test]
async fn switched_off_it_does_nothing() {
    let embedded = mesh();
    let operator = operator(&embedded, "metaprotocol: {enabled: false}").await;
    ready(&operator).await;
    wait_until("the xDS server is open", BOUND, || async {
        if operator.cache.is_ready() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await
    .unwrap();
    assert!(filters(&embedded).await.is_empty());
    let object = get(&embedded, Kind::MetaRouter, "orders").await;
    assert_eq!(object.get("status"), None);
    assert!(operator.modules.iter().all(|m| m.name != "metaprotocol"));
    operator.stop().await.unwrap();
}
