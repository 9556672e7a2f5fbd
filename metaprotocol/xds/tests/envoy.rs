//! The server and a real Envoy: a pushed limit holds on an open connection, a bad one is refused and changes nothing.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "common/certs.rs"]
mod certs;
mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use certs::{Authority, Files, Pair};
use common::{BOUND, Server, wait_until};
use envoy_types::pb::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use envoy_types::pb::google::protobuf::{self, Any, UInt32Value};
use http_body_util::Empty;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;
use trimtab_xds::{
    Audience, Delivery, ECDS, Resource, ResourceCache, Scope, Scoped, Security, ServerOptions,
    content_version,
};

const FILTER: &str = "trimtab.limits";
const FILTER_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// An Envoy process that dies with the test.
struct Envoy {
    child: Child,
    directory: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn envoy_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        return path.into();
    }
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let library = home.join(".cache/trimtab/envoy/lib");
    let pythons = std::fs::read_dir(&library).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .filter(|binary| binary.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!(
            "no Envoy under {}; run make deps, or set ENVOY_BIN",
            library.display()
        )
    })
}

/// The bootstrap of a proxy; `tls` is the transport socket towards the server, or null.
fn bootstrap(xds: SocketAddr, delta: bool, tls: &serde_json::Value) -> serde_json::Value {
    let address =
        |addr: &str, port: u16| json!({"socket_address": {"address": addr, "port_value": port}});
    let api_type = if delta { "DELTA_GRPC" } else { "GRPC" };
    let limiter = json!({
        "name": FILTER,
        "config_discovery": {
            "config_source": {
                "resource_api_version": "V3",
                "initial_fetch_timeout": "10s",
                "api_config_source": {
                    "api_type": api_type,
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
                },
            },
            "type_urls": [FILTER_TYPE],
        },
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
        }]},
        "http_filters": [limiter, {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    json!({
        "node": {"id": "proxy-1", "cluster": "test"},
        "admin": {"address": address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": address("127.0.0.1", 0),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager,
                }]}],
            }],
            "clusters": [{
                "name": "xds",
                "type": "STATIC",
                "transport_socket": tls,
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(&xds.ip().to_string(), xds.port())}},
                ]}]},
            }],
        },
    })
}

