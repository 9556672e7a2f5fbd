//! `trimtab run`: in a cluster, or on the objects of a folder.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{FallbackInput, Listen, XdsAddress};
use trimtab_embedded::Embedded;
use trimtab_kit::lease::Elector;
use trimtab_kit::sources::{FixedSource, MetricSource};
use trimtab_xds::Unresolved;

use crate::cli::{complain, complain_of, configuration};
use crate::config::Config;
use crate::operator::Operator;
use crate::outputs::Outputs;
use crate::state::Statuses;
use crate::{outputs, standalone, translate};

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Configuration file
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Run without a cluster on the objects of this folder; changes are followed
    #[arg(long, value_name = "DIR")]
    standalone: Option<PathBuf>,
    /// With --standalone: write generated objects to this folder
    #[arg(long, value_name = "DIR", requires = "standalone")]
    out: Option<PathBuf>,
    /// With --standalone: value of a metric, e.g. cpu=0.85; it stands in front of the sources of the configuration
    #[arg(long = "metric", value_name = "NAME=VALUE", requires = "standalone", value_parser = translate::metric)]
    metrics: Vec<(String, f64)>,
    /// With --standalone: file that keeps statuses over a restart [default with --out DIR: DIR.state.json]
    #[arg(long, value_name = "FILE", requires = "standalone")]
    state: Option<PathBuf>,
    /// With --standalone: serve the embedded API here for kubectl, e.g. 127.0.0.1:8001
    #[arg(long, value_name = "ADDR", requires = "standalone")]
    serve_api: Option<SocketAddr>,
    /// With --standalone: address on which plain Envoys listen for services
    #[arg(long, value_name = "ADDR", requires = "standalone", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// With --standalone: added to the ports of services, as an ordinary user may not open those below 1024
    #[arg(long, value_name = "N", requires = "standalone", default_value_t = 0)]
    port_offset: u16,
    /// With --standalone: address of a fallback proxy (group trimtab/fallback), which carries calls that a pod's Sidecar
    /// leaves out; once for each, and without any Sidecars are not followed
    #[arg(long, value_name = "ADDR", requires = "standalone")]
    fallback: Vec<IpAddr>,
    /// With --fallback: receiver of the access logs of fallback proxies
    #[arg(long, value_name = "HOST:PORT", requires = "fallback")]
    access_log: Option<XdsAddress>,
}

impl RunArgs {
    /// Where statuses are kept; `None`: nowhere.
    fn state_file(&self) -> Option<PathBuf> {
        let beside = |out: &PathBuf| {
            let out = out.canonicalize().ok()?;
            let mut name = out.file_name()?.to_owned();
            name.push(".state.json");
            Some(out.with_file_name(name))
        };
        self.state
            .clone()
            .or_else(|| self.out.as_ref().and_then(beside))
    }

    /// Metrics of the command line.
    fn sources(&self) -> Vec<Arc<dyn MetricSource>> {
        if self.metrics.is_empty() {
            return Vec::new();
        }
        let values = self.metrics.iter().cloned().collect();
        vec![Arc::new(FixedSource::new(values))]
    }

    fn proxies(&self) -> anyhow::Result<Proxies> {
        let mut seen = BTreeSet::new();
        for address in &self.fallback {
            anyhow::ensure!(
                !address.is_unspecified(),
                "--fallback {address}: proxies connect to it: write one address of the machine"
            );
            anyhow::ensure!(
                *address != self.bind,
                "--fallback {address}: other proxies listen there: use another address, or another --bind"
            );
            anyhow::ensure!(
                seen.insert(address),
                "--fallback {address}: it is written twice: write it once for each fallback proxy"
            );
        }
        let fallback = FallbackInput {
            addresses: self.fallback.clone(),
            access_log: self.access_log.clone(),
        };
        Ok(Proxies {
            listen: Listen::Address {
                address: self.bind,
                port_offset: self.port_offset,
            },
            fallback: Some(fallback).filter(|f| !f.addresses.is_empty()),
        })
    }
}

/// Runs until a signal comes.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = configuration(args.config.as_deref())?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone());
    let Some(dir) = args.standalone.clone() else {
        let access = kube::Config::infer()
            .await
            .context("no cluster: set KUBECONFIG, run in a pod, or use --standalone DIR")?;
        let lease = Elector::client(access.clone(), &config.leader_election.timing())?;
        let client = kube::Client::try_from(access)?;
        let config = Config {
            in_cluster: true,
            pod: own_pod(),
            ..config
        };
        return Operator::start_elected(config, client, lease, shutdown)
            .await?
            .wait()
            .await;
    };
    // The embedded API is this process' own.
    let mut config = config;
    config.leader_election.enabled = false;
    Box::pin(run_standalone(args, &dir, config, shutdown)).await
}

