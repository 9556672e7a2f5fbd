//! The order in which Aeraki is replaced.

use serde_json::Value;

use super::{BOOTSTRAP, MANAGER, is_aeraki};
use crate::migrate::objects::{Objects, items, name, namespace, text};
use crate::migrate::report::{INSTALL, Report, install, saved};

const PROTOCOLS: &str = "applicationprotocols.metaprotocol.aeraki.io";

/// Saves ApplicationProtocols as objects of the whole cluster.
const SAVE_PROTOCOLS: &str =
    "kubectl get applicationprotocols --all-namespaces -o go-template='{{range .items}}---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: {{.metadata.name}}}
spec: {protocol: {{.spec.protocol}}, codec: {{.spec.codec}}}
{{end}}' > protocols.yaml";

/// Writes the steps for what is there.
pub fn write(objects: &Objects, report: &mut Report) {
    let home = objects.which("Deployment", is_aeraki);
    let home = home.first().map_or(INSTALL, |o| namespace(o)).to_owned();
    report.step(
        "Save what is there",
        "nothing has changed",
        vec![
            saved("metarouters,applicationprotocols,envoyfilters,virtualservices,serviceentries", "aeraki-objects.yaml"),
            format!("kubectl --namespace {home} get deployments,services,configmaps --output yaml > aeraki-installation.yaml"),
        ],
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
    let mut commands = Vec::new();
    for map in objects.which("ConfigMap", |o| name(o) == BOOTSTRAP) {
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
        &[&format!("helm uninstall trimtab --namespace {INSTALL}, then back from step 2: the labels manager=Aeraki are still there, so Aeraki goes on")],
    );
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
        back.push(format!("{scale} --replicas=1: it makes its webhook anew, and of the Service kubectl apply with aeraki-installation.yaml"));
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
    }
    let back: Vec<&str> = back.iter().map(String::as_str).collect();
    report.step(
        "Stop Aeraki",
        "proxies that run keep their last routes; new ones have none until Trimtab is there",
        commands,
        &back,
    );
}

fn crds(objects: &Objects, report: &mut Report) {
    let namespaced = objects.which("CustomResourceDefinition", |o| {
        name(o) == PROTOCOLS && text(o, "/spec/scope") == "Namespaced"
    });
    let mut commands = Vec::new();
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
    }
    report.step(
        "Replace the CRDs",
        "objects stay; Trimtab would read them by the old CRDs too",
        commands,
        &["Aeraki works with these CRDs, but for namespaced ApplicationProtocols: apply its own CRD and the saved objects"],
    );
}
