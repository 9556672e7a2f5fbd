//! etcd, kube-apiserver and kube-controller-manager.

mod crds;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;
use trimtab_lab::ports::free_port;
use trimtab_lab::process::cache_dir;

use self::crds::own_crds;
use crate::child::{Child, Spec};
use crate::{ClusterError, Result, tools};

const START_BOUND: Duration = Duration::from_secs(90);
const ADMIN_TOKEN: &str = "trimtab-test-admin";
/// What the API server records of an audited cluster: each write, and what Leases say.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "RequestResponse", "verbs": ["create", "update", "patch", "delete"], "resources": [{"group": "coordination.k8s.io"}]},
    {"level": "Metadata", "verbs": ["create", "update", "patch", "delete"]},
    {"level": "None"}]}"#;
/// Users of an audited cluster besides the administrator, with all rights; their tokens are their names.
const AUDITED_USERS: [&str; 3] = ["replica-0", "replica-1", "replica-2"];
/// Set to 1 to use the cluster of `KUBECONFIG` instead of starting one.
const USE_EXISTING: &str = "TRIMTAB_USE_KUBECONFIG";
/// Folders of earlier runs that are kept for their logs.
const RUNS_KEPT: usize = 8;

/// A control plane with the CRDs of Istio and Trimtab; dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    kubeconfig: PathBuf,
    server: String,
    /// etcd, kube-apiserver, kube-controller-manager; none of an existing cluster.
    processes: Mutex<Vec<Child>>,
}

/// A process of the control plane that a test kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The storage.
    Etcd,
    /// The API server.
    ApiServer,
}

/// A failure is kept too: the tests after the first need not wait for the same failure again.
static SHARED: OnceCell<std::result::Result<Cluster, String>> = OnceCell::const_new();

