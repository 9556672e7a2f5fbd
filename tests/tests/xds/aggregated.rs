//! A proxy that is told of the aggregated stream and of nothing else.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use serde_json::{Value, json};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::{free_address, loopback};
use trimtab_xds::{Audience, CDS, EDS, LDS, RDS, Scope, Scoped, ResourceCache, Update};

use crate::lab::{NODE, Server, any, folder, grpc, pod, resource, socket, xds_cluster};

const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

fn over_ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn address_of(at: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: at.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
            ..SocketAddress::default()
        })),
    }
}

fn cluster(name: &str) -> Scoped {
    let message = Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(over_ads()),
            ..EdsClusterConfig::default()
        }),
        ..Cluster::default()
    };
    resource(name, &message)
}

fn endpoints(name: &str, at: SocketAddr) -> Scoped {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address_of(at)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let message = ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    };
    resource(name, &message)
}

/// A listener whose routes are `routes`; without an address it is one that a proxy refuses.
fn listener(name: &str, at: Option<SocketAddr>) -> Scoped {
    let manager = HttpConnectionManager {
        stat_prefix: name.into(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(over_ads()),
            route_config_name: "routes".into(),
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(
                ROUTER,
                &Router::default(),
            ))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    let message = Listener {
        name: name.into(),
        address: at.map(address_of),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".into(),
                config_type: Some(filter::ConfigType::TypedConfig(any(MANAGER, &manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    resource(name, &message)
}

/// Routes to a cluster; two virtual hosts with the same domain are what a proxy refuses.
fn routes(to: &str, hosts: usize) -> Scoped {
    let host = |number| VirtualHost {
        name: format!("all-{number}"),
        domains: vec!["*".into()],
        routes: vec![Route {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".into())),
                ..RouteMatch::default()
            }),
            action: Some(Action::Route(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(to.into())),
                ..RouteAction::default()
            })),
            ..Route::default()
        }],
        ..VirtualHost::default()
    };
    let message = RouteConfiguration {
        name: "routes".into(),
        virtual_hosts: (0..hosts).map(host).collect(),
        ..RouteConfiguration::default()
    };
    resource("routes", &message)
}

fn for_group(name: &str, scoped: Scoped) -> Scoped {
    Scoped {
        scope: Scope::only([Audience::Group(name.into())]),
        ..scoped
    }
}

fn bootstrap(server: SocketAddr, admin: SocketAddr, api_type: &str) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": NODE, "cluster": "edge"},
        "admin": {"address": socket(admin)},
        "dynamic_resources": {
            "ads_config": grpc(api_type),
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [xds_cluster(server)]},
    })
}

/// A server with all that the proxy needs, and the proxy.
struct Stage {
    server: Server,
    envoy: Envoy,
    connection: KeepAlive,
    more: SocketAddr,
}

impl Stage {
    async fn new(api_type: &str) -> Self {
        let (inbound, more, admin) = three_addresses();
        let cache = ResourceCache::new();
        let mine = |scoped| for_group("edge", scoped);
        let update = |url: &str, set| Update {
            type_url: url.to_owned(),
            set,
            remove: vec![],
        };
        let (one, two) = (pod("one").await, pod("two").await);
        cache.update_all(vec![
            update(RDS, vec![mine(routes("one", 1))]),
            update(
                LDS,
                vec![
                    mine(listener("in", Some(inbound))),
                    for_group("core", listener("in", Some(loopback(1)))),
                ],
            ),
            update(
                EDS,
                vec![mine(endpoints("one", one)), mine(endpoints("two", two))],
            ),
            update(
                CDS,
                vec![
                    mine(cluster("one")),
                    mine(cluster("two")),
                    for_group("core", cluster("hidden")),
                ],
            ),
        ]);
        let server = Server::start(cache).await;
        let config = bootstrap(server.address, admin, api_type);
        let envoy = Envoy::start(&config, &folder(api_type))
            .await
            .expect("a proxy");
        server.until_held(RDS, "routes").await;
        server.until_held(LDS, "in").await;
        let connection = KeepAlive::connect(inbound).await.expect("a connection");
        Self {
            server,
            envoy,
            connection,
            more,
        }
    }

