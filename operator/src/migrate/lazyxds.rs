//! From lazyxds: the annotations `lazy-xds`, and the Sidecars and EnvoyFilters that it wrote.

use serde_json::{Value, json};
use trimtab_crds::fence::LAZY_XDS_ANNOTATION;

use super::objects::{Objects, annotation, items, label, name, namespace, place, places};
use super::report::{INSTALL, Report, again, install, saved, titled, uninstall};
use super::values::Values;

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "lazyxds-manager");
/// Begins the names of its objects.
const PREFIX: &str = "lazyxds-";
/// What it installs besides its Deployment, all in Istio's namespace.
const PARTS: [(&str, &str); 9] = [
    ("ConfigMap", "lazyxds-als-bootstrap"),
    ("Deployment", "istio-egressgateway-lazyxds"),
    ("Deployment", "lazyxds"),
    ("EnvoyFilter", "lazyxds-egress-als"),
    ("Gateway", "lazyxds-egress"),
    ("Service", "istio-egressgateway-lazyxds"),
    ("Service", "lazyxds"),
    ("Service", "lazyxds-placeholder-service"),
    ("VirtualService", "lazyxds-egress"),
];

/// What a migration from lazyxds is.
pub fn report(objects: &Objects) -> Report {
    let mut report = Report {
        title: "From lazyxds to Trimtab.".to_owned(),
        ..Report::default()
    };
    for kind in ["Namespace", "Service"] {
        let found = objects.which(kind, is_lazy);
        report.stay(titled(kind, places(&found)), "its annotation lazy-xds makes a ServiceFence for each Service with a selector; no switch is needed");
    }
    if objects.which("Namespace", is_lazy).is_empty()
        && objects.which("Service", is_lazy).is_empty()
    {
        report.decide(
            "annotation lazy-xds",
            "no Service and no Namespace of the input has it",
            &["give the objects of the whole cluster"],
        );
    }
    let sidecars = objects.which("Sidecar", is_written);
    report.change(
        titled("Sidecar", places(&sidecars)),
        "what it has learned becomes a ServiceFence (below); then it is deleted, as a Sidecar of others keeps Trimtab's away",
    );
    let filters = objects.which("EnvoyFilter", |o| is_written(o) && !is_part(o));
    report.change(
        titled("EnvoyFilter", places(&filters)),
        "deleted: the fallback's one EnvoyFilter takes the place of one a Service",
    );
    let parts: Vec<String> = PARTS
        .iter()
        .flat_map(|(kind, part)| titled(kind, places(&objects.which(kind, |o| name(o) == *part))))
        .collect();
    report.change(parts, "deleted in the last step: the fallback takes its place, learns TCP too, and keeps what it learned in the status of the fences");
    routes(objects, &mut report);
    learned(&sidecars, &mut report);
    let mut values = Values::default();
    values.set("fallback.enabled", true.into());
    values.set("config.metaprotocol.enabled", false.into());
    report.values = values.into_value();
    report.decide(
        "values.yaml: config.lazyload.mode",
        "lazyxds narrows at once; ServiceFences can look on first",
        &[
            "Enforce, the default: as lazyxds",
            "Auto: learns 72h, then narrows",
            "Observe: learns and shows what it would do",
        ],
    );
    report.decide(
        "values.yaml: image.repository",
        "no image is published: the chart needs the name of yours",
        &["build one with make image and push it to your registry: docs/install.md"],
    );
    steps(objects, &sidecars, &filters, &mut report);
    report
}

/// The fences of Sidecars.
fn learned(sidecars: &[&Value], report: &mut Report) {
    for sidecar in sidecars {
        match fence(sidecar) {
            Some(fence) if hosts(&fence) <= MOST_HOSTS => report.objects.push(fence),
            Some(fence) => report.decide(
                format!("Sidecar {}", place(sidecar)),
                format!("it has {} hosts, and a ServiceFence names {MOST_HOSTS} at most", hosts(&fence)),
                &[
                    "leave it to the annotation: calls are learned anew, by the fallback",
                    "write a ServiceFence by hand, with spec.host: {NAMESPACE/*: {}} for whole namespaces",
                ],
            ),
            None => {}
        }
    }
}

fn is_lazy(object: &Value) -> bool {
    annotation(object, LAZY_XDS_ANNOTATION).eq_ignore_ascii_case("true")
}

fn is_written(object: &Value) -> bool {
    label(object, MANAGED_BY.0) == MANAGED_BY.1
}

fn is_part(object: &Value) -> bool {
    PARTS
        .iter()
        .any(|(kind, part)| object["kind"] == *kind && name(object) == *part)
}

