//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::aeraki::AerakiBootstrapArgs;
use crate::bootstrap::BootstrapArgs;
use crate::check::{self, CheckArgs};
use crate::config::Config;
use crate::describe::{self, DescribeArgs, XdsCommand};
use crate::fallback::FallbackArgs;
use crate::migrate::{self, MigrateArgs};
use crate::prove::ProveArgs;
use crate::run::{RunArgs, run};
use crate::version::{self, VersionArgs};
use crate::{help, log, manifests, translate};

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
    /// Say what is wrong with a cluster, before Trimtab is installed and while it runs
    #[command(after_help = help::CHECK)]
    Check(CheckArgs),
    /// Show the proxies at the xDS server of a running operator
    #[command(after_help = help::XDS)]
    Xds {
        #[command(subcommand)]
        command: XdsCommand,
    },
    /// Say what a migration to Trimtab is: what stays, what changes, what to decide, values of the chart, steps
    #[command(after_help = help::MIGRATE)]
    Migrate(MigrateArgs),
    /// Print the custom resource definitions
    #[command(after_help = help::CRDS)]
    Crds {
        /// Compare the manifests in this folder with the types instead
        #[arg(long, value_name = "DIR", conflicts_with = "write")]
        check: Option<PathBuf>,
        /// Write the manifests to this folder instead
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
        /// Also the original SmartLimiter API, microservice.netease.com: kubectl then takes `smartlimiters` for that one
        #[arg(long, conflicts_with_all = ["check", "write"])]
        first_form: bool,
    },
    /// Send requests until a limit holds; helm test runs it
    #[command(after_help = help::PROVE)]
    ProveLimit(ProveArgs),
    /// Print the version, and that of the operator
    #[command(after_help = help::VERSION)]
    Version(VersionArgs),
    /// Print shell completions
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
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

pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn complain_of(refused: &[String]) {
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

/// A text, and whether the exit code is 1.
fn say_with_code((text, failed): &(String, bool)) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::from(u8::from(*failed)))
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
            let described = describe::describe(args).await?;
            complain_of(&described.refused);
            say(&described.text)?;
            let failed = described.unanswered || !described.refused.is_empty();
            Ok(ExitCode::from(u8::from(failed)))
        }
        Command::Check(args) => checked(args).await,
        Command::Version(args) => say_with_code(&version::version(args).await?),
        Command::Xds { command } => say_with_code(&describe::xds(command).await?),
        Command::Migrate(args) => migrated(&args).await,
        Command::Crds {
            check,
            write,
            first_form,
        } => crds(check.as_deref(), write.as_deref(), first_form).map(|()| ExitCode::SUCCESS),
        Command::ProveLimit(args) => {
            say(&args.prove().await?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trimtab", &mut text);
            say(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn checked(args: CheckArgs) -> anyhow::Result<ExitCode> {
    match check::check(args).await {
        Ok(answer) => say_with_code(&answer),
        // Exit code 1 says that something was found.
        Err(error) => {
            complain(&format!("trimtab: {}", in_words(&error)));
            Ok(ExitCode::from(2))
        }
    }
}

async fn migrated(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let done = migrate::migrate(args).await?;
    done.remarks.iter().for_each(|line| complain(line));
    say(&done.text)?;
    Ok(ExitCode::from(u8::from(!done.complete)))
}

fn crds(check: Option<&Path>, write: Option<&Path>, first_form: bool) -> anyhow::Result<()> {
    match (check, write) {
        (Some(dir), _) => manifests::check_crds(dir),
        (_, Some(dir)) => manifests::write_crds(dir),
        _ => manifests::crds()?
            .iter()
            .filter(|(name, _)| first_form || !manifests::is_first_form(name))
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

pub(crate) fn configuration(file: Option<&Path>) -> anyhow::Result<Config> {
    file.map_or_else(|| Ok(Config::default()), Config::load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_o28_a_cause_is_said_once() {
        let io = anyhow::anyhow!("no such file");
        let error = io
            .context("cannot read x: no such file")
            .context("no cluster");
        assert_eq!(in_words(&error), "no cluster: cannot read x: no such file");
    }
}
