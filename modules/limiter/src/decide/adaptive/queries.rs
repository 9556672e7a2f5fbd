//! What is asked of Prometheus: one grouped query for each kind of series, the same for all limiters of a tick.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_kit::sources::{Handler, HandlerType, Labels};

use super::measure::{CORES, REQUESTS, TIME, WITHIN};
use crate::config::{AdaptiveConfig, Reporter};

/// Flags of answers that say nothing of the service's time: refused by a limit, client gone, time-out of the route.
const NOT_ANSWERED: &str = "RL|DC|UT";

/// The queries. `bounds` are the buckets that limiters count by, in milliseconds; `statuses` those of refusals.
pub fn queries(
    config: &AdaptiveConfig,
    bounds: &BTreeSet<String>,
    statuses: &BTreeSet<i32>,
) -> BTreeMap<String, Handler> {
    let window = config.window;
    let (reporter, by) = match config.reporter {
        Reporter::Destination => ("destination", "namespace, pod"),
        Reporter::Source => (
            "source",
            "destination_service_namespace, destination_service_name",
        ),
    };
    // A caller's proxy does not see who refused: the status says it.
    let refused = match config.reporter {
        Reporter::Destination => String::new(),
        Reporter::Source => statuses.iter().map(|s| format!("|{s}")).collect(),
    };
    let of = format!("reporter=\"{reporter}\"");
    let answered =
        format!("{of},response_code!~\"5..{refused}\",response_flags!~\".*({NOT_ANSWERED}).*\"");
    let bounds: Vec<String> = bounds.iter().map(|b| b.replace('.', "[.]")).collect();
    // Prometheus 3 writes bounds of scraped buckets as 500.0.
    let bounds = bounds.join("|");
    let mut out = BTreeMap::new();
    let mut add = |name: &str, text: String, pods: bool| {
        let kind = if pods {
            HandlerType::PerPod
        } else {
            HandlerType::PerService
        };
        let mut handler = Handler::new(text, kind);
        if !pods {
            handler.labels = Labels {
                namespace: "destination_service_namespace".to_owned(),
                service: "destination_service_name".to_owned(),
                ..Labels::default()
            };
        }
        out.insert(name.to_owned(), handler);
    };
    let pods = config.reporter == Reporter::Destination;
    add(
        REQUESTS,
        format!(
            "sum by ({by}, response_code, response_flags) (rate(istio_requests_total{{{of}}}[{window}]))"
        ),
        pods,
    );
    add(
        WITHIN,
        format!(
            "sum by ({by}, le) (rate(istio_request_duration_milliseconds_bucket{{{answered},le=~\"({bounds})([.]0)?|[+]Inf\"}}[{window}]))"
        ),
        pods,
    );
    add(
        TIME,
        format!(
            "sum by ({by}) (rate(istio_request_duration_milliseconds_sum{{{answered}}}[{window}]))"
        ),
        pods,
    );
    add(
        CORES,
        format!(
            "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{container!=\"\",container!=\"istio-proxy\",container!=\"POD\"}}[{window}]))"
        ),
        true,
    );
    out
}

/// The smallest bucket at or above `slo_millis`; none: the largest one.
pub fn bound(buckets: &[f64], slo_millis: f64) -> Option<f64> {
    let sorted = || buckets.iter().copied();
    let above = sorted().filter(|b| *b >= slo_millis - 1e-9);
    let above = above.min_by(f64::total_cmp);
    above.or_else(|| sorted().max_by(f64::total_cmp))
}

/// A bound as it stands in `le`.
pub fn le(bound: f64) -> String {
    bound.to_string()
}
