//! The operator at scale: start, steady ticks, restart, moving values, a change of the whole mesh.
//!
//! The embedded API and the metrics are in a process of their own, so CPU time and memory are the operator's.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_bench::host::{self, Counts, Remote};
use trimtab_bench::mesh::Mesh;
use trimtab_bench::probe::{Probe, Tick, cpu_per_period};
use trimtab_bench::usage::{self, median};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::sources::{
    Handler, HandlerType, MetricSource, PrometheusConfig, PrometheusSource, Samples,
};
use trimtab_limiter::engine::Engine;
use trimtab_limiter::module::Limiter;

/// As in the shipped program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);
/// Nothing is written any more when nothing was for so long.
const QUIET: Duration = Duration::from_secs(2);
/// Runs of each pure step.
const ROUNDS: usize = 10;

/// Measures the operator with many limiters.
#[derive(Debug, Parser)]
struct Args {
    /// Services, with a SmartLimiter each.
    #[arg(long, default_value_t = 10_000)]
    limiters: usize,
    /// Ready pods in all.
    #[arg(long, default_value_t = 30_000)]
    pods: usize,
    /// Period of sampling, in seconds.
    #[arg(long, default_value_t = 5)]
    refresh: u64,
    /// Ticks of the steady stages; 7 of 5 seconds are long enough for a refresh of all status, which is due after 30.
    #[arg(long, default_value_t = 7)]
    ticks: usize,
    /// Ask a real Prometheus that scrapes all pods, not an endpoint that answers like one.
    #[arg(long)]
    real_prometheus: bool,
    /// Be the host of the API; started by the run itself.
    #[arg(long, hide = true)]
    host: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mesh = Mesh {
        limiters: args.limiters,
        pods: args.pods,
    };
    let result = if args.host {
        host::serve(mesh).await
    } else {
        run(&args, mesh).await
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A running operator and where its metrics go through.
struct Running {
    operator: Operator,
    engine: Arc<Engine>,
    probe: Arc<Probe<PrometheusSource>>,
    ready: Duration,
}

impl Running {
    async fn start(args: &Args, remote: &Remote, prometheus: &str) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.http.address.set_port(0);
        config.xds.address.set_port(0);
        config.edit::<Limiter>(|c| c.refresh = trimtab_crds::Duration::from_secs(args.refresh));
        let mut source = PrometheusConfig::new(prometheus);
        let query = "sum by (namespace, pod) (workload_cpu_ratio)";
        source
            .handlers
            .insert("cpu".to_owned(), Handler::new(query, HandlerType::PerPod));
        let probe = Arc::new(Probe::new(PrometheusSource::new(source)?));
        let url = format!("http://{}", remote.addresses.api)
            .parse()
            .context("address of the API")?;
        let client = kube::Client::try_from(kube::Config::new(url))?;
        let begin = Instant::now();
        let extra: Vec<Arc<dyn MetricSource>> = vec![probe.clone()];
        let operator =
            Operator::start_with(config, client, extra, CancellationToken::new()).await?;
        wait("readiness", || async {
            Ok(operator.readiness.missing().is_empty())
        })
        .await?;
        Ok(Self {
            engine: operator.get().context("no limiter")?,
            operator,
            probe,
            ready: begin.elapsed(),
        })
    }

    /// Waits for `count` more ticks and returns those from the last one before on.
    async fn ticks(&self, count: usize) -> anyhow::Result<Vec<Tick>> {
        let wanted = self.probe.ticks().len() + count + 1;
        wait("ticks", || async { Ok(self.probe.ticks().len() >= wanted) }).await?;
        Ok(self.probe.ticks())
    }

    /// Waits until nothing is written any more; returns when the last write was seen and what was counted.
    async fn settled(&self, remote: &Remote) -> anyhow::Result<(Instant, Counts)> {
        let (mut last, mut seen) = (Instant::now(), remote.counts().await?);
        let ticks = self.probe.ticks().len();
        let begin = Instant::now();
        loop {
            tokio::time::sleep(POLL).await;
            let now = remote.counts().await?;
            if (now.writes, now.asked) != (seen.writes, seen.asked) {
                (last, seen) = (Instant::now(), now);
            }
            let idle = self.engine.queue().depth() == 0 && self.probe.ticks().len() >= ticks + 2;
            if idle && last.elapsed() > QUIET {
                return Ok((last, seen));
            }
            ensure!(
                begin.elapsed() < BOUND,
                "writes go on for more than {} s: {now:?}",
                BOUND.as_secs()
            );
        }
    }
}

async fn wait<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !check().await? {
        ensure!(
            begin.elapsed() < BOUND,
            "no {what} within {} s",
            BOUND.as_secs()
        );
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn run(args: &Args, mesh: Mesh) -> anyhow::Result<()> {
    if args.limiters == 0 || args.pods < args.limiters {
        bail!(
            "--limiters {} --pods {}: at least one limiter, and a pod for each, are needed",
            args.limiters,
            args.pods
        );
    }
    row("machine", &usage::machine());
    row(
        "mesh",
        &format!(
            "{} limiters, {} pods, refresh {} s",
            args.limiters, args.pods, args.refresh
        ),
    );
    let begin = Instant::now();
    let remote = Remote::start(mesh).await?;
    row(
        "embedded API filled (other process)",
        &seconds(begin.elapsed()),
    );
    let real = if args.real_prometheus {
        Some(real_prometheus(&remote).await?)
    } else {
        None
    };
    let url = real.as_ref().map_or_else(
        || format!("http://{}", remote.addresses.metrics),
        |(p, _)| p.url(),
    );
    row(
        "metrics from",
        if real.is_some() {
            "a real Prometheus"
        } else {
            "an endpoint that answers like one"
        },
    );

    let running = first_start(args, &remote, &url).await?;
    steady(args, &running, &remote, "steady").await?;
    pure(&running)?;
    running.operator.stop().await?;
    let running = restart(args, &remote, &url).await?;
    remote.set_moving(true).await?;
    steady(args, &running, &remote, "moving values").await?;
    remote.set_moving(false).await?;
    whole_mesh(args, &running, &remote).await?;
    row(
        "peak memory of the operator, RSS",
        &format!("{:.0} MiB", usage::memory().peak),
    );
    running.operator.stop().await?;
    if let Some((prometheus, dir)) = real {
        drop(prometheus);
        let _ = std::fs::remove_dir_all(dir);
    }
    remote.stop().await
}

/// A Prometheus that has scraped all pods.
async fn real_prometheus(
    remote: &Remote,
) -> anyhow::Result<(trimtab_lab::prometheus::Prometheus, std::path::PathBuf)> {
    let dir = std::env::temp_dir().join(format!("trimtab-scale-{}", std::process::id()));
    let target = trimtab_lab::prometheus::Target::new(remote.addresses.metrics, "/metrics");
    let prometheus =
        trimtab_lab::prometheus::Prometheus::start(&dir, Duration::from_secs(2), &[target]).await?;
    prometheus
        .wait_value("count(workload_cpu_ratio)", Duration::from_secs(60), |n| {
            n > 0.0
        })
        .await?;
    Ok((prometheus, dir))
}

async fn first_start(args: &Args, remote: &Remote, url: &str) -> anyhow::Result<Running> {
    let before = usage::memory().resident;
    let (cpu, begin) = (usage::process_cpu(), Instant::now());
    let running = Running::start(args, remote, url).await?;
    row("start: lists until ready", &seconds(running.ready));
    let (last, counts) = running.settled(remote).await?;
    let held = remote.held().await?;
    ensure!(
        held.limiting == args.limiters && held.filters == args.limiters,
        "not all limiters are in force after the start: {held:?}"
    );
    row(
        "start: until all EnvoyFilters and status are written",
        &seconds(last - begin),
    );
    row(
        "start: CPU of the operator",
        &seconds(usage::process_cpu().saturating_sub(cpu)),
    );
    row("start: API writes", &written(Counts::default(), counts));
    row(
        "memory before the operator, RSS",
        &format!("{before:.0} MiB"),
    );
    row(
        "memory with all in force, RSS",
        &format!("{:.0} MiB", usage::memory().resident),
    );
    Ok(running)
}

/// Ticks while the operator has nothing else to do.
async fn steady(args: &Args, running: &Running, remote: &Remote, name: &str) -> anyhow::Result<()> {
    let before = remote.counts().await?;
    let ticks = running.ticks(args.ticks).await?;
    let after = remote.counts().await?;
    let cpu = cpu_per_period(&ticks, args.ticks);
    let recent = ticks
        .get(ticks.len().saturating_sub(args.ticks)..)
        .unwrap_or_default();
    let wall: Vec<Duration> = recent.iter().map(|t| t.wall).collect();
    let queries: Vec<usize> = recent.iter().map(|t| t.queries).collect();
    let sample_requests = recent.last().map_or(0, |t| t.sample_requests);
    let worst = cpu.iter().max().copied().unwrap_or_default();
    let middle = median(&cpu).context("no ticks")?;
    row(
        &format!("{name}: CPU of the operator per tick"),
        &format!(
            "{} median, {} worst of {}",
            millis(middle),
            millis(worst),
            cpu.len()
        ),
    );
    row(
        &format!("{name}: asking Prometheus, wall"),
        &format!("{} median", millis(median(&wall).context("no ticks")?)),
    );
    row(
        &format!("{name}: Prometheus queries per tick"),
        &format!(
            "{} for 1 handler, {sample_requests} demands",
            median(&queries).context("no ticks")?
        ),
    );
    row(
        &format!("{name}: API writes in {} ticks", args.ticks + 1),
        &written(before, after),
    );
    Ok(())
}

/// The synchronous part of a tick on one thread, with the values that the operator has now: nothing changes.
fn pure(running: &Running) -> anyhow::Result<()> {
    let engine = &running.engine;
    let (mut walls, mut asks) = (Vec::new(), Vec::new());
    let values: std::collections::BTreeMap<(String, String), _> = engine
        .views()
        .into_iter()
        .map(|v| ((v.namespace, v.name), v.metrics))
        .collect();
    let mut cpu = Duration::ZERO;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let book = engine.sample_requests(0);
        asks.push(begin.elapsed());
        let mut samples = Samples::default();
        for (sample_request, (owner, set)) in book.sample_requests.iter().zip(&book.owners) {
            let readings = values
                .get(&(owner.namespace.clone(), owner.name.clone()))
                .context("a limiter without a view")?;
            for name in &sample_request.metrics {
                let value = readings
                    .get(&format!("{set}.{name}"))
                    .and_then(|r| r.value)
                    .context("a metric without a value")?;
                samples
                    .values
                    .insert((sample_request.id, name.clone()), Ok(value));
            }
        }
        let (begin, before) = (Instant::now(), usage::thread_cpu());
        engine.apply_samples(&book, samples);
        walls.push(begin.elapsed());
        cpu += usage::thread_cpu().saturating_sub(before);
    }
    let rounds = u32::try_from(ROUNDS).unwrap_or(1);
    row(
        "pure: collect demands, wall",
        &format!(
            "{} median of {ROUNDS}",
            millis(median(&asks).context("no rounds")?)
        ),
    );
    row(
        "pure: take values and decide, wall",
        &format!(
            "{} median of {ROUNDS}",
            millis(median(&walls).context("no rounds")?)
        ),
    );
    row(
        "pure: take values and decide, thread CPU",
        &format!("{} mean of {ROUNDS}", millis(cpu / rounds)),
    );
    Ok(())
}

async fn restart(args: &Args, remote: &Remote, url: &str) -> anyhow::Result<Running> {
    let before = remote.counts().await?;
    let running = Running::start(args, remote, url).await?;
    let (_, after) = running.settled(remote).await?;
    let held = remote.held().await?;
    ensure!(
        held.limiting == args.limiters && held.filters == args.limiters,
        "a restart lost limits: {held:?}"
    );
    row("restart: lists until ready", &seconds(running.ready));
    row("restart: API writes (target 0)", &written(before, after));
    Ok(running)
}

/// The CPU of all pods falls: every limit of the mesh goes off in one tick.
async fn whole_mesh(args: &Args, running: &Running, remote: &Remote) -> anyhow::Result<()> {
    running.settled(remote).await?;
    let before = remote.counts().await?;
    remote.set_value(0.1).await?;
    let begin = Instant::now();
    wait("change of the mesh", || async {
        Ok(remote.counts().await?.writes > before.writes)
    })
    .await?;
    let first = Instant::now();
    let (last, after) = running.settled(remote).await?;
    let held = remote.held().await?;
    ensure!(
        held.limiting == 0 && held.filters == 0 && held.with_status == args.limiters,
        "not all limits went off: {held:?}"
    );
    row(
        "all limits off: load falls until first write",
        &seconds(first - begin),
    );
    row(
        "all limits off: first until last write",
        &seconds(last.saturating_duration_since(first)),
    );
    row("all limits off: API writes", &written(before, after));
    Ok(())
}

/// Prints a row when it is known: a run takes minutes.
fn row(name: &str, value: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "| {name:<52} | {value} |").and_then(|()| out.flush());
}

fn seconds(d: Duration) -> String {
    format!("{:.2} s", d.as_secs_f64())
}

fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}

fn written(before: Counts, after: Counts) -> String {
    let (writes, status) = (after.writes - before.writes, after.status - before.status);
    format!(
        "{writes} ({status} status), {} requests to write",
        after.asked - before.asked
    )
}
