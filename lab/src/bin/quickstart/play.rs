//! The run: what it plays on, second by second, and what it says.
//!
//! The scenario is the first example of the documentation: 30 requests a second, shared by the pods, while their CPU is
//! above 0.8. A load rises, the limit comes on and is split over two pods, a third pod joins, the load falls, the limit
//! goes off. The verdict at the end says whether all that was seen.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::limiter::Delivery;
use trimtab_embedded::Embedded;
use trimtab_limiter::engine::Engine;
use trimtab_limiter::module::Limiter;

use crate::report::{self, Row, Verdict};
use crate::scenario::Scenario;
use crate::{Options, simulated, stage};

/// The shortest run in which every step has time to be seen.
const SHORTEST: Duration = Duration::from_secs(30);
/// The objects that a user applies; the example folder is the same.
const OBJECTS: [(&str, &str); 3] = [
    (
        "service.yaml",
        include_str!("../../../../examples/quickstart/service.yaml"),
    ),
    ("pods.yaml", PODS),
    (
        "smartlimiter.yaml",
        include_str!("../../../../examples/quickstart/smartlimiter.yaml"),
    ),
];
const PODS: &str = include_str!("../../../../examples/quickstart/pods.yaml");

/// What the scenario plays on.
enum Stage {
    Real(Box<stage::Real>),
    Simulated(simulated::Simulated),
}

/// Runs the scenario. Exit code 0 only when the limit came on, was obeyed and went off; 3 when parts were missing and
/// decisions were shown on simulated metrics.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    if *options.duration < SHORTEST {
        bail!(
            "--for {}s is too short: every step needs time to be seen, use 30s or more",
            options.duration.as_secs()
        );
    }
    let missing = missing_parts();
    for part in &missing {
        say(&format!("missing: {part}"))?;
    }
    let scenario = Scenario::new(*options.duration);
    let shutdown = CancellationToken::new();
    let dir = std::env::temp_dir().join(format!("trimtab-quickstart-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let play = play(
        &options,
        &scenario,
        missing.is_empty(),
        &dir,
        shutdown.clone(),
    );
    let result = tokio::select! {
        result = play => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    shutdown.cancel();
    match result {
        Ok((rows, simulated)) => {
            let _ = std::fs::remove_dir_all(&dir);
            finish(&options, &scenario, &rows, simulated)
        }
        Err(error) => Err(error.context(format!("logs are in {}", dir.display()))),
    }
}

fn missing_parts() -> Vec<String> {
    let mut out = Vec::new();
    if let Err(error) = trimtab_lab::envoy::find() {
        out.push(error.to_string());
    }
    if let Err(error) = trimtab_lab::prometheus::find() {
        out.push(error.to_string());
    }
    out
}

async fn play(
    options: &Options,
    scenario: &Scenario,
    real: bool,
    dir: &Path,
    shutdown: CancellationToken,
) -> anyhow::Result<(Vec<Row>, bool)> {
    let embedded = standalone::embedded()?;
    for (name, text) in OBJECTS {
        for document in manifests::parse(Path::new(name), text)? {
            standalone::load(&embedded, &document)?;
        }
    }
    let (stage, operator) = if real {
        say("starting: embedded API, Trimtab, Prometheus, two pods with an Envoy each")?;
        let (stage, operator) = stage::Real::start(&embedded, dir, shutdown.clone()).await?;
        (Stage::Real(Box::new(stage)), operator)
    } else {
        say(
            "SIMULATED: decisions are real, metrics and answers are computed; install what is missing with `make deps`",
        )?;
        let stage = simulated::Simulated::new(scenario.clone());
        let sources = vec![stage.source()];
        let operator =
            Operator::start_with(config(), embedded.client(), sources, shutdown.clone()).await?;
        (Stage::Simulated(stage), operator)
    };
    if !options.no_open {
        say(&format!("status page: http://{}/", operator.http))?;
    }
    let rows = watch(scenario, stage, &operator, &embedded).await?;
    operator.stop().await?;
    Ok((rows, !real))
}

/// A one-second period, and ECDS.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Limiter>(|c| {
        c.refresh = trimtab_crds::Duration::from_secs(1);
        c.delivery = Delivery::Ecds;
    });
    config
}

/// Plays the scenario second by second and prints a row for each.
async fn watch(
    scenario: &Scenario,
    mut stage: Stage,
    operator: &Operator,
    embedded: &Embedded,
) -> anyhow::Result<Vec<Row>> {
    say(&report::header())?;
    let mut rows: Vec<Row> = Vec::new();
    let mut ticker = tokio::time::interval(Duration::from_secs(1));
    ticker.tick().await;
    let start = tokio::time::Instant::now();
    if let Stage::Real(real) = &mut stage {
        real.start_load(scenario.clone());
    }
    let mut scaled = false;
    for second in 0..scenario.seconds() {
        if !scaled && second >= scenario.scale_up_at() {
            scaled = true;
            match &mut stage {
                Stage::Real(real) => real.scale_up().await?,
                Stage::Simulated(_) => drop(embedded.load(pod(2)?)?),
            }
        }
        tokio::time::sleep_until(start + Duration::from_secs(second + 1)).await;
        let view = operator
            .get::<Engine>()
            .context("no limiter")?
            .views()
            .into_iter()
            .next()
            .context("the limiter is not there")?;
        let traffic = match &mut stage {
            Stage::Real(real) => real.second(second),
            Stage::Simulated(simulated) => simulated.second(
                second,
                view.pods,
                view.descriptors.first().and_then(|d| d.quota),
            ),
        };
        let row = Row::new(second, scenario.phase(second), traffic, &view);
        say(&row.line())?;
        rows.push(row);
    }
    if let Stage::Real(real) = stage {
        real.stop().await;
    }
    Ok(rows)
}

/// One more pod like the first of the example.
pub(crate) fn pod(index: usize) -> anyhow::Result<Value> {
    let first = PODS.split("---").next().unwrap_or_default();
    Ok(serde_saphyr::from_str(
        &first.replace("a-0", &format!("a-{index}")),
    )?)
}

fn finish(
    options: &Options,
    scenario: &Scenario,
    rows: &[Row],
    simulated: bool,
) -> anyhow::Result<ExitCode> {
    let plot = report::plot(rows, scenario, simulated);
    std::fs::write(&options.plot, plot)
        .with_context(|| format!("cannot write the plot to {}", options.plot.display()))?;
    let verdict = Verdict::of(rows);
    say("")?;
    for line in verdict.lines(simulated) {
        say(&line)?;
    }
    say(&format!("plot: {}", options.plot.display()))?;
    Ok(match (simulated, verdict.good()) {
        (true, _) => ExitCode::from(3),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
