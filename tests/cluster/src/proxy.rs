//! A stock Envoy that istiod configures.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde_json::{Value, json};
use trimtab::lab::envoy::Envoy;
use trimtab::lab::ports::free_address;

use crate::relay::Relay;
use crate::{
    Cluster, ClusterError, Connection, Istiod, Pod, Result, original_destination, wait_for,
};

const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;
/// How long istiod may take to hand out a change.
const PUSH_BOUND: Duration = Duration::from_secs(20);

/// What a proxy is to istiod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Beside an application.
    Sidecar,
    /// At the edge.
    Gateway,
}

/// How a proxy differs from a plain sidecar.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Sidecar or gateway.
    pub kind: Kind,
    /// Merged into the bootstrap, as JSON merge patch.
    pub bootstrap: Value,
    /// Merged into the node's metadata.
    pub metadata: Value,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Sidecar,
            bootstrap: Value::Null,
            metadata: Value::Null,
        }
    }
}

/// A running proxy of a pod; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    pod: Pod,
    envoy: Envoy,
    _relay: Relay,
}

impl Proxy {
    /// Starts a sidecar, ready when this returns.
    pub async fn start(cluster: &Cluster, istiod: &Istiod, pod: &Pod) -> Result<Self> {
        Self::start_with(cluster, istiod, pod, &ProxyOptions::default()).await
    }

    /// Starts a proxy with options.
    pub async fn start_with(
        cluster: &Cluster,
        istiod: &Istiod,
        pod: &Pod,
        options: &ProxyOptions,
    ) -> Result<Self> {
        let relay = Relay::start(istiod.grpc(), pod.local()).await?;
        let mut bootstrap = bootstrap(istiod, pod, options, relay.address(), free_address()?);
        merge(&mut bootstrap, &options.bootstrap);
        merge(&mut bootstrap["node"]["metadata"], &options.metadata);
        let dir = cluster
            .dir()
            .join(format!("{}.{}", pod.name, pod.namespace));
        let envoy = Envoy::start(&bootstrap, &dir).await?;
        Ok(Self {
            pod: pod.clone(),
            envoy,
            _relay: relay,
        })
    }

    /// The Envoy: statistics and configuration.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// A connection of another machine to a port of this pod, caught by the sidecar.
    pub async fn inbound(&self, port: u16) -> Result<Connection> {
        let destination = SocketAddrV4::new(self.pod.local(), port);
        let through = self.pod.address(INBOUND);
        // The source must not be the pod's own address, which the sidecar passes through.
        let source = [127, 44, 255, 254].into();
        Connection::http(original_destination(source, through, destination).await?).await
    }

    /// A connection of the pod's application to an address of a service, caught by the sidecar.
    pub async fn outbound(&self, destination: SocketAddrV4) -> Result<Connection> {
        let stream = self.outbound_stream(destination).await?;
        Connection::http(stream).await
    }

    /// As [`Self::outbound`], for other protocols than HTTP.
    pub async fn outbound_stream(
        &self,
        destination: SocketAddrV4,
    ) -> Result<tokio::net::TcpStream> {
        let through = self.pod.address(OUTBOUND);
        original_destination(self.pod.local(), through, destination).await
    }

    /// A connection to a port of a gateway.
    pub async fn gateway(&self, port: u16) -> Result<Connection> {
        let address = self.pod.address(port);
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .map_err(|error| ClusterError::Other(format!("{address}: {error}")))?;
        Connection::http(stream).await
    }

    /// Waits until the configuration in force satisfies `check`; the last reason is in the error.
    pub async fn wait_config<T>(
        &self,
        what: &str,
        check: impl Fn(&Value) -> std::result::Result<T, String>,
    ) -> Result<T> {
        wait_for(what, PUSH_BOUND, || async {
            let dump = self.envoy.config_dump().await;
            check(&dump.map_err(|error| error.to_string())?)
        })
        .await
    }

    /// The dynamic listeners in force by name.
    pub async fn listeners(&self) -> Result<Vec<Value>> {
        Ok(listeners(&self.envoy.config_dump().await?))
    }
}

/// The active dynamic listeners of a configuration dump.
pub(crate) fn listeners(dump: &Value) -> Vec<Value> {
    dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|section| {
            section["dynamic_listeners"]
                .as_array()
                .into_iter()
                .flatten()
        })
        .map(|entry| entry["active_state"]["listener"].clone())
        .filter(|listener| !listener.is_null())
        .collect()
}

fn bootstrap(
    istiod: &Istiod,
    pod: &Pod,
    options: &ProxyOptions,
    relay: SocketAddr,
    admin: SocketAddr,
) -> Value {
    let role = match options.kind {
        Kind::Sidecar => "sidecar",
        Kind::Gateway => "router",
    };
    let Pod {
        name,
        namespace,
        ip,
        labels,
        ..
    } = pod;
    json!({
        "node": {
            "id": format!("{role}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {
                "NAME": name,
                "NAMESPACE": namespace,
                "LABELS": labels,
                "INSTANCE_IPS": ip.to_string(),
                "CLUSTER_ID": "Kubernetes",
                "ISTIO_VERSION": istiod.version(),
                "INTERCEPTION_MODE": "REDIRECT",
                "SERVICE_ACCOUNT": "default",
                "WORKLOAD_NAME": name,
                "MESH_ID": "cluster.local",
                "PROXY_CONFIG": {},
            },
        },
        "admin": {"address": socket_address(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket_address(relay)}},
            ]}]},
        }]},
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// RFC 7386, but lists are joined: a bootstrap's lists of clusters and layers are added to, not replaced.
fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(patch)) => base.extend(patch.iter().cloned()),
        (base, patch) => *base = patch.clone(),
    }
}
