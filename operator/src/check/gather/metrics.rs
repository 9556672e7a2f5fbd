//! Metric sources of a configuration, asked from here; and the metrics API.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{Api, Client, ResourceExt};
use trimtab_kit::sources::{
    Failure, MetricSource as _, PodFacts, PrometheusConfig, PrometheusSource, Sample,
    SampleRequest, SampleRequestId,
};

use super::super::facts::Asked;
use super::api::{ask, each};
use super::mesh::Mesh;
use crate::config::Config;
use crate::health::Query;
use crate::reach::is_ready;

/// Namespaces whose services are asked for, and services.
const NAMESPACES: usize = 5;
const SERVICES: usize = 50;
/// Key of the source.
const KEY: &str = "metrics.prometheus";
/// The API of metrics-server.
const API: &str = "v1beta1.metrics.k8s.io";

/// What each query of the configuration gives for services with proxies; `None`: there are none.
pub(super) async fn queries(
    client: &Client,
    config: &Config,
    mesh: &Mesh,
) -> Option<Asked<Vec<Query>>> {
    let prometheus = config.metrics.prometheus.as_ref()?;
    let targets = targets(client, mesh).await;
    Some(match targets {
        Ok(targets) => asked(prometheus, targets).await,
        Err(why) => Err(why),
    })
}

/// Services with their pods.
async fn targets(client: &Client, mesh: &Mesh) -> Asked<Vec<SampleRequest>> {
    let mut out: Vec<SampleRequest> = Vec::new();
    for namespace in mesh.meshed().iter().take(NAMESPACES) {
        let (mut services, mut pods) = (Vec::new(), Vec::new());
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        each(&api, "", |service| services.push(service)).await?;
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        each(&api, "", |pod| pods.push(pod)).await?;
        for service in services {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
            let selector = selector.unwrap_or_default();
            let selected = |pod: &&Pod| {
                selector
                    .iter()
                    .all(|label| pod.labels().get(label.0) == Some(label.1))
            };
            let selected = pods.iter().filter(selected);
            let facts =
                selected.map(|pod| PodFacts::new(namespace, &pod.name_any(), is_ready(pod)));
            if selector.is_empty() || out.len() >= SERVICES {
                continue;
            }
            out.push(SampleRequest {
                namespace: namespace.clone(),
                service: service.name_any(),
                pods: facts.collect(),
                ..SampleRequest::default()
            });
        }
    }
    if out.is_empty() {
        // Queries without placeholders have an answer all the same.
        out.push(SampleRequest {
            namespace: "default".to_owned(),
            ..SampleRequest::default()
        });
    }
    Ok(out)
}

async fn asked(config: &PrometheusConfig, mut targets: Vec<SampleRequest>) -> Asked<Vec<Query>> {
    let source = PrometheusSource::new(config.clone()).map_err(|error| error.to_string())?;
    for (index, target) in targets.iter_mut().enumerate() {
        target.id = SampleRequestId(u32::try_from(index).unwrap_or(u32::MAX));
        target.metrics = config.handlers.keys().cloned().collect();
    }
    let samples = source.sample(&targets).await;
    let health = source.health();
    let silent = |value: &Sample| is_silent(value.as_ref().err());
    if !health.ok() && samples.values.values().all(silent) {
        return Ok(vec![Query {
            key: KEY.to_owned(),
            error: health.last_error.unwrap_or_default(),
            ..Query::default()
        }]);
    }
    let answered = samples.by_name().into_iter();
    // Others are derived from them.
    let own = answered.filter(|answered| config.handlers.contains_key(&answered.name));
    Ok(own.map(|answered| Query::of(KEY, answered)).collect())
}

/// Whether the source, and not the query, is the cause.
fn is_silent(failure: Option<&Failure>) -> bool {
    match failure {
        Some(Failure::Timeout) => true,
        Some(Failure::Error(text)) => {
            text.contains("cannot be asked") || text.contains("answered HTTP")
        }
        _ => false,
    }
}

/// Whether the metrics API is there, where the configuration asks it.
pub(super) async fn api(client: &Client, config: &Config) -> Option<Asked<()>> {
    config.metrics.metrics_server.as_ref()?;
    let api: Api<APIService> = Api::all(client.clone());
    let found = match ask(api.get_opt(API)).await {
        Ok(found) => found,
        Err(why) => return Some(Err(format!("it cannot be read: {why}"))),
    };
    let Some(found) = found else {
        return Some(Err(
            "it is not there: nobody measures CPU and memory of pods".to_owned(),
        ));
    };
    let conditions = found.status.and_then(|status| status.conditions);
    let available = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "Available");
    Some(match available {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(format!(
            "it is not available: {}",
            condition.message.unwrap_or_default()
        )),
        None => Err("nobody has said that it is available".to_owned()),
    })
}
