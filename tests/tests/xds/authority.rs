//! Routes of other protocols: over the aggregated stream, and from an authority of their own beside it.

use std::net::SocketAddr;

use envoy_types::pb::envoy::extensions::filters::network::dubbo_proxy::v3 as dubbo;
use envoy_types::pb::envoy::extensions::filters::network::generic_proxy::v3 as generic;
use envoy_types::pb::envoy::extensions::filters::network::thrift_proxy::v3 as thrift;
use serde_json::{Value, json};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::ports::free_address;
use trimtab_xds::{DRDS, GENERIC_RDS, ResourceCache, Scoped, TRDS, xdstp_name, xdstp_name_with};

use crate::lab::{NODE, Server, folder, grpc, resource, socket, xds_cluster};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.network";

fn listener(name: &str, filter: &Value) -> Value {
    let at = free_address().expect("a port");
    json!({
        "name": name,
        "address": socket(at),
        "filter_chains": [{"filters": [{"name": name, "typed_config": filter}]}],
    })
}

fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

fn thrift_listener(routes: &str) -> Value {
    let filter = json!({
        "@type": format!("{FILTERS}.thrift_proxy.v3.ThriftProxy"),
        "stat_prefix": "calls",
        "trds": {"config_source": ads(), "route_config_name": routes},
        "thrift_filters": [{
            "name": "envoy.filters.thrift.router",
            "typed_config": {"@type": format!("{FILTERS}.thrift_proxy.router.v3.Router")},
        }],
    });
    listener("thrift", &filter)
}

/// Thrift routes of one method; without a cluster name they are refused.
fn thrift_routes(name: &str, method: &str, cluster: &str) -> Scoped {
    let message = thrift::RouteConfiguration {
        name: name.into(),
        routes: vec![thrift::Route {
            r#match: Some(thrift::RouteMatch {
                match_specifier: Some(thrift::route_match::MatchSpecifier::MethodName(
                    method.into(),
                )),
                ..thrift::RouteMatch::default()
            }),
            route: Some(thrift::RouteAction {
                cluster_specifier: Some(thrift::route_action::ClusterSpecifier::Cluster(
                    cluster.into(),
                )),
                ..thrift::RouteAction::default()
            }),
        }],
        ..thrift::RouteConfiguration::default()
    };
    resource(name, &message)
}

fn beside_another_control_plane(
    server: SocketAddr,
    admin: SocketAddr,
    api: &str,
    routes: &str,
) -> Value {
    json!({
        "node": {"id": NODE, "cluster": "edge"},
        "admin": {"address": socket(admin)},
        "config_sources": [{
            "authorities": [{"name": "trimtab"}],
            "api_config_source": grpc(api),
            "resource_api_version": "V3",
        }],
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            "envoy.reloadable_features.xdstp_based_config_singleton_subscriptions": true,
        }}]},
        "static_resources": {
            "clusters": [xds_cluster(server)],
            "listeners": [thrift_listener(routes)],
        },
    })
}

async fn thrift_routes_come_from_the_authority(api: &str, folder_name: &str, name: &str) {
    let cache = ResourceCache::new();
    let set = |cache: &ResourceCache, routes| {
        assert_eq!(cache.update_scoped(TRDS, vec![routes], &[]), 1);
    };
    set(&cache, thrift_routes(name, "first_method", "somewhere"));
    let server = Server::start(cache).await;
    let admin = free_address().expect("a port");
    let config = beside_another_control_plane(server.address, admin, api, name);
    let envoy = Envoy::start(&config, &folder(folder_name))
        .await
        .expect("a proxy");
    server.until_held(TRDS, name).await;
    let view = server.cache.node(NODE).expect("a connected proxy");
    let asked: Vec<_> = view
        .subscriptions
        .iter()
        .flat_map(|s| &s.resources)
        .collect();
    assert_eq!(
        asked.len(),
        1,
        "exactly the name in the listener: {asked:?}"
    );
    let dump = || async { envoy.config_dump().await.expect("a dump").to_string() };
    assert!(dump().await.contains("first_method"));

    set(
        &server.cache,
        thrift_routes(name, "second_method", "somewhere"),
    );
    server.until_held(TRDS, name).await;
    let now = dump().await;
    assert!(now.contains("second_method") && !now.contains("first_method"));

    set(&server.cache, thrift_routes(name, "third_method", ""));
    let reason = server.until_refused(TRDS, name).await;
    assert!(reason.contains("Cluster"), "{reason}");
    let now = dump().await;
    assert!(now.contains("second_method"), "the routes from before stay");
    let rejected = envoy.stats("thrift.calls.trds.").await.expect("numbers");
    let rejected = rejected
        .iter()
        .find(|(name, _)| name.ends_with("update_rejected"));
    assert_eq!(rejected.map(|(_, count)| *count), Some(1));
    server.stop().await;
}

