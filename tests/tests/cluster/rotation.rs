//! Certificates, authorities and tokens change under streams of a real Envoy, and its limit holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use envoy_types::pb::google::protobuf::{self, Any, UInt32Value};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab_cluster::{Namespace, TOKEN_FILE, service_account_token, wait_for};
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::identity::{
    Authorities, AuthorityConfig, AuthorityStore, EndpointTls, TokenConfig, TokenReviewer,
    XdsEndpoint,
};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{Request, send};
use trimtab_lab::ports::free_address;
use trimtab_xds::{
    Audience, ECDS, Resource, ResourceCache, Scope, Scoped, Security, ServerOptions, Stats, Tokens,
    content_version, serve_with,
};

use crate::fixture::{BOUND, cluster};

const LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn limit(namespace: &str, tokens: u32) -> Scoped {
    let always = || {
        Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: 0,
            }),
            ..RuntimeFractionalPercent::default()
        })
    };
    let filter = LocalRateLimit {
        stat_prefix: "limits".into(),
        token_bucket: Some(TokenBucket {
            max_tokens: tokens,
            tokens_per_fill: Some(UInt32Value { value: tokens }),
            fill_interval: Some(protobuf::Duration {
                seconds: 3600,
                nanos: 0,
            }),
        }),
        filter_enabled: always(),
        filter_enforced: always(),
        ..LocalRateLimit::default()
    };
    let config = TypedExtensionConfig {
        name: "limit".into(),
        typed_config: Some(Any {
            type_url: LIMIT.into(),
            value: filter.encode_to_vec(),
        }),
    };
    Scoped {
        resource: Resource {
            name: "limit".into(),
            version: content_version(&tokens.to_le_bytes()),
            body: config.encode_to_vec().into(),
            origin: "rotation/limit".into(),
        },
        scope: Scope::only([Audience::Namespace(namespace.to_owned())]),
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(endpoint: &XdsEndpoint, listener: SocketAddr) -> Value {
    const HTTP: &str = "type.googleapis.com/envoy.extensions.filters";
    let limiter = json!({"name": "limit", "config_discovery": {
        "config_source": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [endpoint.grpc_service()]},
        },
        "default_config": {"@type": LIMIT, "stat_prefix": "limits"},
        "apply_default_config_without_warming": true,
        "type_urls": [LIMIT],
    }});
    let manager = json!({
        "@type": format!("{HTTP}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]},
        "http_filters": [limiter, {"name": "router", "typed_config": {"@type": format!("{HTTP}.http.router.v3.Router")}}],
    });
    json!({
        "node": {"id": "rotation-0", "cluster": "test"},
        "admin": {"address": socket(free_address().unwrap())},
        "static_resources": {"listeners": [{"name": "in", "address": socket(listener),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}]},
    })
}

/// A Secret as it was written nine years ago: its first authority has a year left.
async fn old_secret(namespace: &Namespace<'_>, config: &AuthorityConfig) -> Authorities {
    let then = SystemClock::new().now() - YEAR * 9;
    let made = Authorities::new(then).unwrap();
    let data: BTreeMap<String, ByteString> = made
        .fields()
        .into_iter()
        .map(|(name, value)| (name, ByteString(value)))
        .collect();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(namespace.client().clone(), namespace.name());
    api.create(&PostParams::default(), &secret).await.unwrap();
    made
}

async fn write_token(namespace: &Namespace<'_>, dir: &Path) {
    let token = service_account_token(
        namespace.cluster(),
        namespace.name(),
        "default",
        &["istio-ca"],
    );
    let file = dir.join(TOKEN_FILE);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, token.await.unwrap()).unwrap();
}

/// Waits until the proxy has opened two streams more, so that one began after whatever was changed.
async fn reopened(cache: &ResourceCache) {
    let opened = || Stats::read(&cache.stats().streams_opened);
    let before = opened();
    wait_for("new streams of the proxy", BOUND, || async {
        if opened() >= before + 2 {
            Ok(())
        } else {
            Err(format!("{} after {before}", opened()))
        }
    })
    .await
    .unwrap();
}

/// A server whose streams and connections begin anew all the time.
async fn serve(
    cache: &ResourceCache,
    tokens: Tokens,
    roots: String,
    stop: CancellationToken,
) -> XdsEndpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = XdsEndpoint {
        address: listener.local_addr().unwrap().to_string(),
        tls: Some(EndpointTls {
            roots,
            token_file: TOKEN_FILE.to_owned(),
        }),
        identified: true,
    };
    let options = ServerOptions {
        security: Security::Tokens(tokens),
        max_connection_age: Some(Duration::from_millis(500)),
        ..ServerOptions::default()
    };
    tokio::spawn(serve_with(cache.clone(), listener, options, stop));
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_while_token_certificate_and_authority_change() {
    let cluster = cluster().await;
    let namespace = Namespace::create(cluster, "rotation").await.unwrap();
    let client = cluster.client().await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = AuthorityConfig {
        namespace: namespace.name().to_owned(),
        name: "authority".to_owned(),
    };
    let old = old_secret(&namespace, &config).await;
    let store = AuthorityStore::new(client.clone(), config, clock.clone());
    let hosts = ["127.0.0.1".to_owned()];
    let (certificate, receiver) = watch::channel(store.issue(&old, &hosts).unwrap());
    let cache = ResourceCache::new();
    cache.mark_ready();
    cache.update_scoped(ECDS, vec![limit(namespace.name(), 3)], &[]);
    let tokens = Tokens {
        certificate: receiver,
        authenticator: Arc::new(TokenReviewer::new(client, TokenConfig::default(), clock)),
    };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let endpoint = serve(&cache, tokens, old.roots(), stop).await;
    let dir = cluster.dir().join("rotation");
    write_token(&namespace, &dir).await;
    let at = free_address().unwrap();
    let envoy = Envoy::start(&bootstrap(&endpoint, at), &dir).await.unwrap();
    let status = async || send(at, &Request::get("/")).await.unwrap().status;
    wait_for("the limit", BOUND, || async {
        match status().await {
            429 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await
    .unwrap();

    // A new certificate of the same authority; then the next authority signs; then another token.
    certificate.send_replace(store.issue(&old, &hosts).unwrap());
    reopened(&cache).await;
    assert_eq!(status().await, 429);
    let advanced = store.load().await.unwrap();
    assert_ne!(advanced, old);
    certificate.send_replace(store.issue(&advanced, &hosts).unwrap());
    reopened(&cache).await;
    assert_eq!(status().await, 429);
    write_token(&namespace, &dir).await;
    reopened(&cache).await;
    assert_eq!(status().await, 429);
    assert_eq!(Stats::read(&cache.stats().tokens_refused), 0);
    assert_eq!(Stats::read(&cache.stats().connections.tls_refused), 0);
    // The proxy still hears of changes.
    cache.update_scoped(ECDS, vec![limit(namespace.name(), 1000)], &[]);
    wait_for("the changed limit", BOUND, || async {
        match status().await {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await
    .unwrap();
    drop(envoy);
}
