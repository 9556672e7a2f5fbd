//! What Prometheus says, as measurements of the law.
//!
//! Istio's series of the reporter `destination`, Envoy's gauge of active requests, and the CPU of the containers, of which
//! each busy worker uses a core.

use std::collections::BTreeMap;

use trimtab_lab::prometheus::Prometheus;
use trimtab_law::{Api, Pod, Tick};

use super::stage::CLUSTER;
use super::{PODS, SLO, WINDOW, pod_name};

/// Answers that tell how long the service takes: no refusals and no errors.
const SERVED: &str = r#"response_code!~"429|5..""#;

/// Values by pod.
type ByPod = BTreeMap<String, f64>;

/// The measurements of one tick, at `t` seconds.
pub async fn tick(prometheus: &Prometheus, t: f64) -> anyhow::Result<Tick> {
    let window = format!("{}s", WINDOW.as_secs());
    let slo_ms = SLO.as_millis();
    let requests = |matchers: &str| {
        format!("sum by (pod) (rate(istio_requests_total{{{matchers}}}[{window}]))")
    };
    let offered = by_pod(prometheus, &requests("")).await?;
    let refused = by_pod(prometheus, &requests(r#"response_code="429""#)).await?;
    let errors = by_pod(prometheus, &requests(r#"response_code=~"5..""#)).await?;
    // Envoy adds to its histograms every 5 s and to its counters at once, so late answers are told by the histogram alone.
    let duration = "istio_request_duration_milliseconds";
    let in_time = format!(
        r#"sum by (pod) (rate({duration}_bucket{{response_code="200",le="{slo_ms}"}}[{window}]))"#
    );
    let ok = by_pod(prometheus, &in_time).await?;
    // A client that left has code 0.
    let ended =
        format!(r#"sum by (pod) (rate({duration}_count{{response_code=~"200|0"}}[{window}]))"#);
    let ended = by_pod(prometheus, &ended).await?;
    let active = format!(
        r#"sum by (pod) (envoy_cluster_upstream_rq_active{{envoy_cluster_name="{CLUSTER}"}})"#
    );
    let inflight = by_pod(prometheus, &active).await?;
    let busy = format!(
        "sum by (pod) (rate(container_cpu_usage_seconds_total[{window}])) / sum by (pod) (workload_workers)"
    );
    let cpu = by_pod(prometheus, &busy).await?;
    let mut tick = Tick {
        t,
        as_of: Some(t),
        ..Tick::default()
    };
    for name in (0..PODS).map(pod_name) {
        let of = |values: &ByPod| values.get(&name).copied();
        let or_none = |values: &ByPod| of(values).unwrap_or(0.0);
        let known = of(&offered);
        let in_time = known.map(|_| or_none(&ok));
        let pod = Pod {
            service: Some("service".to_owned()),
            ready: Some(true),
            offered: known,
            accepted: known.map(|offered| offered - or_none(&refused)),
            ok: in_time,
            late: in_time.map(|ok| (or_none(&ended) - ok).max(0.0)),
            errors: known.map(|_| or_none(&errors)),
            inflight: of(&inflight),
            cpu: of(&cpu),
        };
        tick.pods.insert(name, pod);
    }
    let api = api(prometheus, &tick, &window).await?;
    tick.apis.insert("all".to_owned(), api);
    Ok(tick)
}

async fn api(prometheus: &Prometheus, tick: &Tick, window: &str) -> anyhow::Result<Api> {
    let sum = |of: fn(&Pod) -> Option<f64>| tick.pods.values().filter_map(of).reduce(|a, b| a + b);
    let series = "istio_request_duration_milliseconds";
    let mean = format!(
        "sum(rate({series}_sum{{{SERVED}}}[{window}])) / sum(rate({series}_count{{{SERVED}}}[{window}]))"
    );
    let mut quantiles = [None; 3];
    for (value, q) in quantiles.iter_mut().zip([0.5, 0.95, 0.99]) {
        let query = format!(
            "histogram_quantile({q}, sum by (le) (rate({series}_bucket{{{SERVED}}}[{window}])))"
        );
        *value = in_seconds(prometheus.value(&query).await?);
    }
    Ok(Api {
        offered: sum(|pod| pod.offered),
        accepted: sum(|pod| pod.accepted),
        ok: sum(|pod| pod.ok),
        late: sum(|pod| pod.late),
        errors: sum(|pod| pod.errors),
        mean_s: in_seconds(prometheus.value(&mean).await?),
        p50_s: quantiles[0],
        p95_s: quantiles[1],
        p99_s: quantiles[2],
        path: vec!["service".to_owned()],
        tier: None,
    })
}

fn in_seconds(millis: Option<f64>) -> Option<f64> {
    millis
        .filter(|value| value.is_finite())
        .map(|value| value / 1000.0)
}

async fn by_pod(prometheus: &Prometheus, query: &str) -> anyhow::Result<ByPod> {
    let result = prometheus.query(query).await?;
    let samples = result.as_array().into_iter().flatten();
    Ok(samples
        .filter_map(|sample| {
            let pod = sample["metric"]["pod"].as_str()?.to_owned();
            let value: f64 = sample["value"][1].as_str()?.parse().ok()?;
            value.is_finite().then_some((pod, value))
        })
        .collect())
}
