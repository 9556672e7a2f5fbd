//! The operator itself: pods, health, Lease, Services.

use std::collections::BTreeSet;

use super::super::facts::{Facts, Lease, Operator, Port, Replica, Service};
use super::super::finding::{
    DEGRADED, IMAGE, LEASE_STALE, MIXED, NO_LEADER, NOT_READY, OTHER_VERSION, PORT_NAME, REFUSED,
    Report, SERVICE_EMPTY, SERVICE_MISSING, SILENT, THROTTLED, WAITS,
};
use super::few;
use crate::health::Health;
use crate::version::Version;

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    let Some(operator) = &facts.operator else {
        report.look("Operator", |_| "not installed yet".to_owned());
        return;
    };
    report.look("Operator", |report| replicas(operator, report));
    report.look("Health", |report| match &operator.health {
        Ok(health) => {
            state(operator, health, report);
            version(operator, health, &facts.client, report);
            refused(facts, health, report);
            format!("version {}, ready", health.version)
        }
        Err(why) => {
            silent(operator, why, report);
            String::new()
        }
    });
    report.look("Leader", |report| match &operator.lease {
        None => "one replica, no election".to_owned(),
        Some(Err(why)) => {
            report.unknown("Leader", why);
            String::new()
        }
        Some(Ok(lease)) => leader(operator, lease, report),
    });
    report.look("Services", |report| services(operator, report));
}

fn replicas(operator: &Operator, report: &mut Report) -> String {
    let Operator {
        place,
        wanted,
        ready,
        pods,
        pods_unread,
        ..
    } = operator;
    let object = format!("Deployment {place}");
    if !pods_unread.is_empty() {
        report.unknown(&format!("Pods of {object}"), pods_unread);
    }
    let unpulled = pods.iter().find(|pod| pod.waits.contains("Image"));
    if let Some(pod) = unpulled {
        image(place, pod, report);
    } else if ready < wanted {
        let waiting = pods
            .iter()
            .filter(|pod| !pod.ready || !pod.waits.is_empty());
        let waiting: Vec<String> = waiting.map(named).collect();
        not_ready(operator, &waiting, report);
    }
    let images: BTreeSet<&str> = pods.iter().map(|pod| pod.image.as_str()).collect();
    if images.len() > 1 {
        let images: Vec<String> = images.into_iter().map(str::to_owned).collect();
        report.find(
            MIXED,
            (object, "spec.template"),
            format!("its pods run {}", images.join(" and ")),
            "wait for the rollout to end; if it does not, see kubectl rollout status",
        );
    }
    format!("Deployment {place}, {ready} of {wanted} replicas are ready")
}

fn not_ready(operator: &Operator, waiting: &[String], report: &mut Report) {
    let Operator {
        place,
        wanted,
        ready,
        pods,
        pods_unread,
        ..
    } = operator;
    let (why, fix) = if pods.is_empty() && pods_unread.is_empty() {
        (
            "; it has no pod".to_owned(),
            "see the Events of its ReplicaSet: a quota, a Pod Security Standard or a webhook may refuse pods",
        )
    } else {
        let why = match waiting {
            [] => String::new(),
            waiting => format!("; not ready: {}", few(waiting)),
        };
        (why, "see kubectl describe and kubectl logs of the pod")
    };
    report.find(
        NOT_READY,
        (format!("Deployment {place}"), "status.readyReplicas"),
        format!("{ready} of {wanted} replicas are ready{why}"),
        fix,
    );
}

fn named(pod: &Replica) -> String {
    if pod.waits.is_empty() {
        pod.name.clone()
    } else {
        format!("{} ({})", pod.name, pod.waits)
    }
}

fn image(place: &str, pod: &Replica, report: &mut Report) {
    let fix = if pod.image.contains('/') {
        "push the image to the registry, or correct image and imagePullSecrets in the values"
    } else {
        "no image is published under this name: build one and set image.repository, see docs/install.md"
    };
    report.find(
        IMAGE,
        (
            format!("Deployment {place}"),
            "spec.template.spec.containers[trimtab].image",
        ),
        format!(
            "{} cannot be pulled ({} of pod {})",
            pod.image, pod.waits, pod.name
        ),
        fix,
    );
}

fn silent(operator: &Operator, why: &str, report: &mut Report) {
    // One that does not run cannot answer, which is told already.
    if operator.ready > 0 {
        report.find(
            SILENT,
            (format!("Deployment {}", operator.place), "http.address"),
            format!("pods are ready, and none answers: {why}"),
            "the command needs create on pods/portforward; or forward a port and name it with --server",
        );
    }
}

fn state(operator: &Operator, health: &Health, report: &mut Report) {
    let object = format!("Deployment {}", operator.place);
    if !health.waits_for.is_empty() && operator.ready >= operator.wanted {
        report.find(
            WAITS,
            (object.clone(), "/readyz"),
            format!(
                "it does not decide yet: it waits for {}",
                few(&health.waits_for)
            ),
            "see its log; what it waits for is named there with its reason",
        );
    }
    for trouble in &health.degraded {
        report.find(
            DEGRADED,
            (object.clone(), trouble.what.as_str()),
            &trouble.why,
            "grant or install what it names",
        );
    }
    for trouble in &health.watches {
        report.find(
            DEGRADED,
            (
                object.clone(),
                format!("watch of {}", trouble.what).as_str(),
            ),
            format!("changes are not followed: {}", trouble.why),
            "see whether the API server and the network to it work; what was known stays in force",
        );
    }
    if !health.throttled.is_empty() {
        let keys: Vec<String> = health
            .throttled
            .iter()
            .map(|m| format!("{m}.writes.perMinute"))
            .collect();
        report.find(
            THROTTLED,
            (object, keys.join(", ").as_str()),
            "more is to be written than the budget allows, and the rest waits",
            "wait; if it stays, raise the budget, or see which objects change all the time",
        );
    }
}

