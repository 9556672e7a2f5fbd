//! From Aeraki: its Deployment, bootstrap ConfigMaps, webhook and CRD, and what it wrote.

mod steps;

use serde_json::Value;

use super::objects::{
    Objects, annotation, items, label, name, namespace, namespaces, place, places, text,
};
use super::report::{INSTALL, Report, titled};
use super::values::Values;

/// ConfigMap with which Aeraki's proxies start.
const BOOTSTRAP: &str = "aeraki-bootstrap-config";
/// Annotation of pods that start with it.
const OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
/// Label of what Aeraki wrote.
const MANAGER: (&str, &str) = ("manager", "Aeraki");
const KINDS: [&str; 5] = [
    "ApplicationProtocol",
    "DubboAuthorizationPolicy",
    "MetaRouter",
    "RedisDestination",
    "RedisService",
];

/// What a migration from Aeraki is. `refused`: what the operator says of the objects.
pub fn report(objects: &Objects, refused: &[String]) -> Report {
    let mut report = Report {
        title: "From Aeraki to Trimtab.".to_owned(),
        ..Report::default()
    };
    let mut values = Values::default();
    for kind in KINDS {
        report.stay(
            titled(kind, places(&objects.kind(kind))),
            "applies as it stands",
        );
    }
    let written = |o: &Value| label(o, MANAGER.0) == MANAGER.1;
    for kind in ["EnvoyFilter", "VirtualService"] {
        let found = objects.which(kind, written);
        report.change(titled(kind, places(&found)), "left in force, then written anew under the same name with Trimtab's labels, or deleted in the last step");
    }
    installation(objects, &mut values, &mut report);
    bootstraps(objects, &mut values, &mut report);
    data_plane(objects, &mut values, &mut report);
    addresses(objects, &mut report);
    webhooks(objects, &mut report);
    for line in refused {
        report.decide(
            "Trimtab refuses",
            line.as_str(),
            &["change the object: proxies keep their last routes until then"],
        );
    }
    values.set("aeraki.enabled", true.into());
    values.set("config.lazyload.enabled", false.into());
    report.change(
        vec!["ServiceFences (config.lazyload)".to_owned()],
        "off, as Aeraki has none (lazyxds: trimtab migrate lazyxds)",
    );
    values.set("config.metaprotocol.ports", "all".into());
    report.stay(
        vec!["ports named tcp-dubbo, tcp-thrift, tcp-redis, ...".to_owned()],
        "all of them are managed, with config.metaprotocol.ports: all",
    );
    report.values = values.into_value();
    report.decide(
        "values.yaml: image.repository",
        "no image is published: the chart needs the name of yours",
        &["build one with make image and push it to your registry: docs/install.md"],
    );
    steps::write(objects, &mut report);
    report
}

/// A Deployment of Aeraki's own.
fn is_aeraki(deployment: &Value) -> bool {
    name(deployment) == "aeraki" || label(deployment, "app") == "aeraki"
}

/// The Deployment: its arguments and environment.
fn installation(objects: &Objects, values: &mut Values, report: &mut Report) {
    let found = objects.which("Deployment", is_aeraki);
    if found.is_empty() {
        report.decide(
            "the installation of Aeraki",
            "no Deployment aeraki was read, so that values.yaml has nothing of its flags",
            &["read the cluster (no -f), or give the objects of its namespace too"],
        );
    }
    if found.len() > 1 {
        report.decide(
            "Deployment aeraki",
            "there are several: instances with --master=false serve routes near their proxies",
            &["one Trimtab a cluster does both: give each cluster its own release"],
        );
    }
    for deployment in found {
        let at = format!("Deployment {}", place(deployment));
        for container in items(deployment, "/spec/template/spec/containers") {
            for argument in items(container, "/args")
                .iter()
                .chain(items(container, "/command"))
            {
                let argument = argument.as_str().unwrap_or_default();
                let Some((flag, value)) = argument.trim_start_matches('-').split_once('=') else {
                    continue;
                };
                flags(&format!("{at}: --{flag}"), flag, value, values, report);
            }
            for variable in items(container, "/env") {
                let flag = match text(variable, "/name") {
                    "AERAKI_XDS_ADDR" => "aeraki-xds-address",
                    "AERAKI_XDS_PORT" => "aeraki-xds-port",
                    "AERAKI_ISTIO_CONFIG_STORE_SECRET" => "config-store-secret",
                    "AERAKI_LOG_LEVEL" => "log-level",
                    _ => continue,
                };
                let at = format!("{at}: {}", text(variable, "/name"));
                flags(&at, flag, text(variable, "/value"), values, report);
            }
        }
    }
}

