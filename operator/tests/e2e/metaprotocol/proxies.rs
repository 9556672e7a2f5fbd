//! Real Envoys at the operator's xDS server. The routes of Aeraki's proxies travel as HTTP route configurations, so that
//! an HTTP connection manager follows them: attributes are headers there.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use trimtab::operator::Operator;
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;
use trimtab_metaprotocol::object::Kind;

use super::{AERAKI, HOST, ROUTES, condition, load, mesh, operator, router, router_with, told};
use crate::support::{BOUND, folder};

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let mut out = json!({"name": name, "type": "STATIC", "loadAssignment": {"clusterName": name, "endpoints": [{"lbEndpoints": [
        {"endpoint": {"address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}}}}]}]}});
    if http2 {
        out["typedExtensionProtocolOptions"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": {"http2ProtocolOptions": {}}}});
    }
    out
}

/// A proxy with a port whose routes are those of the router, and two ports that say which subset they are.
fn bootstrap(xds: SocketAddr, listen: SocketAddr, admin: SocketAddr, delta: bool) -> Value {
    let (one, two) = (free_address().unwrap(), free_address().unwrap());
    let address = |a: SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let manager = |routes: Value| {
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": "in",
            "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        manager
            .as_object_mut()
            .unwrap()
            .extend(routes.as_object().unwrap().clone());
        json!([{"filters": [{"name": "http", "typedConfig": manager}]}])
    };
    let says = |word: &str| {
        json!({"routeConfig": {"virtualHosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "directResponse": {"status": 200, "body": {"inlineString": word}}}]}]}})
    };
    let api_type = if delta { "DELTA_GRPC" } else { "GRPC" };
    let rds = json!({"rds": {"routeConfigName": ROUTES, "configSource": {"resourceApiVersion": "V3", "apiConfigSource": {
        "apiType": api_type, "transportApiVersion": "V3", "grpcServices": [{"envoyGrpc": {"clusterName": "xds"}}]}}}});
    json!({
        "node": {"id": "orders-caller.shop", "cluster": "shop"},
        "admin": {"address": address(admin)},
        "staticResources": {
            "listeners": [
                {"name": "in", "address": address(listen), "filterChains": manager(rds)},
                {"name": "one", "address": address(one), "filterChains": manager(says("v1"))},
                {"name": "two", "address": address(two), "filterChains": manager(says("v2"))},
            ],
            "clusters": [
                cluster("xds", xds, true),
                cluster(&format!("outbound|20880|v1|{HOST}"), one, false),
                cluster(&format!("outbound|20880|v2|{HOST}"), two, false),
            ],
        },
    })
}

async fn start(xds: SocketAddr, dir: &Path, delta: bool) -> (Envoy, SocketAddr) {
    let (listen, admin) = (free_address().unwrap(), free_address().unwrap());
    let envoy = Envoy::start(&bootstrap(xds, listen, admin, delta), dir)
        .await
        .unwrap();
    (envoy, listen)
}

/// Waits until a call on an open connection with this method lands at `wanted`.
async fn lands(connection: &mut KeepAlive, method: &str, wanted: &str) {
    let started = std::time::Instant::now();
    loop {
        let answer = connection
            .send(&Request::get("/").header("method", method))
            .await
            .unwrap();
        let body = answer.body;
        if body == wanted {
            return;
        }
        assert!(
            started.elapsed() < BOUND,
            "{method} lands at {body} ({}), not at {wanted}",
            answer.status
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn proxies(embedded: &Embedded, wanted: &Value) {
    wait_until(&format!("proxies {wanted}"), BOUND, || async {
        let object = super::get(embedded, Kind::MetaRouter, "orders").await;
        let found = &object["status"]["proxies"];
        if found == wanted {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
    .unwrap();
}

async fn scenario(name: &str, delta: bool) {
    let dir = folder(name);
    let embedded = mesh();
    let xds = free_address().unwrap();
    let text = format!("{{xds: {{address: '{xds}'}}, metaprotocol: {{dataPlane: Aeraki}}}}");
    let start_operator = || async {
        let mut config = crate::support::config(&text);
        config.xds.address = xds;
        Operator::start(
            config,
            embedded.client(),
            tokio_util::sync::CancellationToken::new(),
        )
        .await
        .unwrap()
    };
    let operator = start_operator().await;
    super::ready(&operator).await;
    let (_envoy, listen) = start(xds, &dir, delta).await;
    let mut held = KeepAlive::connect(listen).await.unwrap();
    lands(&mut held, "any", "v1").await;
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Programmed", "True Programmed")],
    )
    .await;
    proxies(
        &embedded,
        &json!({"subscribed": 1, "acknowledged": 1, "refused": 0}),
    )
    .await;

    // A change moves calls of the open connection.
    load(
        &embedded,
        router_with(
            "orders",
            json!({"hosts": [HOST], "routes": [
        {"match": {"attributes": {"method": {"exact": "special"}}}, "route": [{"destination": {"host": HOST, "subset": "v2"}}]},
        {"route": [{"destination": {"host": HOST, "subset": "v1"}}]}]}),
        ),
    );
    lands(&mut held, "special", "v2").await;
    lands(&mut held, "other", "v1").await;

    // What the proxy refuses leaves what it has, and its words are in the status. A real Envoy does not add this header.
    load(
        &embedded,
        router_with(
            "orders",
            json!({"hosts": [HOST], "routes": [
        {"requestMutation": [{"key": ":path", "value": "/"}], "route": [{"destination": {"host": HOST, "subset": "v2"}}]}]}),
        ),
    );
    let object = told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Programmed", "False Rejected")],
    )
    .await;
    let message = condition(&object, "Programmed").1;
    assert!(
        message.contains("orders-caller.shop says") && message.contains(":-prefixed"),
        "{message}"
    );
    proxies(
        &embedded,
        &json!({"subscribed": 1, "acknowledged": 0, "refused": 1}),
    )
    .await;
    lands(&mut held, "special", "v2").await;
    lands(&mut held, "other", "v1").await;

    load(&embedded, router("v2"));
    lands(&mut held, "other", "v2").await;
    told(
        &embedded,
        Kind::MetaRouter,
        "orders",
        &[("Programmed", "True Programmed")],
    )
    .await;

    // The operator goes and comes back: calls go on, and the proxy is sent nothing new.
    operator.stop().await.unwrap();
    lands(&mut held, "other", "v2").await;
    let operator = start_operator().await;
    proxies(
        &embedded,
        &json!({"subscribed": 1, "acknowledged": 1, "refused": 0}),
    )
    .await;
    load(&embedded, router("v1"));
    lands(&mut held, "other", "v1").await;

    // Without a router all calls go to the service itself, for which there is no cluster here.
    let routers: kube::Api<trimtab_crds::metaprotocol::MetaRouter> =
        kube::Api::namespaced(embedded.client(), "shop");
    routers
        .delete("orders", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    wait_until("the routes of no router", BOUND, || async {
        let answer = trimtab_lab::http::send(listen, &Request::get("/"))
            .await
            .map_err(|e| e.to_string())?;
        if answer.status == 503 {
            Ok(())
        } else {
            Err(format!("{}", answer.status))
        }
    })
    .await
    .unwrap();
    assert!(held.survived().await, "no listener was drained");
    operator.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn routes_reach_a_real_envoy_over_state_of_the_world() {
    scenario("routes-sotw", false).await;
}

#[tokio::test]
async fn routes_reach_a_real_envoy_over_delta() {
    scenario("routes-delta", true).await;
}

/// What `/api/v1/xds/streams` answers.
async fn streams(operator: &Operator) -> Value {
    let text = trimtab_lab::http::get(operator.http, "/api/v1/xds/streams")
        .await
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn fault_o24_streams_are_typed_json() {
    let dir = folder("streams");
    let embedded = mesh();
    let operator = operator(&embedded, AERAKI).await;
    super::ready(&operator).await;
    assert_eq!(streams(&operator).await, json!({"items": [], "total": 0}));
    let (_envoy, listen) = start(operator.xds, &dir, true).await;
    let mut held = KeepAlive::connect(listen).await.unwrap();
    lands(&mut held, "any", "v1").await;
    let items = wait_until("the ACK", BOUND, || async {
        let answer = streams(&operator).await;
        match answer["items"].as_array() {
            Some(items) if items.len() == 1 && items[0]["held"] == 1 => Ok(items.clone()),
            _ => Err(answer.to_string()),
        }
    })
    .await
    .unwrap();
    let version = operator
        .cache
        .get(trimtab_xds::RDS, ROUTES)
        .unwrap()
        .version
        .clone();
    let since = items[0]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    let expected = json!({
        "id": items[0]["id"].as_u64().unwrap(),
        "node": "orders-caller.shop",
        "typeUrl": trimtab_xds::RDS,
        "delta": true,
        "wildcard": false,
        "subscribed": [ROUTES],
        "since": since,
        "held": 1,
        "waiting": 0,
        "refused": 0,
        "lastSent": version,
        "lastAcknowledged": version,
    });
    assert_eq!(items[0], expected);
    operator.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn a_proxy_changes_replicas_without_a_new_version() {
    let dir = folder("replicas");
    let embedded = mesh();
    let (one, two) = (
        operator(&embedded, AERAKI).await,
        operator(&embedded, AERAKI).await,
    );
    super::ready(&one).await;
    super::ready(&two).await;
    let (mut envoy, listen) = start(one.xds, &dir, false).await;
    let mut held = KeepAlive::connect(listen).await.unwrap();
    lands(&mut held, "any", "v1").await;
    let version = |operator: &Operator| {
        operator
            .cache
            .get(trimtab_xds::RDS, ROUTES)
            .map(|r| r.version.clone())
    };
    assert_eq!(version(&one), version(&two));
    let seen = version(&one);
    envoy.kill();
    let other = folder("replicas-two");
    let (_envoy, listen) = start(two.xds, &other, false).await;
    let mut held = KeepAlive::connect(listen).await.unwrap();
    lands(&mut held, "any", "v1").await;
    let node = two.cache.node("orders-caller.shop").unwrap();
    let resource = &node.subscriptions[0].resources[0];
    assert_eq!(resource.acked.as_ref().map(|s| s.version.clone()), seen);
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
    let _ = std::fs::remove_dir_all(other);
}
