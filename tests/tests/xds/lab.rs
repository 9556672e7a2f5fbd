//! A server, a proxy and pods.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trimtab_lab::ports::loopback;
use trimtab_xds::{
    Resource, ResourceCache, ResourceInfo, Scoped, ServeError, content_version, serve,
};

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
pub(crate) const NODE: &str = "proxy-1";

/// A running xDS server.
pub(crate) struct Server {
    pub cache: ResourceCache,
    pub address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start(cache: ResourceCache) -> Self {
        cache.mark_ready();
        let listener = tokio::net::TcpListener::bind(loopback(0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(cache.clone(), listener, shutdown.clone()));
        Self {
            cache,
            address,
            shutdown,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("no error");
    }

    /// What the proxy holds of a resource.
    pub(crate) fn held(&self, url: &str, name: &str) -> Option<ResourceInfo> {
        let node = self.cache.node(NODE)?;
        let of_type = node.subscriptions.into_iter().filter(|s| s.type_url == url);
        let mut resources = of_type.flat_map(|s| s.resources);
        resources.find(|resource| resource.name == name)
    }

    pub(crate) async fn until_held(&self, url: &str, name: &str) {
        let held = self.held_when(url, name, |r| r.current.is_some() && r.is_synced());
        held.await;
    }

    async fn held_when(
        &self,
        url: &str,
        name: &str,
        good: impl Fn(&ResourceInfo) -> bool,
    ) -> ResourceInfo {
        let started = Instant::now();
        loop {
            if let Some(resource) = self.held(url, name).filter(&good) {
                return resource;
            }
            let view = || self.cache.node(NODE);
            assert!(
                started.elapsed() < BOUND,
                "{name} never came so far: {:#?}",
                view()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for the refusal of the current content, and says what the proxy said.
    pub(crate) async fn until_refused(&self, url: &str, name: &str) -> String {
        let refused = |resource: &ResourceInfo| {
            let refused = resource.refused.as_ref().map(|refusal| &refusal.version);
            refused.is_some() && refused == resource.current.as_ref()
        };
        let resource = self.held_when(url, name, refused).await;
        resource.refused.expect("a refusal").message
    }
}

/// The resource of a message. These messages have no maps, so their bytes are canonical.
pub(crate) fn resource(name: &str, message: &impl Message) -> Scoped {
    let body = message.encode_to_vec();
    Scoped::from(Resource {
        name: name.to_owned(),
        version: content_version(&body),
        body: body.into(),
        origin: String::new(),
    })
}

pub(crate) fn any(url: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{url}"),
        value: message.encode_to_vec(),
    }
}

/// A server that answers with its name; it lives as long as the test.
pub(crate) async fn pod(name: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(loopback(0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = Router::new().fallback(move || async move { name });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A fresh folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("xds-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

pub(crate) fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// The cluster of the bootstrap that reaches the server.
pub(crate) fn xds_cluster(address: SocketAddr) -> Value {
    json!({
        "name": "trimtab",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {"cluster_name": "trimtab", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(address)}},
        ]}]},
    })
}

pub(crate) fn grpc(api_type: &str) -> Value {
    json!({
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "trimtab"}}],
    })
}