fn version(operator: &Operator, health: &Health, client: &Version, report: &mut Report) {
    if health.version.version != client.version {
        report.find(
            OTHER_VERSION,
            (format!("Deployment {}", operator.place), "version"),
            format!("it is {}, this program is {client}", health.version),
            "check with the program of the operator's version, or finish the upgrade",
        );
    }
}

/// What is refused of objects whose status does not say so already.
fn refused(facts: &Facts, health: &Health, report: &mut Report) {
    let objects = facts
        .objects
        .values()
        .filter_map(|objects| objects.as_ref().ok());
    let told: BTreeSet<String> = objects
        .flat_map(|o| o.troubled.iter().map(|t| format!("{} {}", o.kind, t.name)))
        .collect();
    for text in &health.refused {
        let (object, message) = text.split_once(": ").unwrap_or(("", text));
        if !told.contains(object) {
            report.find(
                REFUSED,
                (object, ""),
                message,
                "correct the object as the message says",
            );
        }
    }
}

fn leader(operator: &Operator, lease: &Lease, report: &mut Report) -> String {
    let object = format!("Lease {}", lease.place);
    let holder = &lease.holder;
    // What comes after the name of the pod tells processes of one pod apart.
    let pod = holder
        .rsplit_once('_')
        .map_or(holder.as_str(), |(pod, _)| pod);
    let lives = operator.pods.iter().any(|replica| replica.name == pod);
    let known = operator.pods_unread.is_empty();
    if holder.is_empty() {
        report.find(
            NO_LEADER,
            (object, "spec.holderIdentity"),
            "nobody holds it: nothing is written",
            "see /readyz of a replica: it names what the API server says; the operator needs get, list, watch, create and update on it",
        );
    } else if !lease.renewed {
        let who = match (lives, known) {
            (true, _) => ", a pod that runs,",
            (false, true) => ", a pod that is gone,",
            (false, false) => "",
        };
        report.find(
            LEASE_STALE,
            (object, "spec.renewTime"),
            format!(
                "it did not change in {} seconds: its holder {holder}{who} does not renew it, and nobody takes it over",
                lease.watched
            ),
            "see the logs of the replicas: the API server is slow for them, or refuses update on the Lease",
        );
    } else if !lives && known {
        report.find(
            NO_LEADER,
            (object, "spec.holderIdentity"),
            format!("{holder} holds and renews it, and is no pod of Deployment {}", operator.place),
            "another Trimtab uses the same Lease: stop it, or give one of them another leaderElection.name",
        );
    }
    format!("{holder} renews Lease {}", lease.place)
}

fn services(operator: &Operator, report: &mut Report) -> String {
    let services = match &operator.services {
        Ok(services) => services,
        Err(why) => {
            report.unknown("Services", why);
            return String::new();
        }
    };
    if operator.ready > 0 {
        services
            .iter()
            .filter(|s| s.ready == 0)
            .for_each(|s| empty(s, report));
    }
    for service in services {
        for port in &service.ports {
            protocol(service, port, report);
        }
    }
    advertised(operator, services, report);
    let names: Vec<String> = services.iter().map(|s| s.place.clone()).collect();
    names.join(", ")
}

fn empty(service: &Service, report: &mut Report) {
    report.find(
        SERVICE_EMPTY,
        (format!("Service {}", service.place), "spec.selector"),
        "pods are ready, and none of them is an endpoint of it",
        "compare its selector with the labels of the pods; a Service of the leader needs the label trimtab.io/leader on a pod, which the leader sets with patch on pods",
    );
}

/// Ports of proxies are gRPC, which Istio must know.
fn protocol(service: &Service, port: &Port, report: &mut Report) {
    let says = |text: &str| {
        text == "grpc" || text.starts_with("grpc-") || text == "tls" || text.starts_with("tls-")
    };
    let http = |text: &str| text == "http" || text.starts_with("http-");
    let text = if port.app_protocol.is_empty() {
        &port.name
    } else {
        &port.app_protocol
    };
    if !says(text) && !http(text) && !text.starts_with("tcp") {
        report.find(
            PORT_NAME,
            (
                format!("Service {}", service.place),
                format!("spec.ports[{}].name", port.number).as_str(),
            ),
            format!(
                "\"{}\" names no protocol: sidecars guess it, and streams may break",
                port.name
            ),
            "name it grpc-xds, grpc-logs or grpc-mds, as the chart does",
        );
    }
}

/// `NAME.NAMESPACE.svc...:PORT` is a Service of the cluster; another address cannot be looked at.
fn advertised(operator: &Operator, services: &[Service], report: &mut Report) {
    let Some((host, port)) = operator.advertised.rsplit_once(':') else {
        return;
    };
    let mut labels = host.split('.');
    let (Some(name), Some(namespace), Some("svc")) = (labels.next(), labels.next(), labels.next())
    else {
        return;
    };
    let place = format!("{namespace}/{name}");
    let service = services.iter().find(|service| service.place == place);
    let served = service.is_some_and(|s| s.ports.iter().any(|p| p.number.to_string() == port));
    if !served {
        let why = match service {
            None => format!("there is no Service {place} of the chart"),
            Some(_) => format!("Service {place} has no port {port}"),
        };
        report.find(
            SERVICE_MISSING,
            (format!("Deployment {}", operator.place), "xds.advertise"),
            format!("proxies are told {}, and {why}", operator.advertised),
            "set config.xds.advertise to a Service and port of the chart, or leave it out",
        );
    }
}
