//! A stock Envoy that istiod configures.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use trimtab_lab::envoy::{Admin, Envoy, find, istio_runtime};
use trimtab_lab::ports::{free_address, free_port};

use crate::child::{Child, Spec};
use crate::relay::Relay;
use crate::{
    Cluster, ClusterError, Connection, Forwarder, Istiod, Pod, Result, original_destination, tools,
    wait_for,
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
    admin: Admin,
    process: Owner,
    _relay: Relay,
}

/// Who started the Envoy; held for its end.
#[derive(Debug)]
enum Owner {
    Us(Box<Envoy>),
    Agent(Child),
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
        write_token(cluster, pod, &dir).await?;
        let envoy = Envoy::start(&bootstrap, &dir).await?;
        Ok(Self {
            pod: pod.clone(),
            admin: *envoy,
            process: Owner::Us(Box::new(envoy)),
            _relay: relay,
        })
    }

    /// Starts a sidecar as its container does: `pilot-agent` makes the bootstrap from Istio's template, merges `overrides`
    /// (what the annotation `sidecar.istio.io/bootstrapOverride` mounts) and starts a stock Envoy.
    pub async fn start_by_agent(
        cluster: &Cluster,
        istiod: &Istiod,
        pod: &Pod,
        overrides: &Value,
    ) -> Result<Self> {
        let relay = Relay::start(istiod.grpc(), pod.local()).await?;
        let admin = Admin::new(free_address()?);
        let dir = cluster
            .dir()
            .join(format!("{}.{}", pod.name, pod.namespace));
        std::fs::create_dir_all(dir.join("etc")).map_err(ClusterError::file(&dir))?;
        write_token(cluster, pod, &dir).await?;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(ClusterError::file(&path))?;
            Ok::<_, ClusterError>(path.display().to_string())
        };
        let template = tools::find("envoy_bootstrap.json")?;
        let template = std::fs::read_to_string(&template)
            .map_err(ClusterError::file(&template))?
            // Its own listeners (metrics, readiness) would be on all interfaces of this machine.
            .replace("{{ .wildcard }}", "127.0.0.1");
        let template = write("template.json", &template)?;
        let overrides = write("overrides.json", &overrides.to_string())?;
        let config = json!({
            "discoveryAddress": relay.address().to_string(),
            "binaryPath": find()?,
            "configPath": dir.join("etc"),
            "controlPlaneAuthPolicy": "NONE",
            "proxyAdminPort": admin.admin().port(),
            "proxyBootstrapTemplatePath": template,
            "concurrency": 1,
            // It has no setting for the address, and 0 is refused.
            "statusPort": free_port()?,
        });
        let mut agent = Child::start(Spec {
            name: "pilot-agent",
            program: tools::find("pilot-agent")?,
            args: vec![
                "proxy".into(),
                "sidecar".into(),
                format!("--domain={}.svc.cluster.local", pod.namespace).into(),
                "--log_output_level=default:warn".into(),
            ],
            env: agent_environment(cluster, pod, &config, overrides)?,
            dir,
            remove: None,
        })?;
        agent.wait_ready(PUSH_BOUND, || ready(admin)).await?;
        Ok(Self {
            pod: pod.clone(),
            admin,
            process: Owner::Agent(agent),
            _relay: relay,
        })
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        match &mut self.process {
            Owner::Us(envoy) => envoy.kill(),
            Owner::Agent(agent) => agent.crash(),
        }
    }

    /// Starts it again after [`Self::kill`], ready when this returns.
    pub async fn restart(&mut self) -> Result<()> {
        match &mut self.process {
            Owner::Us(envoy) => envoy.restart().await?,
            Owner::Agent(agent) => {
                agent.start_again()?;
                let admin = self.admin;
                agent.wait_ready(PUSH_BOUND, || ready(admin)).await?;
            }
        }
        Ok(())
    }

    /// The Envoy: statistics and configuration.
    pub fn envoy(&self) -> &Admin {
        &self.admin
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

    /// An address where any client reaches a service through the sidecar, as if it were in the pod.
    pub async fn tunnel(&self, destination: SocketAddrV4) -> Result<Forwarder> {
        let (pod, through) = (self.pod.local(), self.pod.address(OUTBOUND));
        let open = move || original_destination(pod, through, destination);
        Forwarder::start(SocketAddr::from(([127, 0, 0, 1], 0)), open).await
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
            let dump = self.admin.config_dump().await;
            check(&dump.map_err(|error| error.to_string())?)
        })
        .await
    }

    /// When a listener was last changed. (Counters of the listener manager also count what other tests do to the mesh.)
    pub async fn listener_updated(&self, name: &str) -> Result<String> {
        let dump = self.admin.config_dump().await?;
        active_listeners(&dump)
            .find(|state| state["listener"]["name"] == name)
            .and_then(|state| Some(state["last_updated"].as_str()?.to_owned()))
            .ok_or_else(|| ClusterError::Other(format!("the proxy has no listener {name}")))
    }

    /// Waits until a listener of istiod contains `text`. The whole dump does not do: it lists every compiled-in extension.
    pub async fn wait_listener(&self, text: &str) -> Result<()> {
        self.wait_config(&format!("{text} in a listener"), |dump| {
            if active_listeners(dump).any(|state| state["listener"].to_string().contains(text)) {
                return Ok(());
            }
            Err("no listener has it".to_owned())
        })
        .await
    }
}