impl Cluster {
    /// The cluster of this process, started at the first call: tests share it and have a [`crate::Namespace`] each.
    pub async fn shared() -> Result<&'static Self> {
        let start = || async { Self::start().await.map_err(|error| error.to_string()) };
        let shared = SHARED.get_or_init(start).await;
        shared
            .as_ref()
            .map_err(|error| ClusterError::Other(error.clone()))
    }

    /// Starts a control plane of its own, or takes the one of `KUBECONFIG` when `TRIMTAB_USE_KUBECONFIG=1`.
    pub async fn start() -> Result<Self> {
        if std::env::var(USE_EXISTING).is_ok_and(|value| value == "1") {
            ring();
            return Self::existing(run_folder()?).await;
        }
        Self::start_with(&[tools::find("crds.yaml")?, own_crds()?]).await
    }

    /// Starts a control plane as a user finds it: Istio's CRDs are there, ours are not.
    pub async fn without_trimtab() -> Result<Self> {
        Self::start_with(&[tools::find("crds.yaml")?]).await
    }

    /// Starts a control plane without Istio's CRDs, with ours.
    pub async fn without_istio() -> Result<Self> {
        Self::start_with(&[own_crds()?]).await
    }

    /// Starts a control plane of its own that records all writes in [`Self::audit_log`], and knows the users `replica-0` to
    /// `replica-2`, whose tokens are their names and who may do everything.
    pub async fn audited() -> Result<Self> {
        Self::start_as(&[tools::find("crds.yaml")?, own_crds()?], true).await
    }

    /// The audit log of [`Self::audited`]: a JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    async fn start_with(crds: &[PathBuf]) -> Result<Self> {
        Self::start_as(crds, false).await
    }

    async fn start_as(crds: &[PathBuf], audited: bool) -> Result<Self> {
        ring();
        let dir = run_folder()?;
        let port = free_port()?;
        let (etcd, client_url) = start_etcd(&dir)?;
        let mut api = start_api_server(&dir, port, &client_url, audited)?;
        wait_listening(&mut api, port, &dir).await?;
        let kubeconfig = dir.join("kubeconfig");
        write(
            &kubeconfig,
            &kubeconfig_text(port, &dir.join("certs/apiserver.crt")),
        )?;
        let cluster = Self {
            dir,
            kubeconfig,
            server: format!("https://127.0.0.1:{port}"),
            processes: Mutex::default(),
        };
        cluster.wait_served(&mut api).await?;
        cluster.install_crds(crds).await?;
        // Last, because its garbage collector looks for new kinds only every 30 s.
        let controllers = start_controllers(&cluster.dir, &cluster.kubeconfig)?;
        cluster.processes().extend([etcd, api, controllers]);
        Ok(cluster)
    }

    async fn existing(dir: PathBuf) -> Result<Self> {
        let config = Kubeconfig::read()?;
        let text = serde_saphyr::to_string(&config)
            .map_err(|error| ClusterError::Other(format!("KUBECONFIG: {error}")))?;
        let kubeconfig = dir.join("kubeconfig");
        write(&kubeconfig, &text)?;
        let server = config
            .clusters
            .first()
            .and_then(|c| c.cluster.as_ref()?.server.clone())
            .unwrap_or_default();
        let cluster = Self {
            dir,
            kubeconfig,
            server,
            processes: Mutex::default(),
        };
        cluster
            .install_crds(&[tools::find("crds.yaml")?, own_crds()?])
            .await?;
        Ok(cluster)
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Child>> {
        // A list of processes is whole after a panic too.
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills a process as `kill -9` does. Only for a cluster of a test's own.
    pub fn kill(&self, part: Part) {
        if let Some(child) = self.processes().get_mut(part as usize) {
            child.crash();
        }
    }

    /// Starts a killed process again on its data and waits until the API server answers.
    pub async fn restart(&self, part: Part) -> Result<()> {
        if let Some(child) = self.processes().get_mut(part as usize) {
            child.start_again()?;
        }
        let client = self.client().await?;
        crate::wait_for("the API server", START_BOUND, || served(client.clone())).await
    }

    /// Folder of this run: logs, certificates, configuration.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubeconfig with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A client with all rights. Its connections belong to the runtime that it was made in, so each test takes its own.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// A client that has nothing but a token, e.g. that of a service account.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        let mut config = self.config().await?;
        config.auth_info = kube::config::AuthInfo {
            token: Some(token.to_owned().into()),
            ..Default::default()
        };
        Ok(Client::try_from(config)?)
    }

    /// As [`Self::kubeconfig_with_token`], for an API server that is reached at another address of loopback.
    pub fn kubeconfig_by(&self, name: &str, token: &str, server: &str) -> Result<PathBuf> {
        let path = self.kubeconfig_with_token(name, token)?;
        let text = std::fs::read_to_string(&path).map_err(ClusterError::file(&path))?;
        write(&path, &text.replace(&self.server, server))?;
        Ok(path)
    }

    /// Writes a kubeconfig whose user has nothing but a token.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        let text = std::fs::read_to_string(&self.kubeconfig)
            .map_err(ClusterError::file(&self.kubeconfig))?
            .replace(ADMIN_TOKEN, token);
        let path = self.dir.join(format!("{name}.kubeconfig"));
        write(&path, &text)?;
        Ok(path)
    }

    async fn config(&self) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// Runs `kubectl` of the API server's version; its standard output.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        self.run("kubectl", args, input).await
    }

    /// Runs `helm`; its standard output.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.run("helm", args, "").await
    }

    /// Runs `istioctl`; its standard output.
    pub async fn istioctl(&self, args: &[&str]) -> Result<String> {
        self.run("istioctl", args, "").await
    }

    async fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let mut child = tokio::process::Command::new(tools::find(program)?)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            // What an API server of an earlier run at the same port had would count otherwise.
            .env("KUBECACHEDIR", self.dir.join("kube/cache"))
            .env("HELM_CACHE_HOME", self.dir.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.dir.join("helm/config"))
            .env("HELM_DATA_HOME", self.dir.join("helm/data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(ClusterError::file(program))?;
        if let Some(mut stdin) = child.stdin.take() {
            tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes())
                .await
                .map_err(ClusterError::file(program))?;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(ClusterError::file(program))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(ClusterError::Command {
            command: format!("{program} {}", args.join(" ")),
            status: output.status.to_string(),
            output: text + &String::from_utf8_lossy(&output.stderr),
        })
    }

    /// The port listens some seconds before the built-in roles and namespaces exist.
    async fn wait_served(&self, api: &mut Child) -> Result<()> {
        let client = self.client().await?;
        api.wait_ready(START_BOUND, || served(client.clone())).await
    }
}

async fn served(client: Client) -> std::result::Result<(), String> {
    let request = http_get("/readyz")?;
    let text = client.request_text(request).await;
    text.map(drop).map_err(|error| error.to_string())
}

fn http_get(path: &str) -> std::result::Result<http::Request<Vec<u8>>, String> {
    http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())
}

