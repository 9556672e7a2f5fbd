//! The rows of "what happens for ...": kinds of services, callers and calls.

use kube::Api;
use serde_json::{Value, json};
use trimtab_crds::fence::DependencyState;
use trimtab_crds::istio::{EnvoyFilter, Sidecar};

use crate::fixture::{Fixture, PLAIN, entry, log, reason_of, service};
use crate::logs::{carried, connection, from_address};

const DEFAULT: &str = "{fallback: {enabled: false}, fences: {autoFence: true, defaultFence: true}}";

async fn fenced(
    fixture: &Fixture,
    messages: Vec<envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage>,
) {
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    log(&operator, messages).await;
    fixture.settle().await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_without_selector_gets_no_fence() {
    let fixture = Fixture::new();
    let mut bare = service("shop", "bare");
    bare["spec"]["selector"] = Value::Null;
    fixture.put(bare);
    let mut alias = service("shop", "alias");
    alias["spec"]["type"] = json!("ExternalName");
    alias["spec"]["externalName"] = json!("api.example.com");
    fixture.put(alias);
    fixture.service("shop", "front");
    let operator = fixture.operator(DEFAULT).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    fixture.settle().await;
    assert!(fixture.fence_of("shop", "bare").await.is_none());
    assert!(fixture.fence_of("shop", "alias").await.is_none());
    operator.stop().await.unwrap();
}

fn headless(name: &str) -> Value {
    let mut object = service("data", name);
    object["spec"]["clusterIP"] = json!("None");
    object["spec"]["ports"] = json!([{"name": "tcp-db", "port": 5432, "protocol": "TCP"}]);
    object
}

#[tokio::test]
async fn a_headless_service_is_learned_by_name_by_pod_name_and_by_pod_address() {
    for message in [
        carried("shop", "front-1", &["db.data:5432"]),
        carried("shop", "front-1", &["db-0.db.data.svc.cluster.local:5432"]),
        carried("shop", "front-1", &["10.0.0.8:5432"]),
        connection("shop", "front-1", "10.0.0.8:5432"),
    ] {
        let fixture = Fixture::shop();
        fixture.put(headless("db"));
        fixture.endpoints("data", "db", &["10.0.0.8"]);
        fenced(&fixture, vec![message]).await;
        fixture.scope("shop", "front", &["data/db"]).await;
    }
}

#[tokio::test]
async fn external_names_bring_what_they_stand_for_and_other_domains_nothing() {
    let fixture = Fixture::shop();
    let mut alias = service("shop", "api");
    alias["spec"] = json!({"type": "ExternalName", "externalName": "redis.data.svc.cluster.local"});
    fixture.put(alias);
    fenced(
        &fixture,
        vec![carried("shop", "front-1", &["api", "www.example.com"])],
    )
    .await;
    fixture
        .scope(
            "shop",
            "front",
            &["data/api.shop.svc.cluster.local", "data/redis"],
        )
        .await;
    let status = fixture.status("shop", "front").await;
    let outside = status
        .dependencies
        .iter()
        .find(|d| d.host == "www.example.com");
    assert_eq!(outside.unwrap().state, DependencyState::Unresolved);
}

#[tokio::test]
async fn a_call_by_address_is_learned() {
    let fixture = Fixture::shop();
    let mut cart = service("shop", "cart");
    cart["spec"]["clusterIP"] = json!("10.96.0.2");
    fixture.put(cart);
    fenced(
        &fixture,
        vec![carried("shop", "front-1", &["10.96.0.2:80"])],
    )
    .await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
}

#[tokio::test]
async fn hosts_of_service_entries_are_learned_with_their_namespace() {
    let fixture = Fixture::shop();
    let external = |name: &str, host: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"namespace": "egress", "name": name},
            "spec": {"hosts": [host], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"},
        })
    };
    fixture.apply(external("api", "api.example.com")).await;
    fixture.apply(external("wild", "*.example.org")).await;
    fenced(
        &fixture,
        vec![carried(
            "shop",
            "front-1",
            &["api.example.com", "a.example.org"],
        )],
    )
    .await;
    fixture
        .scope(
            "shop",
            "front",
            &["egress/api.example.com", "egress/*.example.org"],
        )
        .await;
}

