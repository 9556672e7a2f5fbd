//! Metric sources.

use super::super::facts::Facts;
use super::super::finding::{
    METRICS_API, QUERY_EMPTY, QUERY_FAILS, QUERY_UNUSABLE, Report, SOURCE_DOWN,
};
use super::count;
use crate::health::Query;

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.look("Metrics", |report| match &facts.metrics {
        Some(Ok(queries)) => {
            for query in queries {
                asked(query, report);
            }
            count(queries.len(), "query").replace("querys", "queries") + " asked from here"
        }
        Some(Err(why)) => {
            report.unknown("Metrics", why);
            String::new()
        }
        None => of_operator(facts, report),
    });
    report.look("Metrics API", |report| match &facts.metrics_api {
        Some(Err(why)) => {
            report.find(
                METRICS_API,
                ("APIService v1beta1.metrics.k8s.io", ""),
                why.clone(),
                "install metrics-server, or remove metrics.metricsServer from the configuration",
            );
            String::new()
        }
        Some(Ok(())) => "v1beta1.metrics.k8s.io is available".to_owned(),
        None => String::new(),
    });
}

fn asked(query: &Query, report: &mut Report) {
    let Query {
        key,
        name,
        values,
        reason,
        error,
    } = query;
    if name.is_empty() {
        down(key, error, report);
        return;
    }
    if *values > 0 {
        return;
    }
    let object = format!("Configuration {key}");
    let field = format!("handlers.{name}");
    let place = (object, field.as_str());
    match reason.as_str() {
        "MetricError" => report.find(
            QUERY_FAILS,
            place,
            error,
            "run the query in Prometheus and correct it",
        ),
        "MetricEmpty" | "" => report.find(
            QUERY_EMPTY,
            place,
            format!("no service has a value: {error}"),
            "run the query in Prometheus; compare its labels with namespaces, services and pods",
        ),
        _ => report.find(
            QUERY_UNUSABLE,
            place,
            format!("no service has a usable value: {error}"),
            "run the query in Prometheus and correct it",
        ),
    }
}

fn down(key: &str, error: &str, report: &mut Report) {
    report.find(
        SOURCE_DOWN,
        (format!("Configuration {key}"), "address"),
        format!("it gives no answer that can be used: {error}"),
        format!("correct {key}, and see that what it names runs and may be asked"),
    );
}

fn of_operator(facts: &Facts, report: &mut Report) -> String {
    let operator = facts.operator.as_ref();
    let Some(Ok(health)) = operator.map(|operator| &operator.health) else {
        return String::new();
    };
    for source in &health.sources {
        let fails = |q: &Query| q.key == source.key && q.reason == "MetricError";
        if source.answers && health.queries.iter().any(fails) {
            // Told below, with its name.
            continue;
        }
        if source.answers {
            report.find(
                QUERY_FAILS,
                (format!("Configuration {}", source.key), "handlers"),
                &source.error,
                "run the query in Prometheus; correct metrics in the configuration, or spec.metrics of the limiter",
            );
        } else {
            down(&source.key, &source.error, report);
        }
    }
    for query in &health.queries {
        asked(query, report);
    }
    "the operator's sources answer".to_owned()
}
