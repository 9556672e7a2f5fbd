//! `pilot-discovery` against a cluster.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_lab::ports::{free_address, free_port};

use crate::child::{Child, Spec, wait_for};
use crate::{Cluster, ClusterError, Result, tools};

const START_BOUND: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "istio-system";
/// Revision of an istiod that was installed without one.
const DEFAULT: &str = "default";

/// The release line of istiod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minor {
    /// The newest that can be built.
    Newest,
    /// The one before.
    Previous,
}

/// A running istiod; dropping it ends it.
#[derive(Debug)]
pub struct Istiod {
    grpc: SocketAddr,
    secure: SocketAddr,
    http: SocketAddr,
    monitoring: SocketAddr,
    minor: Minor,
    process: Mutex<Child>,
}

/// Stock Envoy has no Istio filters: `istio.stats` comes from a metrics provider (there is none), the other two have
/// switches. mTLS is off because the proxies have no agent that would fetch certificates.
const MESH: &str = r#"{"rootNamespace": "istio-system", "trustDomain": "cluster.local", "enableAutoMtls": false,
"enablePrometheusMerge": false, "accessLogFile": "", "defaultProviders": {"metrics": [], "accessLogging": []},
"defaultConfig": {"proxyMetadata": {}}}"#;

/// The same for what sidecars accept.
const PLAIN_TEXT: &str = r#"{"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
"metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": "DISABLE"}}}"#;

impl Istiod {
    /// Starts istiod of the newest minor.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_minor(cluster, Minor::Newest).await
    }

    /// Starts istiod of a given minor. Several may run against one cluster.
    pub async fn start_minor(cluster: &Cluster, minor: Minor) -> Result<Self> {
        Self::start_with(cluster, minor, &Value::Null).await
    }

    /// Starts istiod with `more` in its MeshConfig.
    pub async fn start_with(cluster: &Cluster, minor: Minor, more: &Value) -> Result<Self> {
        Self::start_at(cluster, minor, more, None, DEFAULT).await
    }

    /// Starts istiod of a revision, which reads objects that have its label or none.
    pub async fn start_revision(cluster: &Cluster, minor: Minor, revision: &str) -> Result<Self> {
        Self::start_at(cluster, minor, &Value::Null, None, revision).await
    }

    /// Starts istiod with its webhook, which checks the Sidecars of the whole cluster from then on. Only for a cluster of a
    /// test's own.
    pub async fn start_checking(cluster: &Cluster, minor: Minor, more: &Value) -> Result<Self> {
        let webhook = free_address()?;
        let istiod = Self::start_at(cluster, minor, more, Some(webhook), DEFAULT).await?;
        let authority = wait_for("istiod's root certificate", START_BOUND, || async {
            let get = [
                "-n",
                NAMESPACE,
                "get",
                "configmap",
                "istio-ca-root-cert",
                "-o",
                "jsonpath={.data.root-cert\\.pem}",
            ];
            let text = cluster.kubectl(&get, "").await;
            text.map_err(|error| error.to_string())
        })
        .await?;
        let objects = webhook_objects(webhook.port(), &authority);
        cluster
            .kubectl(&["apply", "-f", "-"], &objects.to_string())
            .await?;
        Ok(istiod)
    }

    async fn start_at(
        cluster: &Cluster,
        minor: Minor,
        more: &Value,
        webhook: Option<SocketAddr>,
        revision: &str,
    ) -> Result<Self> {
        let (grpc, http, monitoring) = (free_address()?, free_address()?, free_address()?);
        let secure = free_address()?;
        let dir = cluster.dir().join(format!("istiod-{}", grpc.port()));
        std::fs::create_dir_all(&dir).map_err(ClusterError::file(&dir))?;
        let mesh = dir.join("mesh.json");
        std::fs::write(&mesh, mesh_config(more)?).map_err(ClusterError::file(&mesh))?;
        let namespace = NAMESPACE;
        // It exists when another istiod or test made it.
        let _ = cluster
            .kubectl(&["create", "namespace", namespace], "")
            .await;
        // Another istiod may start at this moment: a server-side apply does not mind.
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        cluster.kubectl(&apply, PLAIN_TEXT).await?;
        let mut process = Child::start(Spec {
            name: "istiod",
            program: tools::find(match minor {
                Minor::Newest => "pilot-discovery",
                Minor::Previous => "istio-previous/pilot-discovery",
            })?,
            args: [
                "discovery".to_owned(),
                format!("--kubeconfig={}", cluster.kubeconfig().display()),
                format!("--meshConfig={}", mesh.display()),
                format!("--networksConfig={}", dir.join("none").display()),
                format!("--grpcAddr={grpc}"),
                format!("--secureGRPCAddr={secure}"),
                format!("--httpAddr={http}"),
                format!(
                    "--httpsAddr={}",
                    webhook.map(|at| at.to_string()).unwrap_or_default()
                ),
                format!("--monitoringAddr={monitoring}"),
                format!("--ctrlz_port={}", free_port()?),
                "--log_output_level=default:warn".to_owned(),
            ]
            .map(Into::into)
            .to_vec(),
            env: environment(namespace, revision),
            dir,
            remove: None,
        })?;
        process.wait_ready(START_BOUND, || ready(http)).await?;
        Ok(Self {
            grpc,
            secure,
            http,
            monitoring,
            minor,
            process: Mutex::new(process),
        })
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&self) {
        let process = self.process.lock();
        process.unwrap_or_else(PoisonError::into_inner).crash();
    }

    /// Starts it again after [`Self::kill`], ready when this returns.
    pub async fn restart(&self) -> Result<()> {
        let process = self.process.lock();
        process
            .unwrap_or_else(PoisonError::into_inner)
            .start_again()?;
        let http = self.http;
        wait_for("istiod", START_BOUND, || ready(http)).await
    }

    /// Where proxies connect, plain text.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where it issues certificates, with TLS as `istiod.istio-system.svc`.
    pub fn secure(&self) -> SocketAddr {
        self.secure
    }

    /// Its debug interface: `/debug/configz`, `/debug/syncz`, ...
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its monitoring port: `/metrics`, `/version`.
    pub fn monitoring(&self) -> SocketAddr {
        self.monitoring
    }

    /// Its version as proxies report theirs.
    pub fn version(&self) -> &'static str {
        match self.minor {
            Minor::Newest => "1.31.0",
            Minor::Previous => "1.30.4",
        }
    }
}