fn start_envoy(xds: SocketAddr, delta: bool, tls: &serde_json::Value) -> Envoy {
    let directory =
        std::env::temp_dir().join(format!("trimtab-xds-{}-{}", std::process::id(), xds.port()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let log = std::fs::File::create(directory.join("log")).expect("a log file");
    let child = Command::new(envoy_binary())
        .arg("--config-yaml")
        .arg(bootstrap(xds, delta, tls).to_string())
        .args([
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-level",
            "warn",
            "--admin-address-path",
        ])
        .arg(directory.join("admin"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("Envoy starts");
    Envoy { child, directory }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Envoy {
    async fn admin(&self, path: &str) -> String {
        let file = self.directory.join("admin");
        wait_until("Envoy writes its admin address", || {
            read(&file).contains(':')
        })
        .await;
        let addr: SocketAddr = read(&file).trim().parse().expect("an address");
        let mut connection = Connection::open(addr).await;
        connection.get(path).await.1
    }

    /// The port of the listener, once Envoy takes requests there.
    async fn listener(&self) -> SocketAddr {
        let deadline = tokio::time::Instant::now() + BOUND;
        loop {
            let listeners: serde_json::Value =
                serde_json::from_str(&self.admin("/listeners?format=json").await)
                    .unwrap_or_default();
            let port =
                &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
            if let Some(port) = port.as_u64().filter(|port| *port > 0) {
                let addr = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")));
                if TcpStream::connect(addr).await.is_ok() {
                    return addr;
                }
            }
            let log = read(&self.directory.join("log"));
            assert!(
                tokio::time::Instant::now() < deadline,
                "no listener; Envoy says: {log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn counter(&self, ends_with: &str) -> Option<u64> {
        let stats = self.admin("/stats").await;
        let line = stats.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|name| name.ends_with(ends_with))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// One connection, kept alive; a request fails if Envoy closes it.
struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self(sender)
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        use http_body_util::BodyExt;
        self.0.ready().await.expect("an open connection");
        let request = hyper::Request::get(path)
            .header("host", "limited")
            .body(Empty::new())
            .expect("a request");
        let response = self.0.send_request(request).await.expect("a response");
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// How many of `count` requests are served and how many refused.
    async fn burst(&mut self, count: usize) -> (usize, usize) {
        let mut seen = (0, 0);
        for _ in 0..count {
            match self.get("/").await.0 {
                200 => seen.0 += 1,
                429 => seen.1 += 1,
                other => panic!("status {other}"),
            }
        }
        seen
    }
}

fn limit(tokens: u32, interval: protobuf::Duration) -> Resource {
    let always = || {
        Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: 0,
            }),
            ..RuntimeFractionalPercent::default()
        })
    };
    let version = content_version(format!("{tokens}/{interval:?}").as_bytes());
    let filter = LocalRateLimit {
        stat_prefix: "limits".into(),
        token_bucket: Some(TokenBucket {
            max_tokens: tokens,
            tokens_per_fill: Some(UInt32Value { value: tokens }),
            fill_interval: Some(interval),
        }),
        filter_enabled: always(),
        filter_enforced: always(),
        ..LocalRateLimit::default()
    };
    let config = TypedExtensionConfig {
        name: FILTER.into(),
        typed_config: Some(Any {
            type_url: FILTER_TYPE.into(),
            value: filter.encode_to_vec(),
        }),
    };
    let body = Bytes::from(config.encode_to_vec());
    Resource {
        name: FILTER.into(),
        version,
        body,
        origin: "default/reviews".into(),
    }
}

/// So long that no token comes back during a test.
fn hour() -> protobuf::Duration {
    protobuf::Duration {
        seconds: 3600,
        nanos: 0,
    }
}

async fn delivered(deliveries: &mut Receiver<Delivery>) -> Delivery {
    tokio::time::timeout(BOUND, deliveries.recv())
        .await
        .expect("an answer of Envoy in time")
        .expect("a report")
}

async fn refused_limit_changes_nothing(
    server: &Server,
    deliveries: &mut Receiver<Delivery>,
    envoy: &Envoy,
    connection: &mut Connection,
) {
    let bad = limit(
        9,
        protobuf::Duration {
            seconds: 0,
            nanos: 1_000_000,
        },
    );
    let version = bad.version.clone();
    server.cache.update(ECDS, vec![bad], &[]);
    let refused = delivered(deliveries).await;
    let Delivery::Nacked {
        node,
        name,
        version: told,
        message,
        origin,
        ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (node.as_str(), name.as_deref(), told),
        ("proxy-1", Some(FILTER), version)
    );
    assert_eq!(origin, "default/reviews");
    assert!(message.contains("fill timer"), "{message}");
    assert_eq!(
        connection.burst(2).await,
        (0, 2),
        "the old limit stays, and its bucket stays empty"
    );
    assert_eq!(
        envoy.counter("config_fail").await,
        Some(1),
        "the refused limit is sent once"
    );
}

async fn limits_follow_pushes(delta: bool) {
    let server = Server::start().await;
    let mut deliveries = server.cache.deliveries();
    server.cache.update(ECDS, vec![limit(3, hour())], &[]);
    let envoy = start_envoy(server.addr, delta, &serde_json::Value::Null);
    let mut connection = Connection::open(envoy.listener().await).await;
    assert!(
        matches!(delivered(&mut deliveries).await, Delivery::Acked { node, .. } if node == "proxy-1")
    );
    assert_eq!(connection.burst(5).await, (3, 2), "the first limit");

    server.cache.update(ECDS, vec![limit(6, hour())], &[]);
    assert!(matches!(
        delivered(&mut deliveries).await,
        Delivery::Acked { .. }
    ));
    assert_eq!(
        connection.burst(8).await,
        (6, 2),
        "a changed limit holds on the open connection"
    );

    refused_limit_changes_nothing(&server, &mut deliveries, &envoy, &mut connection).await;

    server.cache.update(ECDS, vec![limit(2, hour())], &[]);
    assert!(matches!(
        delivered(&mut deliveries).await,
        Delivery::Acked { .. }
    ));
    assert_eq!(
        connection.burst(3).await,
        (2, 1),
        "a good limit after a bad one"
    );
    drop(envoy);
    server.stop().await;
}

#[tokio::test]
async fn envoy_follows_pushed_limits_over_sotw() {
    limits_follow_pushes(false).await;
}

#[tokio::test]
async fn envoy_follows_pushed_limits_over_delta() {
    limits_follow_pushes(true).await;
}

/// TLS with the certificate of a workload, as Envoy is told of it.
fn tls_of(pair: &Pair, authority: &Authority) -> serde_json::Value {
    let inline = |text: &str| json!({"inline_string": text});
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{
                    "certificate_chain": inline(&pair.certificate),
                    "private_key": inline(&pair.key),
                }],
                "validation_context": {"trusted_ca": inline(&authority.pem)},
            },
        },
    })
}

#[tokio::test]
async fn envoy_gets_the_limit_of_its_namespace_over_mutual_tls() {
    let authority = Authority::new();
    let files = Files::new();
    files.fill(&authority.server(), &authority.pem);
    let options = ServerOptions {
        security: Security::Certificates(files.tls()),
        ..ServerOptions::default()
    };
    let cache = ResourceCache::new();
    cache.mark_ready();
    let server = Server::start_as(cache, options).await;
    let of = |namespace: &str, tokens| Scoped {
        resource: limit(tokens, hour()),
        scope: Scope::only([Audience::Namespace(namespace.to_owned())]),
    };
    let set = vec![of("bank", 1), of("shop", 3)];
    server.cache.update_scoped(ECDS, set, &[]);
    let mut deliveries = server.cache.deliveries();
    let cart = authority.client(&["spiffe://mesh.test/ns/shop/sa/cart"]);
    let envoy = start_envoy(server.addr, true, &tls_of(&cart, &authority));
    let mut connection = Connection::open(envoy.listener().await).await;
    assert!(matches!(
        delivered(&mut deliveries).await,
        Delivery::Acked { .. }
    ));
    assert_eq!(connection.burst(5).await, (3, 2));
    // A change for another namespace is none for this one: the next report is of its own.
    server
        .cache
        .update_scoped(ECDS, vec![of("bank", 2), of("shop", 4)], &[]);
    let Delivery::Acked { version, .. } = delivered(&mut deliveries).await else {
        panic!("refused");
    };
    assert_eq!(version, limit(4, hour()).version);
    assert_eq!(connection.burst(5).await, (4, 1));
    drop(envoy);
    server.stop().await;
}
