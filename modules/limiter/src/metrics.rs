//! Series of the limiter, read from the engine at scrape time.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use trimtab_kit::series::{Labels, counters, gauges};

use crate::engine::{Engine, LimiterView};

/// Collector of the limiter's series. Series with a limiter's name are bounded in number.
#[derive(Debug)]
pub struct LimiterCollector {
    engine: Arc<Engine>,
    export: usize,
}

impl LimiterCollector {
    /// At most `export` limiters get their own series.
    pub fn new(engine: Arc<Engine>, export: usize) -> Self {
        Self { engine, export }
    }
}

/// States of limiters.
const STATES: [&str; 6] = ["Limiting", "Idle", "Held", "Fallback", "Unknown", "Refused"];

type Rows = Vec<(Labels, f64)>;

fn names(view: &LimiterView) -> Labels {
    vec![
        ("namespace", view.namespace.clone()),
        ("limiter", view.name.clone()),
    ]
}

impl Collector for LimiterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let views = self.engine.views();
        limiters(&mut encoder, &views, self.export)?;
        sources(&mut encoder, &self.engine)
    }
}

/// What is broken is seen, however many limiters there are.
fn shown(views: &[LimiterView], export: usize) -> Vec<&LimiterView> {
    let mut shown: Vec<&LimiterView> = views.iter().collect();
    shown.sort_by_key(|view| !view.is_broken());
    shown.truncate(export);
    shown
}

/// One row for what `istio_requests_total` of a reporter can be joined by: the host where there is one, else workloads.
fn targets_of(view: &LimiterView) -> Rows {
    let mut out = Rows::new();
    let labels = |reporter: &str, host: &str, namespace: &str, workload: &str| {
        let mut labels = names(view);
        labels.extend([
            ("reporter", reporter.to_owned()),
            ("host", host.to_owned()),
            ("workload_namespace", namespace.to_owned()),
            ("workload", workload.to_owned()),
        ]);
        (labels, 1.0)
    };
    for reporter in &view.target.reporters {
        let host = view.target.host.as_deref();
        if let Some(host) = host.filter(|_| reporter == "destination") {
            out.push(labels(reporter, host, "", ""));
            continue;
        }
        for workload in &view.target.workloads {
            let (namespace, workload) = workload.split_once('/').unwrap_or_default();
            out.push(labels(reporter, "", namespace, workload));
        }
    }
    out
}

fn limiters(
    encoder: &mut DescriptorEncoder<'_>,
    views: &[LimiterView],
    export: usize,
) -> std::fmt::Result {
    // A state without limiters is 0, so that sums over states are never empty.
    let mut by_state: BTreeMap<&str, f64> = STATES.map(|state| (state, 0.0)).into();
    for view in views {
        *by_state.entry(view.state.as_str()).or_default() += 1.0;
    }
    let rows: Rows = by_state
        .into_iter()
        .map(|(s, n)| (vec![("state", s.to_owned())], n))
        .collect();
    gauges(encoder, "trimtab_limiters", "SmartLimiters by state", &rows)?;
    let shown = shown(views, export);
    limits(encoder, &shown)?;
    adaptive(encoder, &shown)?;
    decisions(encoder, &shown)
}

fn limits(encoder: &mut DescriptorEncoder<'_>, shown: &[&LimiterView]) -> std::fmt::Result {
    let (mut limit, mut rate, mut targets) = (Rows::new(), Rows::new(), Rows::new());
    for view in shown {
        targets.extend(targets_of(view));
        for l in &view.limits {
            let mut labels = names(view);
            labels.extend([("set", l.set.clone()), ("index", l.index.to_string())]);
            rate.push((labels.clone(), l.per_second));
            labels.push(("interval", l.interval.clone()));
            limit.push((labels, l.requests as f64));
        }
    }
    for (name, help, rows) in [
        (
            "trimtab_limiter_limit_requests",
            "Requests allowed per interval and pod",
            limit,
        ),
        (
            "trimtab_limiter_limit_requests_per_second",
            "Requests allowed per second and pod",
            rate,
        ),
        (
            "trimtab_limiter_target",
            "1 for each host or workload whose requests are limited, as Istio's telemetry names it",
            targets,
        ),
    ] {
        gauges(encoder, name, help, &rows)?;
    }
    Ok(())
}

