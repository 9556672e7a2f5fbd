//! The command line.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{FallbackInput, Listen, XdsAddress};
use trimtab_embedded::Embedded;
use trimtab_kit::sources::{FixedSource, MetricSource};
use trimtab_xds::Unresolved;

use crate::aeraki::AerakiBootstrapArgs;
use crate::bootstrap::BootstrapArgs;
use crate::config::Config;
use crate::describe::{self, DescribeArgs, XdsCommand};
use crate::fallback::FallbackArgs;
use crate::operator::Operator;
use crate::outputs::Outputs;
use crate::state::Statuses;
use crate::{help, log, manifests, outputs, standalone, translate};

/// Trimtab: adaptive rate limits, routes of any layer-7 protocol and lazily scoped sidecars for Istio
#[derive(Debug, Parser)]
#[command(name = "trimtab", version, arg_required_else_help = true, after_help = help::TRIMTAB)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: in a cluster, or with --standalone without one
    #[command(after_help = help::RUN)]
    Run(RunArgs),
    /// Print the Istio objects that would be written, from files, without a cluster
    #[command(after_help = help::TRANSLATE)]
    Translate {
        /// Files or folders with SmartLimiters, ServiceFences, MetaRouters, Redis objects and the Services, Pods,
        /// DestinationRules, VirtualServices, ServiceEntries and Gateways that they are for; - is standard input
        #[arg(short = 'f', long = "filename", required = true)]
        files: Vec<PathBuf>,
        /// Namespace of objects that name none, as with kubectl apply
        #[arg(short = 'n', long, default_value = "default")]
        namespace: String,
        /// Value of a metric, e.g. cpu=0.85
        #[arg(long = "metric", value_parser = translate::metric)]
        metrics: Vec<(String, f64)>,
        /// Output format
        #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Yaml)]
        output: Format,
        /// Also print what the xDS server would have
        #[arg(long)]
        xds: bool,
        /// Configuration file
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print the bootstrap of a plain Envoy that gets its configuration from run --standalone
    #[command(after_help = help::BOOTSTRAP)]
    Bootstrap(BootstrapArgs),
    /// Print the ConfigMaps without which Aeraki's proxies do not start
    #[command(after_help = help::AERAKI)]
    AerakiBootstrap(AerakiBootstrapArgs),
    /// Print the objects of the fallback that carries the first calls of scoped sidecars
    #[command(after_help = help::FALLBACK)]
    Fallback(FallbackArgs),
    /// Say what applies to an object, and why
    #[command(after_help = help::DESCRIBE)]
    Describe(DescribeArgs),
    /// Show the proxies at the xDS server of a running operator
    #[command(after_help = help::XDS)]
    Xds {
        #[command(subcommand)]
        command: XdsCommand,
    },
    /// Print the custom resource definitions
    #[command(after_help = help::CRDS)]
    Crds {
        /// Compare the manifests in this folder with the types instead
        #[arg(long, value_name = "DIR", conflicts_with = "write")]
        check: Option<PathBuf>,
        /// Write the manifests to this folder instead
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
    /// Print shell completions
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Configuration file
    #[arg(long)]
    config: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Runs the program. Exit code 0 = well, 1 = refused or failed, 2 = wrong usage.
pub fn main() -> ExitCode {
    // Two TLS providers in one process would make rustls refuse to choose; this one is ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let level = if matches!(cli.command, Command::Run(_)) {
        "info"
    } else {
        "error"
    };
    log::start(&log_of(&cli.command), level);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// How the command logs. A configuration that cannot be read is reported by the command itself.
fn log_of(command: &Command) -> log::Log {
    match command {
        Command::Run(RunArgs {
            config: Some(file), ..
        }) => Config::load(file).map(|c| c.log).unwrap_or_default(),
        _ => log::Log::default(),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    complain(&format!("trimtab: {}", in_words(error)));
    ExitCode::from(1)
}

/// The error and its causes. Some errors have their causes in their own words already.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match (said.is_empty(), said.contains(&cause)) {
            (true, _) => cause,
            (_, true) => said,
            _ => format!("{said}: {cause}"),
        }
    })
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn complain_of(refused: &[String]) {
    for refusal in refused {
        complain(&format!("refused: {refusal}"));
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `trimtab translate | head` is not an error.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Translate {
            files,
            namespace,
            metrics,
            output,
            xds,
            config,
        } => {
            let config = translate::configuration(config.as_deref())?;
            let metrics = metrics.into_iter().collect();
            let result = translate::run(&files, &namespace, &metrics, &config).await?;
            print_objects(&result, matches!(output, Format::Json), xds)
        }
        Command::Bootstrap(args) => {
            say(&args.text()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::AerakiBootstrap(args) => {
            let config = configuration(args.config.as_deref())?;
            say(&args.text(&config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fallback(args) => {
            let config = configuration(args.config.as_deref())?;
            say(&args.text(&config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Describe(args) => {
            let (text, refused) = describe::describe(args).await?;
            complain_of(&refused);
            say(&text)?;
            Ok(ExitCode::from(u8::from(!refused.is_empty())))
        }
        Command::Xds { command } => {
            let (text, differs) = describe::xds(command).await?;
            say(&text)?;
            Ok(ExitCode::from(u8::from(differs)))
        }
        Command::Crds { check, write } => {
            crds(check.as_deref(), write.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trimtab", &mut text);
            say(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn crds(check: Option<&Path>, write: Option<&Path>) -> anyhow::Result<()> {
    match (check, write) {
        (Some(dir), _) => manifests::check_crds(dir),
        (_, Some(dir)) => manifests::write_crds(dir),
        _ => manifests::crds()?
            .iter()
            .try_for_each(|(_, text)| say(&format!("---\n{text}"))),
    }
}

/// Objects on standard output, words on standard error.
fn print_objects(result: &translate::Output, json: bool, xds: bool) -> anyhow::Result<ExitCode> {
    result.notes.iter().for_each(|n| complain(n));
    complain_of(&result.refused);
    say(&translate::print(result, json, xds)?)?;
    Ok(ExitCode::from(u8::from(!result.refused.is_empty())))
}

fn configuration(file: Option<&Path>) -> anyhow::Result<Config> {
    file.map_or_else(|| Ok(Config::default()), Config::load)
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = configuration(args.config.as_deref())?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone());
    let Some(dir) = args.standalone.clone() else {
        let client = kube::Client::try_default()
            .await
            .context("no cluster: set KUBECONFIG, run in a pod, or use --standalone DIR")?;
        let config = Config {
            in_cluster: true,
            ..config
        };
        return Operator::start(config, client, shutdown)
            .await?
            .wait()
            .await;
    };
    Box::pin(run_standalone(args, &dir, config, shutdown)).await
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
    use super::*;

    fn proxies(more: &[&str]) -> anyhow::Result<Proxies> {
        let args = ["trimtab", "run", "--standalone", "dir"];
        let cli = Cli::try_parse_from(args.iter().chain(more))?;
        match cli.command {
            Command::Run(args) => args.proxies(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fault_o28_a_cause_is_said_once() {
        let io = anyhow::anyhow!("no such file");
        let error = io
            .context("cannot read x: no such file")
            .context("no cluster");
        assert_eq!(in_words(&error), "no cluster: cannot read x: no such file");
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
