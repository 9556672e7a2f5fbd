//! A real overload, with real Envoys and a real Prometheus: what keeps a service at its capacity, and what does not.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use trimtab_bench::real::operator::Objects;
use trimtab_bench::real::predict::predict;
use trimtab_bench::real::report::{Run, decisions, picture, predictions, table};
use trimtab_bench::real::run_variant;
use trimtab_bench::real::schedule::FULL;
use trimtab_bench::real::variant::{ALL, Variant};

/// Compares what protects a service in a real overload.
#[derive(Debug, Parser)]
struct Args {
    /// Only variants whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Also runs the operator with the SmartLimiter of this file, which is named `service`.
    #[arg(long)]
    limiter: Option<PathBuf>,
    /// Configuration of that operator.
    #[arg(long, requires = "limiter")]
    config: Option<PathBuf>,
    /// Variants that run at the same time, each with proxies and a Prometheus of its own.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// Seed of the arrivals, the same for all variants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seeds of Plant A, from 1001 on.
    #[arg(long, default_value_t = 20)]
    simulated: u64,
    /// Runs nothing, and says what Plant A says, in seconds.
    #[arg(long)]
    predict: bool,
    /// Prints every decision.
    #[arg(long)]
    decisions: bool,
    /// Where logs and `overload.json` go.
    #[arg(long, default_value = "target/bench/overload")]
    out: PathBuf,
    /// Also writes the picture here.
    #[arg(long)]
    picture: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The operator's client asks for one; it fails only where there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match bench(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(args: Args) -> anyhow::Result<()> {
    let operator = operator(&args)?.map(Variant::Operator);
    let chosen = ALL.into_iter().chain(operator).filter(|variant| {
        let only = args.only.as_deref().unwrap_or_default();
        variant.name().contains(only)
    });
    if args.predict {
        let figures = chosen.filter_map(|variant| {
            let figures = predict(variant, 1001..1001 + args.simulated)?;
            Some((variant.name(), figures))
        });
        println!("{}", predictions(&figures.collect::<Vec<_>>()));
        return Ok(());
    }
    let runs: Vec<Run> = stream::iter(chosen.enumerate())
        .map(|(index, variant)| one(&args, index, variant))
        .buffered(args.at_once.max(1))
        .try_collect()
        .await?;
    if args.decisions {
        for run in &runs {
            println!("{}\n{}", run.variant, decisions(run));
        }
    }
    println!("{}", table(&runs));
    let file = args.out.join("overload.json");
    fs::write(&file, serde_json::to_string_pretty(&runs)?)
        .with_context(|| file.display().to_string())?;
    fs::write(args.out.join("overload.svg"), picture(&runs))?;
    if let Some(file) = &args.picture {
        fs::write(file, picture(&runs)).with_context(|| file.display().to_string())?;
    }
    println!("each second and each decision: {}", file.display());
    Ok(())
}

fn operator(args: &Args) -> anyhow::Result<Option<Objects>> {
    let read =
        |file: &PathBuf| fs::read_to_string(file).with_context(|| file.display().to_string());
    let Some(limiter) = &args.limiter else {
        return Ok(None);
    };
    let config = args.config.as_ref().map(read).transpose()?;
    Ok(Some(Objects {
        limiter: read(limiter)?.leak(),
        config: config.unwrap_or("{}".to_owned()).leak(),
    }))
}

async fn one(args: &Args, index: usize, variant: Variant) -> anyhow::Result<Run> {
    let dir = args.out.join(index.to_string());
    // A log of an earlier run would be read as one of this.
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let (record, decisions) = run_variant(variant, FULL, &dir, args.seed)
        .await
        .with_context(|| variant.name())?;
    let simulated = predict(variant, 1001..1001 + args.simulated);
    let run = Run::new(FULL, variant, record, decisions, simulated);
    eprintln!(
        "{}: {:.2} of what could have been answered",
        run.variant, run.figures.good
    );
    Ok(run)
}
