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
    let own: Vec<String> = match config.reporter {
        Reporter::Destination => Vec::new(),
        Reporter::Source => statuses.iter().map(ToString::to_string).collect(),
    };
    let refused = [vec!["5..".to_owned()], own].concat().join("|");
    let of = format!("reporter=\"{reporter}\"");
    let answered =
        format!("{of},response_code!~\"{refused}\",response_flags!~\".*({NOT_ANSWERED}).*\"");
    let bounds: Vec<String> = bounds.iter().map(|b| b.replace('.', "[.]")).collect();
    // Prometheus 3 writes bounds of scraped buckets as 500.0.
    let bounds = bounds.join("|");
    let pods = config.reporter == Reporter::Destination;
    let list = [
        (
            REQUESTS,
            pods,
            format!(
                "sum by ({by}, response_code, response_flags) (rate(istio_requests_total{{{of}}}[{window}]))"
            ),
        ),
        (
            WITHIN,
            pods,
            format!(
                "sum by ({by}, le) (rate(istio_request_duration_milliseconds_bucket{{{answered},le=~\"({bounds})([.]0)?|[+]Inf\"}}[{window}]))"
            ),
        ),
        (
            TIME,
            pods,
            format!(
                "sum by ({by}) (rate(istio_request_duration_milliseconds_sum{{{answered}}}[{window}]))"
            ),
        ),
        (
            CORES,
            true,
            format!(
                "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{container!=\"\",container!=\"istio-proxy\",container!=\"POD\"}}[{window}]))"
            ),
        ),
    ];
    let list = list.into_iter();
    list.map(|(name, pods, text)| (name.to_owned(), handler(text, pods)))
        .collect()
}

fn handler(text: String, pods: bool) -> Handler {
    if pods {
        return Handler::new(text, HandlerType::PerPod);
    }
    let mut handler = Handler::new(text, HandlerType::PerService);
    handler.labels = Labels {
        namespace: "destination_service_namespace".to_owned(),
        service: "destination_service_name".to_owned(),
        ..Labels::default()
    };
    handler
}