fn flags(at: &str, flag: &str, value: &str, values: &mut Values, report: &mut Report) {
    let at_of = || vec![at.to_owned()];
    match flag {
        _ if value.is_empty() => {}
        "enable-envoy-filter-namespace-scope" if value == "true" => {
            values.set("config.metaprotocol.scope", "serviceNamespace".into());
            report.stay(
                at_of(),
                "the same as config.metaprotocol.scope: serviceNamespace",
            );
        }
        "root-namespace" if value != "istio-system" => {
            for path in [
                "config.metaprotocol.rootNamespace",
                "config.limiter.rootNamespace",
            ] {
                values.set(path, value.into());
            }
            values.set("config.mesh.configMap", format!("{value}/istio").into());
            report.stay(at_of(), "the same as config.metaprotocol.rootNamespace");
        }
        "domain" if value != trimtab_mesh::DEFAULT_DOMAIN => {
            values.set("clusterDomain", value.into());
            report.stay(at_of(), "the same as clusterDomain");
        }
        "istiod-configMap-name" if value != "istio" => {
            values.set("config.mesh.configMap", format!("{INSTALL}/{value}").into());
            report.stay(at_of(), "the same as config.mesh.configMap");
        }
        "config-store-secret" => report.decide(
            at,
            "Istio's objects in another API server are not seen: Trimtab reads its own",
            &["install Trimtab in the cluster that has the objects"],
        ),
        "log-level" => report.change(at_of(), "left out: logLevel, info by default"),
        _ => report.change(at_of(), "left out: nothing depends on it"),
    }
}

/// What proxies dial, by the ConfigMaps that they start with.
fn bootstraps(objects: &Objects, values: &mut Values, report: &mut Report) {
    let maps = objects.which("ConfigMap", |o| name(o) == BOOTSTRAP);
    report.change(
        titled("ConfigMap", places(&maps)),
        "written by the chart from now on (aeraki.namespaces); delete it first, or Helm refuses to adopt it",
    );
    let injected = objects.which("Namespace", |o| {
        label(o, "istio-injection") == "enabled" || !label(o, "istio.io/rev").is_empty()
    });
    let mut all = namespaces(&maps);
    if all.is_empty() {
        all = injected.iter().map(|o| name(o).to_owned()).collect();
    }
    values.set("aeraki.namespaces", all.into());
    for map in &maps {
        let content = map["data"]["custom_bootstrap.json"]
            .as_str()
            .unwrap_or_default();
        let parsed: Value = serde_json::from_str(content).unwrap_or_default();
        for cluster in items(&parsed, "/static_resources/clusters") {
            dialled(map, cluster, values, report);
        }
    }
    report.decide(
        "TLS of the xDS server",
        "the present bootstrap of the proxies speaks TLS, with certificates of the mesh; values.yaml says tls.secretName: trimtab-xds",
        &[
            "keep TLS: put a certificate of the mesh's CA into the Secret trimtab-xds (tls.crt, tls.key, ca.crt) before helm install",
            "plaintext: leave tls out, set config.xds.plaintext: true, and restrict the port by networkPolicy.enabled",
        ],
    );
    values.set("tls.secretName", "trimtab-xds".into());
}

/// The xDS server of one bootstrap.
fn dialled(map: &Value, cluster: &Value, values: &mut Values, report: &mut Report) {
    let address = cluster
        .pointer("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address");
    let Some(address) = address else {
        return;
    };
    let host = text(address, "/address");
    let (service, of) = host.split_once('.').unwrap_or((host, INSTALL));
    let of = of.split('.').next().unwrap_or_default();
    values.set("aeraki.service.name", service.into());
    if let Some(port) = address["port_value"].as_u64() {
        values.set("aeraki.service.port", port.into());
    }
    let named = text(cluster, "/name");
    if named != "aeraki-xds" {
        values.set("config.metaprotocol.aerakiXdsCluster", named.into());
    }
    report.stay(
        vec![format!(
            "ConfigMap {}: {host}:{}",
            place(map),
            address["port_value"]
        )],
        "proxies that run dial this Service: the chart makes it, in the namespace of the release",
    );
    if of != INSTALL {
        report.decide(
            format!("ConfigMap {}", place(map)),
            format!("its proxies dial the namespace {of}"),
            &[
                "install the release in that namespace",
                "restart these pods after the ConfigMaps are replaced: until then they have no routes of Trimtab",
            ],
        );
    }
}

