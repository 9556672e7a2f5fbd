//! `trimtab check`: what is wrong with a cluster, before Trimtab is installed and beside one that runs.
//!
//! The file `gather` asks the cluster, `judge` decides, `print` shows. Only the first has effects.

pub mod facts;
pub mod finding;
mod gather;
pub mod judge;
pub mod print;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use serde::Serialize;

use crate::reach::Server;
use crate::shown::Output;
use finding::{Report, Severity};

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Namespace of the operator [default: where it is found, else istio-system]
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Configuration file to check instead of the one that is installed; its metric sources are asked from here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Least severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t = Severity::Error)]
    failure_threshold: Severity,
    #[command(flatten)]
    server: Server,
}

/// The report as JSON.
#[derive(Serialize)]
struct Answer<'r> {
    /// Whether Trimtab was found in the cluster.
    installed: bool,
    #[serde(flatten)]
    report: &'r Report,
}

/// What is wrong with the cluster of `client`. An error: there is nothing to check.
pub async fn report(
    client: Client,
    namespace: Option<&str>,
    config: Option<&Path>,
    server: &Server,
) -> anyhow::Result<Report> {
    let facts = Box::pin(gather::gather(client, namespace, config, server)).await?;
    Ok(judge::judge(&facts))
}

/// Checks; the text, and whether something is as bad as the threshold. An error: there is nothing to check.
pub(crate) async fn check(args: CheckArgs) -> anyhow::Result<(String, bool)> {
    let (namespace, config) = (args.namespace.as_deref(), args.config.as_deref());
    let access = kube::Config::infer().await;
    let access = access.context("no cluster: set KUBECONFIG, or run in a pod")?;
    let client = Client::try_from(access)?;
    let facts = Box::pin(gather::gather(client, namespace, config, &args.server)).await?;
    let report = judge::judge(&facts);
    let answer = Answer {
        installed: facts.operator.is_some(),
        report: &report,
    };
    let text = args.output.print(&answer, || print::text(&report))?;
    Ok((text, report.at_least(args.failure_threshold) > 0))
}

#[cfg(test)]
mod tests;
