//! A real overload: pods whose capacity is a pool of workers, each behind an Envoy, a Prometheus that scrapes them, and clients
//! that neither wait for each other nor for long.

pub mod client;
pub mod control;
pub mod figures;
pub mod measure;
pub mod operator;
pub mod predict;
pub mod report;
pub mod schedule;
pub mod stage;
pub mod variant;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use client::Record;
use control::{Control, Decision, change_speed};
use schedule::Schedule;
use stage::Stage;
use variant::Variant;

/// Pods of the service.
pub const PODS: usize = 2;
/// Workers of a pod.
pub const WORKERS: usize = 8;
/// How long a worker takes for a request.
pub const SERVICE: Duration = Duration::from_millis(100);
/// Clients leave after this time.
pub const SLO: Duration = Duration::from_secs(1);
/// Between two scrapes, and between two decisions.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Over which rates are taken.
pub const WINDOW: Duration = Duration::from_secs(15);

/// Requests per second that all pods can answer.
pub fn capacity() -> f64 {
    (PODS * WORKERS) as f64 / SERVICE.as_secs_f64()
}

/// Namespace of the service.
pub const NAMESPACE: &str = "default";
/// Its name.
pub const SERVICE_NAME: &str = "service";

/// Names of pods, in order.
pub fn pod_name(index: usize) -> String {
    format!("pod-{index}")
}

/// What the law is told of the service.
pub fn law_config() -> trimtab_law::Config {
    trimtab_law::Config {
        slo_s: SLO.as_secs_f64(),
        interval_s: INTERVAL.as_secs_f64(),
        window_s: WINDOW.as_secs_f64(),
        ..trimtab_law::Config::default()
    }
}

/// Runs a variant through a schedule; logs go to `dir`.
pub async fn run_variant(
    variant: Variant,
    schedule: Schedule,
    dir: &Path,
    seed: u64,
) -> anyhow::Result<(Record, Vec<Decision>)> {
    let mut stage = Stage::start(variant, dir).await?;
    let begin = Instant::now();
    // A task of its own: it must not wait for a query.
    let clients = tokio::spawn(client::run(schedule, stage.addresses(), begin, seed));
    let speeds = tokio::spawn(change_speed(stage.speed(), schedule, begin));
    let decisions = Control::new(variant)
        .run(&mut stage, schedule, begin)
        .await?;
    let record = clients.await?;
    speeds.abort();
    stage.stop().await?;
    Ok((record, decisions))
}
