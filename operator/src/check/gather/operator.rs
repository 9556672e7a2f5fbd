//! The operator: pods, what it says, Lease, Services.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease as KubeLease;
use k8s_openapi::api::core::v1::{Pod, Service as KubeService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use super::super::facts::{Asked, Lease, Operator, Port, Replica, Service};
use super::api::{ask, each};
use super::place;
use super::platform::Clock;
use crate::config::{Config, LeaderElection};
use crate::health::Health;
use crate::reach::{self, Server, is_ready};

/// Label of an EndpointSlice.
const SERVICE: &str = "kubernetes.io/service-name";
/// Pause between looks at a Lease.
const LOOK: Duration = Duration::from_millis(250);

/// The operator of a Deployment, or at an address; `None`: there is neither.
pub(super) async fn operator(
    client: &Client,
    deployment: Option<&Deployment>,
    config: &Config,
    server: &Server,
    clock: &Clock,
) -> Option<Operator> {
    let namespace = deployment.and_then(ResourceExt::namespace);
    if deployment.is_none() {
        server.url()?;
    }
    let health = health(client, namespace.as_deref(), server).await;
    let now = health.as_ref().ok().and_then(|health| health.now);
    let mut out = Operator {
        place: server.url().unwrap_or_default().to_owned(),
        wanted: 1,
        ready: 1,
        pods: Vec::new(),
        pods_unread: String::new(),
        clock_ahead: now.and_then(|now| clock.compared(now)),
        health,
        lease: None,
        services: Ok(Vec::new()),
        advertised: String::new(),
    };
    if let Some(deployment) = deployment {
        let status = deployment.status.as_ref();
        let spec = deployment.spec.as_ref();
        out.place = place(deployment);
        out.wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        out.ready = status.and_then(|s| s.ready_replicas).unwrap_or_default();
        match reach::pods_of(client, deployment).await {
            Ok(pods) => out.pods = pods.iter().map(replica).collect(),
            Err(error) => out.pods_unread = format!("{error:#}"),
        }
        let election = &config.leader_election;
        if election.enabled {
            out.lease = Some(lease(client, election).await);
        }
        out.services = services(client, &namespace.unwrap_or_default()).await;
        out.advertised.clone_from(&config.xds.advertise);
    }
    Some(out)
}

async fn health(client: &Client, namespace: Option<&str>, server: &Server) -> Asked<Health> {
    let reached = if server.url().is_some() {
        server.open().await
    } else {
        let found = reach::in_cluster(client.clone(), namespace).await;
        found.and_then(|found| found.ok_or_else(|| anyhow::anyhow!("it is not installed")))
    };
    let answer = match reached {
        Ok(reached) => reached.get(&["api", "v1", "health"]).await,
        Err(error) => Err(error),
    };
    answer.map_err(|error| format!("{error:#}"))
}

fn replica(pod: &Pod) -> Replica {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut images = containers
        .filter(|c| c.name == reach::CONTAINER)
        .filter_map(|c| c.image.clone());
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut waits = statuses.filter_map(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    Replica {
        name: pod.name_any(),
        image: images.next().unwrap_or_default(),
        ready: is_ready(pod),
        waits: waits.next().unwrap_or_default(),
    }
}

/// Looks at the Lease until it changes, or until it would have run out: clocks are not compared.
async fn lease(client: &Client, election: &LeaderElection) -> Asked<Lease> {
    let api: Api<KubeLease> = Api::namespaced(client.clone(), &election.namespace);
    let mut out = Lease {
        place: format!("{}/{}", election.namespace, election.name),
        ..Lease::default()
    };
    let first = ask(api.get_opt(&election.name)).await?;
    let state = |lease: &Option<KubeLease>| {
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone());
        let spec = spec.unwrap_or_default();
        let time = spec.renew_time.map(|time| time.0.to_string());
        (spec.holder_identity.unwrap_or_default(), time)
    };
    let before = state(&first);
    out.holder.clone_from(&before.0);
    if out.holder.is_empty() {
        return Ok(out);
    }
    let (begun, bound) = (Instant::now(), election.timing().lease);
    while begun.elapsed() < bound {
        tokio::time::sleep(LOOK).await;
        let now = state(&ask(api.get_opt(&election.name)).await?);
        if now != before {
            out.renewed = true;
            out.holder = now.0;
            break;
        }
    }
    out.watched = begun.elapsed().as_secs();
    Ok(out)
}

async fn services(client: &Client, namespace: &str) -> Asked<Vec<Service>> {
    let api: Api<KubeService> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    each(&api, reach::CHART, |service| found.push(service)).await?;
    let mut out = Vec::new();
    for service in found {
        let name = service.name_any();
        let spec = service.spec.unwrap_or_default();
        if spec.selector.is_none_or(|selector| selector.is_empty()) {
            continue;
        }
        let ports = spec.ports.into_iter().flatten().map(|port| Port {
            name: port.name.unwrap_or_default(),
            number: u16::try_from(port.port).unwrap_or_default(),
            app_protocol: port.app_protocol.unwrap_or_default(),
        });
        out.push(Service {
            place: format!("{namespace}/{name}"),
            ports: ports.collect(),
            ready: ready_endpoints(client, namespace, &name).await?,
        });
    }
    out.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(out)
}

/// How many endpoints of a Service are ready.
pub(super) async fn ready_endpoints(client: &Client, namespace: &str, name: &str) -> Asked<usize> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let mut ready = 0;
    each(&api, &format!("{SERVICE}={name}"), |slice| {
        let endpoints = slice.endpoints.iter();
        let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
        ready += endpoints
            .filter(|e| is_ready(e.conditions.as_ref().and_then(|c| c.ready)))
            .count();
    })
    .await?;
    Ok(ready)
}