    async fn answer(&mut self) -> String {
        let answer = self
            .connection
            .send(&Request::get("/"))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    fn set(&self, url: &str, set: Scoped) {
        let set = vec![for_group("edge", set)];
        assert_eq!(self.server.cache.update_scoped(url, set, &[]), 1);
    }

    async fn stat(&self, name: &str) -> u64 {
        self.envoy.stat(name).await.expect("a number")
    }
}

fn three_addresses() -> (SocketAddr, SocketAddr, SocketAddr) {
    let at = || free_address().expect("a port");
    (at(), at(), at())
}

/// Routes move calls on an open connection, and a bad one changes nothing.
async fn routes_follow(stage: &mut Stage) {
    assert_eq!(stage.answer().await, "one");
    stage.set(RDS, routes("two", 1));
    stage.server.until_held(RDS, "routes").await;
    assert_eq!(stage.answer().await, "two");

    stage.set(RDS, routes("one", 2));
    let reason = stage.server.until_refused(RDS, "routes").await;
    assert!(reason.contains("Only a single wildcard domain"), "{reason}");
    assert_eq!(
        stage.answer().await,
        "two",
        "a refused route changes nothing"
    );

    stage.set(RDS, routes("one", 1));
    stage.server.until_held(RDS, "routes").await;
    assert_eq!(stage.answer().await, "one");
    let held = stage.server.held(RDS, "routes").expect("a resource");
    assert_eq!(held.refused, None, "a better one makes good");
    assert_eq!(stage.stat("http.in.downstream_cx_total").await, 1);
    assert_eq!(stage.stat("listener_manager.listener_modified").await, 0);
}

/// One bad listener does not hold up its neighbours, and a listener that is taken away goes.
async fn listeners_follow(stage: &mut Stage) {
    let edge = |scoped| for_group("edge", scoped);
    let set = vec![
        edge(listener("bad", None)),
        edge(listener("more", Some(stage.more))),
    ];
    assert_eq!(stage.server.cache.update_scoped(LDS, set, &[]), 2);
    let reason = stage.server.until_refused(LDS, "bad").await;
    assert!(reason.contains("bad"), "{reason}");
    stage.server.until_held(LDS, "more").await;
    assert_eq!(
        stage.stat("listener_manager.total_listeners_active").await,
        2
    );
    let answer = trimtab_lab::http::send(stage.more, &Request::get("/")).await;
    assert_eq!(answer.expect("an answer").body, "one");

    let gone = ["bad".to_owned(), "more".to_owned()];
    assert_eq!(stage.server.cache.update(LDS, vec![], &gone), 2);
    let started = std::time::Instant::now();
    while stage.stat("listener_manager.total_listeners_active").await != 1 {
        assert!(started.elapsed() < crate::lab::BOUND, "the listener stays");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(stage.answer().await, "one", "the other one never noticed");
    assert_eq!(stage.stat("http.in.downstream_cx_total").await, 1);
}

async fn a_proxy_follows(api_type: &str) {
    let mut stage = Stage::new(api_type).await;
    let view = stage.server.cache.node(NODE).expect("a connected proxy");
    assert_eq!(view.audiences, ["group edge", "node proxy-1"]);
    let dump = stage.envoy.config_dump().await.expect("a dump").to_string();
    assert!(
        !dump.contains("hidden"),
        "what is for others does not arrive"
    );
    routes_follow(&mut stage).await;
    listeners_follow(&mut stage).await;
    stage.server.stop().await;
    assert_eq!(
        stage
            .connection
            .send(&Request::get("/"))
            .await
            .expect("an answer")
            .body,
        "one"
    );
}

#[tokio::test]
async fn a_proxy_gets_everything_over_one_stream_of_the_state_of_the_world() {
    a_proxy_follows("GRPC").await;
}

#[tokio::test]
async fn a_proxy_gets_everything_over_one_delta_stream() {
    a_proxy_follows("DELTA_GRPC").await;
}
