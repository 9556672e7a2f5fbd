//! A replica as a process of its own: this program again, with another test.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_cluster::{Cluster, wait_for};
use trimtab_kit::lease::Elector;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec};
use trimtab_xds::ECDS;

use crate::BOUND;

const CONFIG: &str = "TRIMTAB_REPLICA";

/// What is sent to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Kill,
    Terminate,
    Stop,
    Continue,
}

/// A process.
pub struct Replica {
    process: Process,
    user: String,
    http: SocketAddr,
    xds: SocketAddr,
}

impl Replica {
    /// Starts a replica with the rights of the user `replica-NUMBER` against `server` and waits until it is ready.
    pub async fn start(cluster: &Cluster, number: usize, server: &str) -> Self {
        let (http, xds) = (free_address().unwrap(), free_address().unwrap());
        let text = "xds: {address: 'XDS'}, mesh: {configMap: ''}, limiter: {delivery: EnvoyFilter}";
        let text = text.replace("XDS", &xds.to_string());
        Self::start_with(cluster, number, server, (http, xds), &text).await
    }

    /// As [`Self::start`], with a configuration besides where it listens for HTTP and the lease, for which the chart's times hold.
    pub async fn start_with(
        cluster: &Cluster,
        number: usize,
        server: &str,
        (http, xds): (SocketAddr, SocketAddr),
        more: &str,
    ) -> Self {
        let user = format!("replica-{number}");
        let kubeconfig = cluster.kubeconfig_by(&user, &user, server).unwrap();
        let config = cluster.dir().join(format!("{user}.yaml"));
        let text = format!(
            "{{http: {{address: '{http}'}}, {more}, \
             leaderElection: {{enabled: true, namespace: default, leaseDuration: 9s, renewDeadline: 4s, retryPeriod: 1s}}}}"
        );
        std::fs::write(&config, text).unwrap();
        let variable = |name: &str, path: &PathBuf| format!("{name}={}", path.display()).into();
        let mut args = vec![
            variable("KUBECONFIG", &kubeconfig),
            variable(CONFIG, &config),
        ];
        args.extend(program(&config));
        let process = Process::start(Spec {
            name: user.clone(),
            program: "/usr/bin/env".into(),
            args,
            log: cluster.dir().join(format!("{user}.log")),
        })
        .unwrap();
        let mut replica = Self {
            process,
            user,
            http,
            xds,
        };
        replica.ready().await;
        replica
    }

    async fn ready(&mut self) {
        let http = self.http;
        let ready = self.process.wait_ready(BOUND, || async move {
            let text = trimtab_lab::http::get(http, "/readyz").await;
            let text = text.map_err(|error| error.to_string())?;
            if text.starts_with("ok") {
                Ok(())
            } else {
                Err(text)
            }
        });
        ready.await.unwrap();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.process.restart().unwrap();
        self.ready().await;
    }

    #[allow(dead_code, reason = "the soak asks, which has this file too")]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Kill => "-KILL",
            Signal::Terminate => "-TERM",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        let pid = self.process.pid().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) {
        let process = &mut self.process;
        wait_for("the end of the process", BOUND, || {
            let running = process.is_running();
            async move {
                if running {
                    Err("it runs".to_owned())
                } else {
                    Ok(())
                }
            }
        })
        .await
        .unwrap();
    }

    /// What `/readyz` says.
    pub fn says(&self) -> impl Future<Output = String> + use<> {
        let http = self.http;
        async move {
            let asked = trimtab_lab::http::get(http, "/readyz");
            match tokio::time::timeout(Duration::from_secs(1), asked).await {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            }
        }
    }

    /// Waits until it knows that another one leads.
    pub async fn waits_for_another(&self) {
        wait_for("a replica that waits", BOUND, || async {
            let said = self.says().await;
            let other = said.contains("leader: trimtab_") && !said.contains("this replica");
            if other { Ok(()) } else { Err(said) }
        })
        .await
        .unwrap();
    }

    /// An xDS stream of a proxy, which tries again until the replica has its first snapshot.
    pub async fn stream(&self) -> Stream {
        wait_for("an xDS stream", BOUND, || self.open())
            .await
            .unwrap()
    }

    async fn open(&self) -> Result<Stream, String> {
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", self.xds))
            .await
            .map_err(|e| e.to_string())?;
        let (requests, receiver) = mpsc::channel(4);
        let node = Node {
            id: "proxy-0".to_owned(),
            ..Node::default()
        };
        let request = DiscoveryRequest {
            node: Some(node),
            type_url: ECDS.to_owned(),
            resource_names: vec!["none-has-this-name".to_owned()],
            ..DiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
        let receiver =
            futures::stream::unfold(receiver, |mut r| async move { Some((r.recv().await?, r)) });
        let responses = client
            .stream_aggregated_resources(receiver)
            .await
            .map_err(|status| status.to_string())?
            .into_inner();
        Ok(Stream {
            _requests: requests,
            responses,
        })
    }
}

/// The binary that `TRIMTAB_BIN` names, as of an image; without it this program again, with the test that runs a replica.
fn program(config: &Path) -> Vec<OsString> {
    if let Some(binary) = std::env::var_os("TRIMTAB_BIN") {
        return vec![binary, "run".into(), "--config".into(), config.into()];
    }
    let this = std::env::current_exe().unwrap();
    let test = ["--exact", "a_replica", "--ignored", "--nocapture"];
    std::iter::once(this.into_os_string())
        .chain(test.map(Into::into))
        .collect()
}

/// An open stream.
pub struct Stream {
    _requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    /// Whether the server has neither ended nor broken it.
    pub async fn is_open(&mut self) -> bool {
        loop {
            match tokio::time::timeout(Duration::from_millis(200), self.responses.message()).await {
                Err(_) => return true,
                Ok(Ok(Some(_))) => {}
                Ok(_) => return false,
            }
        }
    }
}

/// The process itself: as `trimtab run` does in a cluster.
pub fn run() {
    let Some(file) = std::env::var_os(CONFIG) else {
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::load(&PathBuf::from(file)).unwrap();
    trimtab::log::start(&config.log, "info");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let access = kube::Config::infer().await.unwrap();
        let lease = Elector::client(access.clone(), &config.leader_election.timing()).unwrap();
        let client = kube::Client::try_from(access).unwrap();
        let shutdown = CancellationToken::new();
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            stop.cancel();
        });
        let operator = Operator::start_elected(config, client, lease, shutdown)
            .await
            .unwrap();
        operator.wait().await.unwrap();
    });
}