async fn ready(admin: Admin) -> std::result::Result<(), String> {
    if admin.ready().await {
        Ok(())
    } else {
        Err("Envoy is not ready".to_owned())
    }
}

/// The active dynamic listeners of a configuration dump.
fn active_listeners(dump: &Value) -> impl Iterator<Item = &Value> {
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
        .map(|entry| &entry["active_state"])
}

/// Where a proxy of this harness has the token of its ServiceAccount, in its working folder. In a pod Istio mounts it at
/// `/var/run/secrets/tokens/istio-token`.
pub const TOKEN_FILE: &str = "./tokens/istio-token";

/// Writes a token as Kubernetes mounts it into sidecars.
async fn write_token(cluster: &Cluster, pod: &Pod, dir: &Path) -> Result<()> {
    let token = service_account_token(cluster, &pod.namespace, "default", &["istio-ca"]).await?;
    let file = dir.join(TOKEN_FILE);
    let folder = file.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(ClusterError::file(folder))?;
    std::fs::write(&file, token).map_err(ClusterError::file(&file))
}

/// A token of a ServiceAccount for an hour; without audiences it is for the API server. The account `default` comes a moment
/// after its namespace.
pub async fn service_account_token(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    audiences: &[&str],
) -> Result<String> {
    let api: Api<ServiceAccount> = Api::namespaced(cluster.client().await?, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|&a| a.to_owned()).collect(),
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let parameters = PostParams::default();
    wait_for("a token", PUSH_BOUND, || async {
        let made = api.create_token_request(name, &parameters, &request).await;
        let made = made.map_err(|error| error.to_string())?;
        let token = made.status.map(|s| s.token);
        token.ok_or_else(|| "no token".to_owned())
    })
    .await
}

fn agent_environment(
    cluster: &Cluster,
    pod: &Pod,
    config: &Value,
    overrides: String,
) -> Result<Vec<(String, String)>> {
    let labels = serde_json::to_string(&pod.labels)
        .map_err(|error| ClusterError::Other(error.to_string()))?;
    // Any certificate will do: the agent wants one to be there, and no proxy asks for certificates as mTLS is off.
    let root = cluster
        .dir()
        .join("certs/apiserver.crt")
        .display()
        .to_string();
    Ok([
        ("POD_NAME", pod.name.clone()),
        ("POD_NAMESPACE", pod.namespace.clone()),
        ("INSTANCE_IP", pod.ip.to_string()),
        ("SERVICE_ACCOUNT", "default".to_owned()),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
        ("ISTIO_METAJSON_LABELS", labels),
        ("ISTIO_BOOTSTRAP_OVERRIDE", overrides),
        ("JWT_POLICY", "none".to_owned()),
        ("CA_ROOT_CA", root.clone()),
        ("XDS_ROOT_CA", root),
        ("PROXY_CONFIG", config.to_string()),
        ("ENVOY_STATUS_PORT", free_port()?.to_string()),
        ("ENVOY_PROMETHEUS_PORT", free_port()?.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec())
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
        "layered_runtime": istio_runtime(),
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
