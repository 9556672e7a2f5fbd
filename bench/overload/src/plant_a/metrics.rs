//! What the law is told at a tick.

use trimtab_law::{Api, Pod as PodMetrics, Tick};

use super::{Scenario, pod::Pod};
use crate::plant_b::meter::Series;

/// Measurements at `now`.
pub fn tick(now: f64, scenario: &Scenario, pods: &[Pod]) -> Tick {
    let telemetry = &scenario.telemetry;
    let step = if telemetry.clock_step.is_some_and(|at| now >= at) {
        3600.0
    } else {
        0.0
    };
    let seen = now - telemetry.late_s;
    let mut tick = Tick {
        t: now + step,
        as_of: Some(seen + step),
        ..Tick::default()
    };
    if telemetry
        .lost
        .is_some_and(|(from, to)| (from..to).contains(&now))
    {
        tick.as_of = None;
        return tick;
    }
    let mut sum = Series::default();
    for (index, pod) in pods.iter().enumerate().filter(|(_, pod)| pod.ready) {
        let mut metrics = PodMetrics {
            service: Some("service".to_owned()),
            ready: Some(true),
            ..PodMetrics::default()
        };
        let rates = pod
            .meter
            .rates(seen, telemetry.window_s)
            .filter(|_| telemetry.blind_pod != Some(index));
        if let Some((rates, busy, inflight)) = rates {
            let [rates, ..] = &rates;
            sum.add(rates, 1.0);
            metrics.offered = Some(rates.offered);
            metrics.accepted = Some(rates.accepted);
            metrics.ok = Some(rates.ok);
            metrics.late = Some(rates.late);
            metrics.errors = Some(rates.errors);
            let with = |field: &str| !telemetry.without.contains(&field);
            metrics.inflight = with("inflight").then_some(inflight as f64);
            metrics.cpu = with("cpu").then(|| busy / scenario.service.workers as f64);
        }
        tick.pods.insert(format!("pod-{index}"), metrics);
    }
    tick.apis
        .insert("all".to_owned(), api(&sum, telemetry.without));
    tick
}

fn api(sum: &Series, without: &[&str]) -> Api {
    let answers = sum.ok + sum.late;
    let percentile = |q| {
        sum.quantile(q)
            .filter(|_| !without.contains(&"percentiles"))
    };
    Api {
        offered: Some(sum.offered),
        accepted: Some(sum.accepted),
        ok: Some(sum.ok),
        late: Some(sum.late),
        errors: Some(sum.errors),
        mean_s: (answers > 1e-9).then(|| sum.seconds / answers),
        p50_s: percentile(0.5),
        p95_s: percentile(0.95),
        p99_s: percentile(0.99),
        path: vec!["service".to_owned()],
        tier: None,
    }
}