/// VirtualServices of users that name the egress gateway.
fn routes(objects: &Objects, report: &mut Report) {
    let bound = objects.which("VirtualService", |o| {
        let mut gateways = items(o, "/spec/gateways").iter().filter_map(Value::as_str);
        !is_part(o) && gateways.any(|g| g.ends_with("lazyxds-egress"))
    });
    for route in bound {
        report.decide(
            format!("VirtualService {}", place(route)),
            "it names the gateway lazyxds-egress, so that its rules hold on first calls",
            &["take the gateway out of spec.gateways at the end: the fallback has a sidecar, which follows the rules of mesh"],
        );
    }
}

/// Hosts that a ServiceFence may name.
const MOST_HOSTS: usize = 1024;

fn hosts(fence: &Value) -> usize {
    fence["spec"]["host"]
        .as_object()
        .map_or(0, serde_json::Map::len)
}

/// The fence of a Sidecar: same pods, and the hosts that were learned. Others come by the annotation.
fn fence(sidecar: &Value) -> Option<Value> {
    let service = name(sidecar).strip_prefix(PREFIX)?;
    let egress = items(sidecar, "/spec/egress").iter();
    let hosts = egress
        .flat_map(|e| items(e, "/hosts"))
        .filter_map(Value::as_str);
    let own = format!("{INSTALL}/*");
    let mut hosts: Vec<&str> = hosts.filter(|h| *h != own).collect();
    hosts.sort_unstable();
    // A host of any namespace is written without one.
    let hosts: serde_json::Map<String, Value> = hosts
        .into_iter()
        .map(|host| {
            (
                host.strip_prefix("*/").unwrap_or(host).to_owned(),
                json!({}),
            )
        })
        .collect();
    Some(json!({
        "apiVersion": "microservice.slime.io/v1alpha1",
        "kind": "ServiceFence",
        "metadata": {"name": service, "namespace": namespace(sidecar)},
        "spec": {
            "enable": true,
            "host": hosts,
            "workloadSelector": {"fromService": true},
        },
    }))
}

fn steps(objects: &Objects, sidecars: &[&Value], filters: &[&Value], report: &mut Report) {
    report.step(
        "Save what is there",
        "nothing has changed",
        vec![saved("sidecars,envoyfilters", "lazyxds-objects.yaml")],
        &[],
    );
    report.step(
        "Stop lazyxds",
        "its Sidecars and routes stay in force; nothing new is learned",
        vec![format!(
            "kubectl --namespace {INSTALL} scale deployment lazyxds --replicas=0"
        )],
        &[&format!(
            "kubectl --namespace {INSTALL} scale deployment lazyxds --replicas=1"
        )],
    );
    let mut commands = vec![format!(
        "helm install trimtab-crds charts/trimtab-crds --namespace {INSTALL}"
    )];
    if !report.objects.is_empty() {
        commands.push("kubectl apply -f fences.yaml".to_owned());
    }
    report.step(
        "Install the CRDs, and apply what lazyxds has learned",
        "the fences have the hosts of the old Sidecars, and nobody reads them yet; --objects fences.yaml writes the file",
        commands,
        &["kubectl delete -f fences.yaml"],
    );
    report.step(
        "Install Trimtab",
        "fences are read and wait: a Sidecar that is not Trimtab's stays in force",
        install(),
        &[&uninstall(), "then back from step 3"],
    );
    hand_over(objects, sidecars, filters, report);
}

fn hand_over(objects: &Objects, sidecars: &[&Value], filters: &[&Value], report: &mut Report) {
    let of = |kind: &str, found: &[&Value]| -> Vec<String> {
        let found = found.iter();
        found
            .map(|o| {
                format!(
                    "kubectl --namespace {} delete {kind} {}",
                    namespace(o),
                    name(o)
                )
            })
            .collect()
    };
    let mut commands = of("envoyfilter", filters);
    commands.extend(of("sidecar", sidecars));
    report.step(
        "Hand over",
        "each workload sees the whole mesh for a moment, then Trimtab's Sidecar is in force",
        commands,
        &[
            &format!(
                "{} | kubectl apply -f -",
                again("lazyxds-objects.yaml", true)
            ),
            "then back from step 4",
        ],
    );
    report.step(
        "Compare",
        "every fence is Ready, or says why not",
        vec!["kubectl get servicefences --all-namespaces".to_owned()],
        &["as from step 5"],
    );
    let found =
        |(kind, part): &&(&str, &str)| !objects.which(kind, |o| name(o) == *part).is_empty();
    let commands = PARTS
        .iter()
        .filter(found)
        .map(|(kind, part)| {
            format!(
                "kubectl --namespace {INSTALL} delete {} {part}",
                kind.to_lowercase()
            )
        })
        .collect();
    report.step(
        "Remove lazyxds",
        "only Trimtab is there",
        commands,
        &["none: install lazyxds anew"],
    );
}
