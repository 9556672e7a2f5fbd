//! The order in which Aeraki is replaced.

use serde_json::Value;

use super::{BOOTSTRAP, MANAGER, is_aeraki};
use crate::migrate::objects::{Objects, items, name, namespace, text};
use crate::migrate::report::{INSTALL, Report, again, install, saved, uninstall};

const PROTOCOLS: &str = "applicationprotocols.metaprotocol.aeraki.io";

/// Saves ApplicationProtocols as objects of the whole cluster.
const SAVE_PROTOCOLS: &str =
    "kubectl get applicationprotocols --all-namespaces -o go-template='{{range .items}}---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: {{.metadata.name}}}
spec: {protocol: {{.spec.protocol}}, codec: {{.spec.codec}}}
{{end}}' > protocols.yaml";

const SAVED_SERVICE: &str = "aeraki-service.yaml";
const SAVED_BOOTSTRAPS: &str = "aeraki-bootstraps.yaml";
const SAVED_CRD: &str = "aeraki-crd.yaml";
const SAVED_PROTOCOLS: &str = "aeraki-protocols.yaml";

/// What the ways back need, each in a file that can be written again.
fn saves(objects: &Objects, home: &str) -> Vec<String> {
    let mut out = vec![
        saved(
            "metarouters,applicationprotocols,envoyfilters,virtualservices,serviceentries",
            "aeraki-objects.yaml",
        ),
        format!(
            "kubectl --namespace {home} get deployments,services,configmaps --output yaml > aeraki-installation.yaml"
        ),
    ];
    for service in objects.which("Service", |o| name(o) == "aeraki") {
        let namespace = namespace(service);
        out.push(format!(
            "kubectl get service aeraki --namespace {namespace} --output yaml > {SAVED_SERVICE}"
        ));
    }
    if !objects
        .which("ConfigMap", |o| name(o) == BOOTSTRAP)
        .is_empty()
    {
        out.push(format!("kubectl get configmaps --all-namespaces --field-selector metadata.name={BOOTSTRAP} --output yaml > {SAVED_BOOTSTRAPS}"));
    }
    if !objects
        .which("CustomResourceDefinition", is_namespaced)
        .is_empty()
    {
        out.push(format!(
            "kubectl get crd {PROTOCOLS} --output yaml > {SAVED_CRD}"
        ));
        out.push(saved("applicationprotocols", SAVED_PROTOCOLS));
    }
    out
}