/// What strategy `adaptive` knows of services: how much is refused says how many pods are missing.
fn adaptive(encoder: &mut DescriptorEncoder<'_>, shown: &[&LimiterView]) -> std::fmt::Result {
    let mut state = Rows::new();
    let mut rates: [Rows; 4] = Default::default();
    for view in shown {
        let laws = view.descriptors.iter().filter_map(|d| {
            let law = d.adaptive.as_ref()?;
            law.pods.is_some().then_some((d, law))
        });
        for (d, law) in laws {
            let mut labels = names(view);
            labels.extend([("service", view.name.clone()), ("set", d.set.clone())]);
            let values = [law.offered, law.shed, law.capacity, law.limit];
            for (rows, value) in rates.iter_mut().zip(values) {
                rows.extend(value.map(|value| (labels.clone(), value)));
            }
            labels.push(("state", law.state.clone()));
            state.push((labels, 1.0));
        }
    }
    let [offered, shed, capacity, limit] = rates;
    for (name, help, rows) in [
        (
            "trimtab_limiter_offered_requests_per_second",
            "Requests per second that are sent to a service with strategy adaptive",
            offered,
        ),
        (
            "trimtab_limiter_shed_requests_per_second",
            "Requests per second that limits refuse; in mode Shadow those that would be",
            shed,
        ),
        (
            "trimtab_limiter_capacity_requests_per_second",
            "Requests per second that the ready pods can answer in time, as far as it is known",
            capacity,
        ),
        (
            "trimtab_limiter_adaptive_limit_requests_per_second",
            "Limit over all pods that strategy adaptive has decided",
            limit,
        ),
        (
            "trimtab_limiter_adaptive_state",
            "1 for the state of strategy adaptive",
            state,
        ),
    ] {
        gauges(encoder, name, help, &rows)?;
    }
    Ok(())
}

fn decisions(encoder: &mut DescriptorEncoder<'_>, shown: &[&LimiterView]) -> std::fmt::Result {
    let (mut state, mut value, mut fresh) = (Rows::new(), Rows::new(), Rows::new());
    for view in shown {
        for d in &view.descriptors {
            let mut labels = names(view);
            labels.extend([
                ("set", d.set.clone()),
                ("index", d.index.to_string()),
                ("state", d.state.as_str().to_owned()),
            ]);
            state.push((labels, 1.0));
        }
        for (metric, reading) in &view.metrics {
            let mut labels = names(view);
            labels.push(("metric", metric.clone()));
            if let Some(v) = reading.value {
                value.push((labels.clone(), v));
            }
            let is_fresh =
                reading.state == crate::input::ReadingState::Fresh && reading.value.is_some();
            fresh.push((labels, f64::from(u8::from(is_fresh))));
        }
    }
    for (name, help, rows) in [
        (
            "trimtab_limiter_state",
            "1 for the state of each descriptor",
            state,
        ),
        (
            "trimtab_limiter_metric_value",
            "Metric values that decisions use",
            value,
        ),
        (
            "trimtab_limiter_metric_fresh",
            "1 when the metric has a fresh value",
            fresh,
        ),
    ] {
        gauges(encoder, name, help, &rows)?;
    }
    Ok(())
}

fn sources(encoder: &mut DescriptorEncoder<'_>, engine: &Engine) -> std::fmt::Result {
    let mut up: Rows = Vec::new();
    let mut queries = Vec::new();
    for source in &engine.sources {
        let health = source.health();
        let labels = |result: &str| {
            vec![
                ("source", source.name().to_owned()),
                ("result", result.to_owned()),
            ]
        };
        up.push((
            vec![("source", source.name().to_owned())],
            f64::from(u8::from(health.ok())),
        ));
        queries.push((labels("ok"), health.queries.saturating_sub(health.failed)));
        queries.push((labels("failed"), health.failed));
    }
    gauges(
        encoder,
        "trimtab_metric_source_up",
        "1 when the newest tick of the source got an answer",
        &up,
    )?;
    counters(
        encoder,
        "trimtab_metric_source_queries",
        "Queries by source and result",
        &queries,
    )
}