async fn ready(http: SocketAddr) -> std::result::Result<(), String> {
    let text = trimtab_lab::http::get(http, "/ready").await;
    text.map(drop).map_err(|error| error.to_string())
}

/// The API server finds the webhook as in a cluster, by the Service whose name its certificate has; this Service stands for
/// this machine.
fn webhook_objects(port: u16, authority: &str) -> Value {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "istiod", "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let webhook = json!({
        "name": "validation.istio.io",
        "clientConfig": {
            "service": {"name": "istiod", "namespace": NAMESPACE, "path": "/validate", "port": port},
            "caBundle": k8s_openapi::ByteString(authority.as_bytes().to_vec()),
        },
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["networking.istio.io"], "apiVersions": ["*"],
            "resources": ["sidecars"]}],
        "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istio-validator"}, "webhooks": [webhook],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, configuration]})
}

fn mesh_config(more: &Value) -> Result<String> {
    let mut mesh: Value = serde_json::from_str(MESH)
        .map_err(|error| ClusterError::Other(format!("MeshConfig: {error}")))?;
    for (key, value) in more.as_object().into_iter().flatten() {
        mesh[key] = value.clone();
    }
    Ok(mesh.to_string())
}

fn environment(namespace: &str, revision: &str) -> Vec<(String, String)> {
    [
        ("POD_NAME", "istiod"),
        ("POD_NAMESPACE", namespace),
        ("SERVICE_ACCOUNT", "istiod"),
        ("CLUSTER_ID", "Kubernetes"),
        ("REVISION", revision),
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("ENABLE_LEADER_ELECTION", "false"),
        ("PILOT_ENABLE_ALPN_FILTER", "false"),
        ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
        // No webhooks: nothing calls them, the injector has no cluster to inject into.
        ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
        ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
        // Changes of one test arrive alone, so that waiting for more only costs time.
        ("PILOT_DEBOUNCE_AFTER", "20ms"),
        ("PILOT_DEBOUNCE_MAX", "500ms"),
        ("PILOT_PUSH_THROTTLE", "100"),
        ("PILOT_MAX_REQUESTS_PER_SECOND", "1000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