/// rustls asks for one process-wide provider; a second call finds it installed.
fn ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn args(list: &[String]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = std::fs::File::create(path).map_err(ClusterError::file(path))?;
    file.write_all(text.as_bytes())
        .map_err(ClusterError::file(path))
}

/// A folder for this run; those of old runs are removed but for the newest.
fn run_folder() -> Result<PathBuf> {
    let runs = cache_dir().join("cluster/runs");
    let mut old: Vec<_> = std::fs::read_dir(&runs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(_, path)| {
            let pid = path
                .file_name()
                .and_then(|n| n.to_str()?.split('-').next()?.parse::<u32>().ok());
            // A folder of a process that still runs is in use.
            pid.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        })
        .collect();
    old.sort();
    for (_, path) in old.iter().rev().skip(RUNS_KEPT) {
        // Another process may be removing it at this moment.
        let _ = std::fs::remove_dir_all(path);
    }
    for number in 0.. {
        let dir = runs.join(format!("{}-{number}", std::process::id()));
        if !dir.exists() {
            std::fs::create_dir_all(&dir).map_err(ClusterError::file(&dir))?;
            return Ok(dir);
        }
    }
    Err(ClusterError::Other("no free folder name".to_owned()))
}

fn start_etcd(dir: &Path) -> Result<(Child, String)> {
    let (client, peer) = (free_port()?, free_port()?);
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let data = dir.join("etcd");
    let child = Child::start(Spec {
        name: "etcd",
        program: tools::find("etcd")?,
        args: args(&[
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // The data end with the test.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]),
        dir: dir.to_owned(),
        remove: Some(data),
        ..Spec::default()
    })?;
    Ok((child, client))
}

/// Arguments of an API server that records writes.
fn auditing(dir: &Path) -> Result<Vec<OsString>> {
    let policy = dir.join("audit.yaml");
    write(&policy, AUDIT_POLICY)?;
    Ok(args(&[
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", dir.join("audit.log").display()),
        // What a test reads must be there when the request is answered.
        "--audit-log-mode=blocking".to_owned(),
    ]))
}

fn start_api_server(dir: &Path, port: u16, etcd: &str, audited: bool) -> Result<Child> {
    let key = dir.join("service-account.key");
    let pair =
        rcgen::KeyPair::generate().map_err(|error| ClusterError::Other(error.to_string()))?;
    write(&key, &pair.serialize_pem())?;
    let public = dir.join("service-account.pub");
    write(&public, &pair.public_key_pem())?;
    let tokens = dir.join("tokens.csv");
    let mut users = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
    for user in AUDITED_USERS.iter().filter(|_| audited) {
        users += &[user, user, user, "\"system:masters\"\n"].join(",");
    }
    write(&tokens, &users)?;
    let audit = if audited { auditing(dir)? } else { Vec::new() };
    Child::start(Spec {
        name: "kube-apiserver",
        program: tools::find("kube-apiserver")?,
        args: args(&[
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", dir.join("certs").display()),
            format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", public.display()),
            format!("--service-account-signing-key-file={}", key.display()),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // Its own address is loopback, which an Endpoints object may not have.
            "--endpoint-reconciler-type=none".to_owned(),
            // Pods need no service account token: nothing runs in them.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ])
        .into_iter()
        .chain(audit)
        .collect(),
        dir: dir.to_owned(),
        ..Spec::default()
    })
}

fn start_controllers(dir: &Path, kubeconfig: &Path) -> Result<Child> {
    let controllers = "garbage-collector-controller,namespace-controller,endpointslice-controller,\
                       serviceaccount-controller";
    Child::start(Spec {
        name: "kube-controller-manager",
        program: tools::find("kube-controller-manager")?,
        args: args(&[
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--controllers={controllers}"),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", free_port()?),
            format!("--cert-dir={}", dir.join("certs").display()),
            format!(
                "--root-ca-file={}",
                dir.join("certs/apiserver.crt").display()
            ),
        ]),
        dir: dir.to_owned(),
        ..Spec::default()
    })
}

async fn wait_listening(api: &mut Child, port: u16, dir: &Path) -> Result<()> {
    let certificate = dir.join("certs/apiserver.crt");
    api.wait_ready(START_BOUND, || {
        let certificate = certificate.clone();
        async move {
            if !certificate.is_file() {
                return Err("it has not written its certificate".to_owned());
            }
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    })
    .await
}

fn kubeconfig_text(port: u16, certificate: &Path) -> String {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": certificate,
        }}],
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    });
    // JSON is YAML.
    config.to_string()
}