#[tokio::test]
async fn thrift_routes_come_from_an_authority_as_state_of_the_world() {
    let name = xdstp_name("trimtab", TRDS, "default/hello");
    thrift_routes_come_from_the_authority("AGGREGATED_GRPC", "authority", &name).await;
}

#[tokio::test]
async fn thrift_routes_come_from_an_authority_as_delta() {
    let name = xdstp_name("trimtab", TRDS, "default/hello");
    thrift_routes_come_from_the_authority("AGGREGATED_DELTA_GRPC", "authority-delta", &name).await;
}

/// Envoy asks in its own canonical form, so a name that it writes in another way would never be answered.
#[tokio::test]
async fn names_with_odd_characters_and_context_parameters_are_built_as_envoy_asks_for_them() {
    let context = [("zone", "a&b=c d"), ("app", "[x]~%é"), ("b", "?")].into();
    let name = xdstp_name_with("trimtab", TRDS, "a b/c~[e]?f%20g/é+;@", &context);
    for (api, folder) in [
        ("AGGREGATED_GRPC", "context"),
        ("AGGREGATED_DELTA_GRPC", "context-delta"),
    ] {
        thrift_routes_come_from_the_authority(api, folder, &name).await;
    }
}

fn dubbo_listener() -> Value {
    let filter = json!({
        "@type": format!("{FILTERS}.dubbo_proxy.v3.DubboProxy"),
        "stat_prefix": "dubbo",
        "drds": {"config_source": ads(), "route_config_name": "dubbo-routes"},
        "dubbo_filters": [{"name": "envoy.filters.dubbo.router"}],
    });
    listener("dubbo", &filter)
}

fn generic_listener() -> Value {
    let filter = json!({
        "@type": format!("{FILTERS}.generic_proxy.v3.GenericProxy"),
        "stat_prefix": "generic",
        "codec_config": {
            "name": "dubbo",
            "typed_config": {"@type": format!("{FILTERS}.generic_proxy.codecs.dubbo.v3.DubboCodecConfig")},
        },
        "generic_rds": {"config_source": ads(), "route_config_name": "generic-routes"},
        "filters": [{
            "name": "envoy.filters.generic.router",
            "typed_config": {"@type": format!("{FILTERS}.generic_proxy.router.v3.Router")},
        }],
    });
    listener("generic", &filter)
}

/// Envoy has no service for these types, so they can only come over the aggregated stream.
async fn routes_of_all_protocols_come_over_the_aggregated_stream(api: &str) {
    let cache = ResourceCache::new();
    let dubbo = dubbo::MultipleRouteConfiguration {
        name: "dubbo-routes".into(),
        route_config: vec![],
    };
    let generic = generic::RouteConfiguration {
        name: "generic-routes".into(),
        ..generic::RouteConfiguration::default()
    };
    let thrift = thrift_routes("thrift-routes", "method", "somewhere");
    let resources = [
        (TRDS, "thrift-routes", thrift),
        (DRDS, "dubbo-routes", resource("dubbo-routes", &dubbo)),
        (
            GENERIC_RDS,
            "generic-routes",
            resource("generic-routes", &generic),
        ),
    ];
    for (url, _, scoped) in &resources {
        cache.update_scoped(url, vec![scoped.clone()], &[]);
    }
    let server = Server::start(cache).await;
    let config = json!({
        "node": {"id": NODE, "cluster": "edge"},
        "admin": {"address": socket(free_address().expect("a port"))},
        "dynamic_resources": {"ads_config": grpc(api)},
        "static_resources": {
            "clusters": [xds_cluster(server.address)],
            "listeners": [thrift_listener("thrift-routes"), dubbo_listener(), generic_listener()],
        },
    });
    let folder = folder(&format!("protocols-{api}"));
    let _envoy = Envoy::start(&config, &folder).await.expect("a proxy");
    for (url, name, _) in &resources {
        server.until_held(url, name).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn routes_of_all_protocols_come_as_state_of_the_world() {
    routes_of_all_protocols_come_over_the_aggregated_stream("GRPC").await;
}

#[tokio::test]
async fn routes_of_all_protocols_come_as_delta() {
    routes_of_all_protocols_come_over_the_aggregated_stream("DELTA_GRPC").await;
}