/// Commands, and words after them.
fn lines<'a>(commands: &'a [String], words: &[&'a str]) -> Vec<&'a str> {
    let commands = commands.iter().map(String::as_str);
    commands.chain(words.iter().copied()).collect()
}

/// The CRD of Aeraki's chart, whose scope cannot change.
fn is_namespaced(object: &Value) -> bool {
    name(object) == PROTOCOLS && text(object, "/spec/scope") == "Namespaced"
}

/// Writes the steps for what is there.
pub fn write(objects: &Objects, report: &mut Report) {
    let home = objects.which("Deployment", is_aeraki);
    let home = home.first().map_or(INSTALL, |o| namespace(o)).to_owned();
    report.step(
        "Save what is there",
        "nothing has changed",
        saves(objects, &home),
        &[],
    );
    stop(objects, report);
    crds(objects, report);
    report.step(
        "Choose the transport",
        "the certificate is there, of the mesh's CA, which the proxies ask for; for plaintext leave this step out",
        vec![format!(
            "kubectl --namespace {INSTALL} create secret generic trimtab-xds --from-file=tls.crt --from-file=tls.key --from-file=ca.crt"
        )],
        &[&format!("kubectl --namespace {INSTALL} delete secret trimtab-xds")],
    );
    install_trimtab(objects, report);
    report.step(
        "Namespaces to come",
        "each namespace that gets such pods later needs the ConfigMap, or an entry in aeraki.namespaces",
        vec!["trimtab aeraki-bootstrap --tls NAMESPACE | kubectl apply -f -".to_owned()],
        &[],
    );
    report.step(
        "Compare",
        "each router is Accepted and Programmed; the proxies are listed with what they hold",
        vec![
            "kubectl get metarouters --all-namespaces".to_owned(),
            "trimtab xds nodes".to_owned(),
        ],
        &["as from step 5"],
    );
    report.step(
        "Remove what only Aeraki wrote",
        "objects of the same names belong to Trimtab by then",
        vec![
            format!("kubectl delete envoyfilters,virtualservices --all-namespaces --selector '{}={},app.kubernetes.io/managed-by!=trimtab'", MANAGER.0, MANAGER.1),
            format!("kubectl --namespace {home} delete deployment,serviceaccount aeraki --ignore-not-found"),
        ],
        &["none: install Aeraki anew"],
    );
}

fn install_trimtab(objects: &Objects, report: &mut Report) {
    let mut commands = Vec::new();
    let mut back = vec![uninstall()];
    let maps = objects.which("ConfigMap", |o| name(o) == BOOTSTRAP);
    if !maps.is_empty() {
        back.push(format!(
            "{} | kubectl apply -f -",
            again(SAVED_BOOTSTRAPS, true)
        ));
    }
    for map in maps {
        commands.push(format!(
            "kubectl --namespace {} delete configmap {BOOTSTRAP}",
            namespace(map)
        ));
    }
    commands.extend(install());
    report.step(
        "Install Trimtab",
        "proxies that run find it under the old name and port; a pod that starts before its ConfigMap is back waits for it",
        commands,
        &lines(&back, &["then back from step 4: the labels manager=Aeraki are still there, so Aeraki goes on"]),
    );
}

fn stop(objects: &Objects, report: &mut Report) {
    let mut commands = Vec::new();
    let mut back = Vec::new();
    for deployment in objects.which("Deployment", is_aeraki) {
        let scale = format!(
            "kubectl --namespace {} scale deployment {}",
            namespace(deployment),
            name(deployment)
        );
        commands.push(format!("{scale} --replicas=0"));
        back.push(format!("{scale} --replicas=1"));
    }
    let of = |o: &Value| {
        items(o, "/webhooks")
            .iter()
            .any(|w| text(w, "/name") == "validation.aeraki.io")
    };
    for webhook in objects.which("ValidatingWebhookConfiguration", of) {
        commands.push(format!(
            "kubectl delete validatingwebhookconfiguration {}",
            name(webhook)
        ));
    }
    for service in objects.which("Service", |o| name(o) == "aeraki") {
        commands.push(format!(
            "kubectl --namespace {} delete service aeraki",
            namespace(service)
        ));
        let restored = again(SAVED_SERVICE, false);
        back.insert(0, format!("{restored} | kubectl apply -f -"));
    }
    let back = lines(&back, &["Aeraki makes its webhook anew"]);
    report.step(
        "Stop Aeraki",
        "proxies that run keep their last routes; new ones have none until Trimtab is there",
        commands,
        &back,
    );
}

fn crds(objects: &Objects, report: &mut Report) {
    let namespaced = objects.which("CustomResourceDefinition", is_namespaced);
    let (mut commands, mut back) = (Vec::new(), Vec::new());
    let applied = "trimtab crds | kubectl apply --server-side --force-conflicts -f -";
    if namespaced.is_empty() {
        commands.push(applied.to_owned());
    } else {
        report.change(vec![format!("CustomResourceDefinition {PROTOCOLS}")], "deleted and made again: the scope of a CRD cannot change, and ApplicationProtocols are of the whole cluster here");
        commands.extend([
            SAVE_PROTOCOLS.to_owned(),
            format!("kubectl delete crd {PROTOCOLS}"),
            applied.to_owned(),
            format!("kubectl wait --for=condition=established --timeout=60s crd {PROTOCOLS}"),
            "kubectl api-resources --api-group=metaprotocol.aeraki.io".to_owned(),
            "kubectl apply -f protocols.yaml".to_owned(),
        ]);
        back.extend([
            format!("kubectl delete crd {PROTOCOLS}"),
            format!("{} | kubectl create -f -", again(SAVED_CRD, false)),
            format!("kubectl wait --for=condition=established --timeout=60s crd {PROTOCOLS}"),
            "kubectl api-resources --api-group=metaprotocol.aeraki.io".to_owned(),
            format!("{} | kubectl create -f -", again(SAVED_PROTOCOLS, true)),
        ]);
    }
    report.step(
        "Replace the CRDs",
        "objects stay; Trimtab would read them by the old CRDs too",
        commands,
        &lines(&back, &["Aeraki works with the other CRDs"]),
    );
}