#[tokio::test]
async fn an_entry_that_comes_after_the_call_is_imported() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(
        &operator,
        vec![carried(
            "shop",
            "front-1",
            &["api.example.com", "later.data"],
        )],
    )
    .await;
    fixture.settle().await;
    fixture.scope("shop", "front", &[]).await;
    fixture
        .apply(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"namespace": "shop", "name": "api"},
            "spec": {"hosts": ["api.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]},
        }))
        .await;
    fixture
        .scope("shop", "front", &["shop/api.example.com"])
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn several_services_on_one_workload_have_one_sidecar() {
    let fixture = Fixture::shop();
    let mut admin = service("shop", "front-admin");
    admin["spec"]["selector"] = json!({"app": "front"});
    fixture.put(admin);
    let operator = fixture.operator(DEFAULT).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    log(&operator, vec![carried("shop", "front-1", &["redis.data"])]).await;
    let one = |name: &'static str| {
        let fixture = &fixture;
        async move {
            fixture
                .status_where("shop", name, "a word", |s| {
                    !reason_of(s, "Programmed").is_empty()
                })
                .await
        }
    };
    let mut reasons = [
        reason_of(&one("front").await, "Programmed").to_owned(),
        String::new(),
    ];
    reason_of(&one("front-admin").await, "Programmed").clone_into(&mut reasons[1]);
    reasons.sort();
    assert_eq!(reasons, ["Merged", "Programmed"]);
    let sidecars: Api<Sidecar> = Api::namespaced(fixture.api.client(), "shop");
    let what = "one Sidecar with redis for the pods of both";
    trimtab_lab::process::wait_until(what, crate::fixture::BOUND, || async {
        let all = sidecars.list(&<_>::default()).await.unwrap().items;
        let app = |s: &Sidecar| {
            s.spec.workload_selector.clone().unwrap_or_default().labels["app"].clone()
        };
        let of_front: Vec<_> = all.iter().filter(|s| app(s) == "front").collect();
        let good = of_front.len() == 1
            && crate::history::hosts(of_front[0]).contains(&entry("data/redis"));
        good.then_some(()).ok_or(format!("{of_front:?}"))
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_http_here_and_tcp_there_is_taken_over_for_http_alone() {
    let fixture = Fixture::shop();
    fixture.fallback(true);
    let on = |name: &str, kind: &str| {
        let mut object = service("shop", name);
        object["spec"]["ports"] = json!([{"name": kind, "port": 9000, "protocol": "TCP"}]);
        object
    };
    fixture.put(on("cart", "http-web"));
    fixture.put(on("stock", "tcp-raw"));
    let operator = fixture.operator("{}").await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let filters: Api<EnvoyFilter> = Api::namespaced(fixture.api.client(), "istio-system");
    let filter = filters.get("to-global-sidecar").await.unwrap();
    let patches = &filter.spec.config_patches;
    let of_port = |p: &&Value| p.to_string().contains("\"9000\"");
    assert!(patches.iter().filter(of_port).count() > 0);
    for patch in patches.iter().filter(of_port) {
        let kind = patch["applyTo"].as_str().unwrap();
        assert!(
            ["VIRTUAL_HOST", "HTTP_ROUTE", "ROUTE_CONFIGURATION"].contains(&kind),
            "{patch}"
        );
    }
    let lines = [
        carried("shop", "front-1", &["cart:9000"]),
        connection("shop", "front-1", "10.0.0.3:9000"),
    ];
    log(&operator, lines.into()).await;
    let hosts = [entry("shop/cart"), entry("shop/stock")];
    fixture
        .hosts_where("shop", "front", "both", |found| {
            hosts.iter().all(|h| found.contains(h))
        })
        .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_source_of_this_cluster_may_call_any_name() {
    // Services of another cluster on the same network have names here too, and their callers addresses of pods there.
    let fixture = Fixture::shop();
    fenced(
        &fixture,
        vec![
            from_address("10.0.0.1:1", "redis.data"),
            from_address("10.7.0.1:1", "cart"),
        ],
    )
    .await;
    fixture.scope("shop", "front", &["data/redis"]).await;
}

#[tokio::test]
async fn without_fences_nothing_of_ours_is_left() {
    let fixture = Fixture::shop();
    let operator = fixture.operator(PLAIN).await;
    for name in ["front", "cart", "stock"] {
        fixture.fence("shop", name, json!({})).await;
        fixture
            .condition("shop", name, "Programmed", "Programmed")
            .await;
    }
    for name in ["front", "cart", "stock"] {
        fixture.delete_fence("shop", name).await;
        fixture.no_sidecar("shop", name).await;
    }
    fixture.settle().await;
    let sidecars: Api<Sidecar> = Api::namespaced(fixture.api.client(), "shop");
    assert!(
        sidecars
            .list(&<_>::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    operator.stop().await.unwrap();
}

/// Waits for the hosts of the learned `cart`, and for what istiod will make of the Sidecar.
async fn leads_to(fixture: &Fixture, hosts: &[&str]) {
    let full = |h: &&str| format!("{h}.svc.cluster.local");
    let wanted: Vec<String> = hosts.iter().map(full).collect();
    let what = format!("cart leads to {wanted:?}");
    let services = i64::try_from(hosts.len()).unwrap();
    fixture
        .status_where("shop", "front", &what, |s| {
            let domain = s.domains.get("cart.shop.svc.cluster.local");
            domain.is_some_and(|d| d.hosts == wanted)
                && s.scope.as_ref().is_some_and(|s| s.services == services)
        })
        .await;
}

#[tokio::test]
async fn routes_of_what_was_called_are_imported_and_bring_their_destinations() {
    let fixture = Fixture::shop();
    let route = |namespace: &str, to: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"namespace": namespace, "name": "cart"},
            "spec": {"hosts": ["cart.shop.svc.cluster.local"], "http": [{"route": [{"destination": {"host": to}}]}]},
        })
    };
    fixture
        .apply(route("shop", "redis.data.svc.cluster.local"))
        .await;
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    log(&operator, vec![carried("shop", "front-1", &["cart"])]).await;
    leads_to(&fixture, &["cart.shop", "redis.data"]).await;
    // The service that is called brings its VirtualService, and that its destinations: istiod sees to it.
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.apply(route("shop", "stock")).await;
    leads_to(&fixture, &["cart.shop", "stock.shop"]).await;
    // A VirtualService elsewhere needs an entry of its own namespace.
    fixture
        .delete("networking.istio.io/v1", "VirtualService", "shop", "cart")
        .await;
    leads_to(&fixture, &["cart.shop"]).await;
    fixture
        .apply(route("data", "redis.data.svc.cluster.local"))
        .await;
    let both = ["shop/cart", "data/cart.shop.svc.cluster.local"];
    fixture.scope("shop", "front", &both).await;
    leads_to(&fixture, &["cart.shop", "redis.data"]).await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn sidecars_stay_when_trimtab_goes_and_leave_with_their_fence() {
    let fixture = Fixture::shop();
    fenced(&fixture, vec![carried("shop", "front-1", &["cart"])]).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.never_narrowed("shop", "front").await;
    // Nobody runs: the owner reference does it.
    fixture.delete_fence("shop", "front").await;
    fixture.no_sidecar("shop", "front").await;
}