/// Which proxies have Aeraki's filter.
fn data_plane(objects: &Objects, values: &mut Values, report: &mut Report) {
    let with = |o: &&Value| {
        let template = &o["spec"]["template"];
        annotation(template, OVERRIDE) == BOOTSTRAP || annotation(o, OVERRIDE) == BOOTSTRAP
    };
    let mut workloads = objects.kind("Deployment");
    workloads.extend(objects.kind("StatefulSet"));
    workloads.extend(objects.kind("DaemonSet"));
    let (have, others): (Vec<&Value>, Vec<&Value>) = workloads.into_iter().partition(with);
    report.stay(
        titled("Workload", places(&have)),
        "its image and its annotation bootstrapOverride stay",
    );
    let others: Vec<&Value> = others
        .into_iter()
        .filter(|o| !is_aeraki(o) && namespace(o) != INSTALL)
        .collect();
    if others.is_empty() && !have.is_empty() {
        values.set("config.metaprotocol.dataPlane", "Aeraki".into());
        report.stay(
            vec!["config.metaprotocol.dataPlane".to_owned()],
            "Aeraki: every workload that was read has Aeraki's proxy",
        );
        return;
    }
    let selected = match common_label(&have, &others) {
        Some((key, value)) => format!(
            "aerakiProxies: {{labels: {{{key}: {value}}}}}, which all of them have and no other workload; the others get Envoy's own filters"
        ),
        None => "aerakiProxies: {labels: {LABEL: VALUE}}, with a label that you give the pods with Aeraki's proxy; the others get Envoy's own filters".to_owned(),
    };
    report.decide(
        "config.metaprotocol.dataPlane",
        format!(
            "with Aeraki's proxy: {}; without: {}; a proxy that lacks the filter refuses the listeners that name it",
            listed(&have),
            listed(&others)
        ),
        &[
            &selected,
            "dataPlane: Aeraki, if the workloads without it call no service with such ports",
            "leave both out: all proxies get Envoy's own filters, which ignore what only Aeraki's can do (docs/metaprotocol-features.md)",
        ],
    );
}

/// Places of workloads, as many as somebody reads.
fn listed(workloads: &[&Value]) -> String {
    let places = places(workloads);
    let named = places
        .iter()
        .take(8)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match places.len() {
        0 => "none".to_owned(),
        1..=8 => named,
        more => format!("{named}, and {} more", more - 8),
    }
}

/// A label of the pods of all of the first workloads and of none of the others.
fn common_label<'a>(have: &[&'a Value], others: &[&Value]) -> Option<(&'a str, &'a str)> {
    let labels = |o: &'a Value| o["spec"]["template"]["metadata"]["labels"].as_object();
    let has = |o: &Value, key: &str, value: &str| {
        o["spec"]["template"]["metadata"]["labels"][key].as_str() == Some(value)
    };
    let first = labels(have.first()?)?;
    let mut pairs = first
        .iter()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)));
    pairs.find(|(k, v)| have.iter().all(|o| has(o, k, v)) && !others.iter().any(|o| has(o, k, v)))
}

fn addresses(objects: &Objects, report: &mut Report) {
    let allocated = objects.which("ServiceEntry", |o| {
        let found = items(o, "/spec/addresses").iter();
        found
            .filter_map(Value::as_str)
            .any(|a| a.starts_with("240.240."))
    });
    report.stay(
        titled("ServiceEntry", places(&allocated)),
        "keeps the address that Aeraki gave it",
    );
    let none = objects.which("ServiceEntry", |o| {
        items(o, "/spec/addresses").is_empty() && text(o, "/spec/resolution") != "NONE"
    });
    if !allocated.is_empty() || !none.is_empty() {
        report.decide(
            "addresses of ServiceEntries to come",
            "Aeraki gave each an address of 240.240.0.0/16, which istiod hands out too",
            &[
                "istiod assigns them (Istio 1.25 and later): leave config.metaprotocol.vips out",
                "config.metaprotocol.vips: {v4: 240.241.0.0/16}",
            ],
        );
    }
}

fn webhooks(objects: &Objects, report: &mut Report) {
    let found = objects.which("ValidatingWebhookConfiguration", |o| {
        items(o, "/webhooks")
            .iter()
            .any(|w| text(w, "/name") == "validation.aeraki.io")
    });
    report.change(
        titled("ValidatingWebhookConfiguration", places(&found)),
        "deleted with Aeraki: it would refuse every MetaRouter, as nobody answers; rules of the CRD take its place",
    );
}
