//! Load on the xDS server: many streams to Trimtab's server, to go-control-plane and to a bare socket loop, with the same
//! resources and the same clients in one run. README.md says what is measured and how to read it.

mod churn;
mod fleet;
mod http2;
mod lazy;
mod memory;
mod nack;
mod ours;
mod plan;
mod race;
mod raw;
mod report;
mod server;
mod storm;
mod targets;
mod wire;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

use crate::report::Report;

#[derive(Debug, Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the benchmark.
    Run(Run),
    /// Be Trimtab's server; the benchmark starts this.
    Serve,
    /// Be the bare socket loop; the benchmark starts this.
    Floor,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Small sizes and few rounds, below half a minute.
    #[arg(long)]
    quick: bool,
    /// The program of peer-go.
    #[arg(long)]
    peer: PathBuf,
    /// Where the results go.
    #[arg(long)]
    out: PathBuf,
    /// Only these lines, for example X1; several can be given.
    #[arg(long)]
    only: Vec<String>,
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cpus} CPUs")
}

async fn run(args: Run) -> Result<()> {
    ensure!(
        args.peer.is_file(),
        "{} is not there; `make bench-xds` builds it",
        args.peer.display()
    );
    let begin = Instant::now();
    let mut report = Report {
        machine: machine(),
        quick: args.quick,
        resource_bytes: plan::SIZE,
        ..Report::default()
    };
    plan::run(&mut report, &args.peer, args.quick, &args.only).await?;
    targets::judge(&mut report);
    report.seconds = begin.elapsed().as_secs_f64();
    report.write(&args.out)?;
    println!("{}", report.table());
    println!("{:.0} s; results in {}", report.seconds, args.out.display());
    Ok(())
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Serve => ours::serve(),
        Command::Floor => raw::serve(),
        Command::Run(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, run(args))
        }
    }
}
