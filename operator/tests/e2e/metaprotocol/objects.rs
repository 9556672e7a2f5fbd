//! Objects and routes: what is written, what is repaired, what goes, and what is never touched.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use trimtab_crds::istio::{EnvoyFilter, ServiceEntry};
use trimtab_lab::process::wait_until;
use trimtab_metaprotocol::object::Kind;
use trimtab_xds::{ECDS, RDS};

use super::{
    AERAKI, HOST, ROUTES, api, filters_are, load, mesh, operator, quiet, ready, router,
    router_with, service, told, version_not, virtual_services,
};
use crate::support::BOUND;

#[tokio::test]
async fn a_service_and_a_router_become_objects_routes_and_a_status() {
    let embedded = mesh();
    let operator = operator(&embedded, AERAKI).await;
    let names = filters_are(&embedded, 2).await;
    assert!(
        names[0].starts_with("istio-system/aeraki-outbound-orders.shop"),
        "{names:?}"
    );
    assert_eq!(names[1], format!("shop/aeraki-inbound-{HOST}-20880"));
    ready(&operator).await;
    assert_eq!(operator.cache.names(RDS), [ROUTES]);
    let object = told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[
            ("Accepted", "True Accepted"),
            ("ResolvedRefs", "True ResolvedRefs"),
            ("Programmed", "True NoProxies"),
        ],
    )
    .await;
    let status = &object["status"];
    assert_eq!(status["dataPlane"], "Aeraki, Dubbo");
    assert_eq!(status["delivery"], "RouteDiscovery");
    assert_eq!(
        (&status["routes"], &status["observedGeneration"]),
        (&json!(1), &object["metadata"]["generation"])
    );

    // A change of the router is a change of the routes and of no object.
    let applied = || {
        let module = operator.modules.iter().find(|m| m.name == "metaprotocol");
        let counts = module.unwrap().writers().unwrap().counts();
        counts[0]
            .1
            .applied
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let writes = applied();
    let first = version_not(&operator, None).await;
    load(&embedded, router("v2"));
    let second = version_not(&operator, first.as_deref()).await;
    load(&embedded, router("v1"));
    assert_eq!(
        version_not(&operator, second.as_deref()).await,
        first,
        "a version is of the content"
    );
    quiet(&embedded).await;
    assert_eq!(applied(), writes);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn stock_proxies_get_their_filters_and_routes_by_extension_config() {
    let embedded = api();
    load(&embedded, service("orders", "tcp-thrift"));
    load(
        &embedded,
        router_with(
            "orders",
            json!({"hosts": [HOST],
        "routes": [{"match": {"attributes": {"method": {"exact": "ping"}}}, "route": [{"destination": {"host": HOST}}]}]}),
        ),
    );
    let operator = operator(&embedded, "{}").await;
    filters_are(&embedded, 2).await;
    ready(&operator).await;
    let names = operator.cache.names(ECDS);
    assert_eq!(
        names,
        [format!("metaprotocol/thrift_proxy/outbound/{ROUTES}")]
    );
    let object = told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Programmed", "True NoProxies")],
    )
    .await;
    assert_eq!(
        (
            &object["status"]["dataPlane"],
            &object["status"]["delivery"]
        ),
        (&json!("thrift_proxy"), &json!("ECDS"))
    );
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn hand_edits_are_repaired_and_objects_of_others_are_never_touched() {
    let embedded = mesh();
    // A user's own object, and a limiter whose objects have an owner of the same name in the same namespace.
    load(
        &embedded,
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "mine", "namespace": "shop", "labels": {"trimtab.io/owner-name": "orders"}}, "spec": {"configPatches": []}}),
    );
    load(
        &embedded,
        json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"workloadSelector": {"app": "orders"},
            "sets": {"_base": {"descriptor": [{"condition": "true", "action": {"quota": "30", "fill_interval": {"seconds": 1}}}]}}}}),
    );
    let operator = operator(&embedded, AERAKI).await;
    let names = filters_are(&embedded, 4).await;
    quiet(&embedded).await;
    let filters: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "shop");
    let ours = format!("aeraki-inbound-{HOST}-20880");
    let somebody = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    let good = |f: &EnvoyFilter| {
        f.spec.config_patches.len() == 1
            && f.metadata
                .labels
                .iter()
                .flatten()
                .any(|(k, _)| k == "trimtab.io/module")
    };
    for edit in [
        json!({"spec": {"configPatches": []}}),
        json!({"metadata": {"labels": {"trimtab.io/module": null}}}),
        json!({"metadata": {"labels": {"trimtab.io/owner-name": null}}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
    ] {
        filters
            .patch(&ours, &somebody, &Patch::Merge(&edit))
            .await
            .unwrap();
        wait_until(&format!("{edit} is undone"), BOUND, || async {
            let now = filters.get(&ours).await.map_err(|e| e.to_string())?;
            let labels = now.metadata.labels.clone().unwrap_or_default();
            let whole = ["trimtab.io/owner-name", "app.kubernetes.io/managed-by"]
                .iter()
                .all(|l| labels.contains_key(*l));
            if good(&now) && whole {
                Ok(())
            } else {
                Err(format!("{labels:?}"))
            }
        })
        .await
        .unwrap();
    }
    filters
        .delete(&ours, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(filters_are(&embedded, 4).await, names);

    // The limiter goes with its object; ours stay, and then go with the Service. What is not ours stays.
    let limiters: Api<trimtab_crds::limiter::v1alpha2::SmartLimiter> =
        Api::namespaced(embedded.client(), "shop");
    limiters
        .delete("orders", &DeleteParams::default())
        .await
        .unwrap();
    filters_are(&embedded, 3).await;
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(embedded.client(), "shop");
    services
        .delete("orders", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(filters_are(&embedded, 1).await, ["shop/mine"]);
    wait_until("no routes", BOUND, || async {
        let names = operator.cache.names(RDS);
        if names.is_empty() {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await
    .unwrap();
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[
            ("ResolvedRefs", "False UnknownHost"),
            ("Programmed", "False NotInForce"),
        ],
    )
    .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_gateway_gets_a_filter_and_a_virtual_service_that_go_with_the_router() {
    let embedded = mesh();
    load(
        &embedded,
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {"selector": {"istio": "edge"}, "servers": [{"port": {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}, "hosts": ["*"]}]}}),
    );
    let mut bound = router("v1");
    bound["spec"]["gateways"] = json!(["istio-system/edge"]);
    let operator = operator(&embedded, AERAKI).await;
    filters_are(&embedded, 2).await;
    load(&embedded, bound.clone());
    filters_are(&embedded, 3).await;
    wait_until("a VirtualService", BOUND, || async {
        let list = virtual_services(&embedded).await;
        let found = list
            .first()
            .is_some_and(|v| v.spec.hosts == [HOST] && !v.spec.tcp.is_empty());
        if found {
            Ok(())
        } else {
            Err(format!("{list:?}"))
        }
    })
    .await
    .unwrap();
    // Another port at the gateway: an event of the Gateway alone.
    load(
        &embedded,
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {"selector": {"istio": "edge"}, "servers": [{"port": {"number": 20880, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]}}),
    );
    filters_are(&embedded, 2).await;
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("ResolvedRefs", "False NoServer")],
    )
    .await;
    wait_until("no VirtualService", BOUND, || async {
        let list = virtual_services(&embedded).await;
        if list.is_empty() {
            Ok(())
        } else {
            Err(format!("{list:?}"))
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

fn entry(name: &str, host: &str, addresses: &[&str]) -> serde_json::Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [host], "addresses": addresses, "resolution": "DNS", "ports": [{"number": 7000, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}]}})
}

#[tokio::test]
async fn entries_get_addresses_that_stay() {
    let embedded = api();
    load(&embedded, entry("a", "a.example.com", &[]));
    load(&embedded, entry("mine", "b.example.com", &["192.0.2.1"]));
    let text =
        "metaprotocol: {dataPlane: Aeraki, vips: {v4: 240.241.0.0/24, v6: 'fd00:7472::/64'}}";
    let operator = operator(&embedded, text).await;
    let entries: Api<ServiceEntry> = Api::namespaced(embedded.client(), "shop");
    let given = |name: &'static str, count: usize| {
        let entries = entries.clone();
        wait_until("addresses", BOUND, move || {
            let entries = entries.clone();
            async move {
                let found = entries
                    .get(name)
                    .await
                    .map_err(|e| e.to_string())?
                    .spec
                    .addresses;
                if found.len() == count {
                    Ok(found)
                } else {
                    Err(format!("{found:?}"))
                }
            }
        })
    };
    let first = given("a", 2).await.unwrap();
    assert!(
        first[0].starts_with("240.241.0.") && first[1].starts_with("fd00:7472::"),
        "{first:?}"
    );
    load(&embedded, entry("c", "c.example.com", &[]));
    let second = given("c", 2).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(given("mine", 1).await.unwrap(), ["192.0.2.1"]);
    // One object for each address of each entry.
    filters_are(&embedded, 5).await;
    operator.stop().await.unwrap();

    let writes = quiet(&embedded).await;
    let operator = super::operator(&embedded, text).await;
    ready(&operator).await;
    assert_eq!(
        quiet(&embedded).await,
        writes,
        "a restart changes no address"
    );
    operator.stop().await.unwrap();
}
