//! The quickstart: the main job on this machine, with real parts when they are installed.

mod play;
mod report;
mod scenario;
mod simulated;
mod stage;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trimtab_crds::Duration;

/// See Trimtab work on this machine: real Envoys and Prometheus, real requests, a live table and a plot.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Options {
    /// How long, e.g. 60s
    #[arg(long = "for", default_value = "60s")]
    duration: Duration,
    /// Where the plot is written
    #[arg(long, default_value = "quickstart.svg")]
    plot: PathBuf,
    /// Do not name the status page to open
    #[arg(long)]
    no_open: bool,
}

/// Exit code 0 = all was seen, 1 = something was not, 2 = wrong usage, 3 = it could only simulate.
fn main() -> ExitCode {
    // Two TLS providers in one process would make rustls refuse to choose; this one is ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(play::run(options)));
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "quickstart: {error:#}");
        ExitCode::from(1)
    })
}