/// Namespace and name of the pod, as the chart hands them in.
fn own_pod() -> Option<(String, String)> {
    let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some((of("POD_NAMESPACE")?, of("POD_NAME")?))
}

/// The operator on the embedded API, and the tasks around it, which are watched like its own.
async fn run_standalone(
    args: RunArgs,
    dir: &Path,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Config {
        data_plane: Some(args.proxies()?),
        ..config
    };
    let embedded = standalone::embedded()?;
    standalone::ensure_roots(&embedded, &config)?;
    let mut folder = standalone::Folder::new(dir, embedded.clone());
    let refused = folder.sync().await;
    complain_of(&refused.with_context(|| format!("--standalone {}", dir.display()))?);
    if let Some(out) = &args.out {
        outputs::outside(out, dir)?;
    }
    if let Some(folder) = args.state.as_deref().and_then(Path::parent) {
        outputs::separate("--state", folder, dir)?;
    }
    let api = match args.serve_api {
        Some(address) => Some(listen_api(address).await?),
        None => None,
    };
    let config = Config {
        unresolved: is_unknown(&folder),
        ..config
    };
    let mut statuses = args
        .state_file()
        .map(|f| Statuses::new(f, embedded.clone()));
    if let Some(statuses) = &mut statuses {
        statuses.restore().await?;
    }
    let (client, sources) = (embedded.client(), args.sources());
    let mut operator = Operator::start_with(config, client, sources, shutdown.clone()).await?;
    let folder = folder.shown_at(operator.readiness.block(standalone::FOLDER));
    let (cache, stop) = (operator.cache.clone(), shutdown.clone());
    operator.add_task("folder", async move {
        let known = || cache.set_unresolved(standalone::FOLDER, &Unresolved::Nothing);
        folder.follow(known, stop).await;
        Ok(())
    });
    if let Some(listener) = api {
        let (api, stop) = (embedded.clone(), shutdown.clone());
        operator.add_task("embedded API", async move {
            Ok(api.serve(listener, stop).await?)
        });
    }
    keep_files(&mut operator, statuses, args.out, &embedded, &shutdown);
    operator.wait().await
}

/// Starts what writes files: statuses, and generated objects.
fn keep_files(
    operator: &mut Operator,
    statuses: Option<Statuses>,
    out: Option<PathBuf>,
    embedded: &Embedded,
    shutdown: &CancellationToken,
) {
    if let Some(statuses) = statuses {
        let stop = shutdown.clone();
        operator.add_task("state file", async move {
            statuses.follow(stop).await;
            Ok(())
        });
    }
    if let Some(out) = out {
        let client = embedded.client();
        let files = Outputs::new(client, out, operator.readiness.clone(), operator.outputs());
        let stop = shutdown.clone();
        operator.add_task("output writer", async move {
            files.follow(stop).await;
            Ok(())
        });
    }
}

/// Whether proxies may have something of the folder that cannot be read; says so.
fn is_unknown(folder: &standalone::Folder) -> bool {
    if !folder.is_known() {
        complain(
            "proxies keep what they have from before the start, and get what changes from now on, until these files are corrected or removed",
        );
    }
    !folder.is_known()
}

async fn listen_api(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--serve-api {address}: cannot listen"))?;
    tracing::info!(address = %listener.local_addr()?, "embedded API: kubectl --server http://{address} get smartlimiters");
    Ok(listener)
}

/// The first signal stops in order, the second at once.
fn stop_on_signal(shutdown: CancellationToken) {
    tokio::spawn(async move {
        wait_for_signal().await;
        tracing::info!("stopping");
        shutdown.cancel();
        wait_for_signal().await;
        std::process::exit(130);
    });
}

async fn wait_for_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn proxies(more: &[&str]) -> anyhow::Result<Proxies> {
        let args = ["run", "--standalone", "dir"];
        Line::try_parse_from(args.iter().chain(more))?.run.proxies()
    }

    #[test]
    fn fallback_proxies_have_addresses_of_their_own() {
        assert_eq!(proxies(&[]).unwrap(), Proxies::default());
        let two = ["--fallback", "127.0.0.2", "--fallback", "127.0.0.3"];
        let found = proxies(&[two.as_slice(), &["--access-log", "logs:8082"]].concat()).unwrap();
        let fallback = found.fallback.unwrap();
        assert_eq!(fallback.addresses.len(), 2);
        assert_eq!(fallback.access_log.unwrap().to_string(), "logs:8082");
        for (wrong, why) in [
            (["--fallback", "0.0.0.0"].as_slice(), "connect to it"),
            (&["--fallback", "127.0.0.1"], "other proxies"),
            (&["--fallback", "::1", "--fallback", "::1"], "twice"),
            (&["--access-log", "logs:8082"], "--fallback"),
            (&["--fallback", "::1", "--access-log", "logs"], "HOST:PORT"),
        ] {
            let error = proxies(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
