//! An installed chart, whose operator runs in this process.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::check::finding::{Finding, Report};
use trimtab::check::{print, report};
use trimtab::operator::Operator;
use trimtab::reach::Server;
use trimtab_cluster::{Cluster, service_account_token, wait_for};

use crate::fixture::{BOUND, chart_config};

pub const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts");
pub const NAMESPACE: &str = "istio-system";
pub const NODE: &str = "trimtab-test-node";

/// A cluster, and the operator in it.
pub struct Installed {
    pub cluster: Cluster,
    pub server: Server,
    pub operator: Operator,
}

pub async fn kubectl(cluster: &Cluster, args: &[&str], input: &str) -> String {
    cluster.kubectl(args, input).await.unwrap()
}

pub async fn apply(cluster: &Cluster, object: &Value) {
    let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    kubectl(cluster, &args, &object.to_string()).await;
}

pub async fn get(cluster: &Cluster, kind: &str, name: &str) -> Value {
    let text = kubectl(
        cluster,
        &["-n", NAMESPACE, "get", kind, name, "-o", "json"],
        "",
    )
    .await;
    let mut object: Value = serde_json::from_str(&text).unwrap();
    for field in [
        "resourceVersion",
        "uid",
        "managedFields",
        "creationTimestamp",
        "generation",
    ] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    object
}

pub async fn patch_status(cluster: &Cluster, kind: &str, name: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    let args = [
        "-n",
        NAMESPACE,
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    kubectl(cluster, &args, "").await;
}

/// A pod of a Deployment's template that runs and is ready.
pub async fn pod(cluster: &Cluster, deployment: &str, name: &str, ip: &str) {
    let template = get(cluster, "deployment", deployment).await["spec"]["template"].clone();
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(NODE);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"]}});
    apply(cluster, &pod).await;
    let ready = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]});
    patch_status(cluster, "pod", name, &ready).await;
}

pub fn istiod(version: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "istiod", "namespace": NAMESPACE, "labels": {"app": "istiod", "istio.io/rev": "default"}},
        "spec": {"selector": {"matchLabels": {"app": "istiod"}}, "template": {
            "metadata": {"labels": {"app": "istiod", "istio.io/rev": "default"}},
            "spec": {"containers": [{"name": "discovery", "image": format!("docker.io/istio/pilot:{version}")}]}}}})
}

impl Installed {
    /// Installs the chart, and starts the operator with its configuration and rights.
    pub async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let _ = cluster
            .kubectl(&["create", "namespace", NAMESPACE], "")
            .await;
        apply(&cluster, &istiod("1.31.0")).await;
        let chart = format!("{CHARTS}/trimtab");
        let repository = "--set=image.repository=registry.example.com/trimtab";
        let install = ["install", "trimtab", &chart, "-n", NAMESPACE, repository];
        cluster.helm(&install).await.unwrap();
        for (name, ip) in [("trimtab-0", "198.19.200.1"), ("trimtab-1", "198.19.200.2")] {
            pod(&cluster, "trimtab", name, ip).await;
        }
        let status = json!({"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        patch_status(&cluster, "deployment", "trimtab", &status).await;
        let token = service_account_token(&cluster, NAMESPACE, "trimtab", &[])
            .await
            .unwrap();
        let client = cluster.client_with_token(&token).await.unwrap();
        let mut config = chart_config(&cluster, NAMESPACE, "trimtab").await;
        config.in_cluster = true;
        config.pod = Some((NAMESPACE.to_owned(), "trimtab-0".to_owned()));
        let operator = Operator::start(config, client, CancellationToken::new())
            .await
            .unwrap();
        let server = Server::at(Some(format!("http://{}", operator.http)));
        Self {
            cluster,
            server,
            operator,
        }
    }

    pub async fn report(&self) -> Report {
        self.report_with(None).await
    }

    pub async fn report_with(&self, config: Option<&str>) -> Report {
        let file: Option<PathBuf> = config.map(|text| {
            let file = self.cluster.dir().join("check.yaml");
            std::fs::write(&file, text).unwrap();
            file
        });
        let client = self.cluster.client().await.unwrap();
        report(client, None, file.as_deref(), &self.server)
            .await
            .unwrap()
    }

    /// Waits until nothing is wrong.
    pub async fn healthy(&self) -> Report {
        wait_for("nothing to be wrong", BOUND * 2, || async {
            let report = self.report().await;
            if report.findings.is_empty() {
                Ok(report)
            } else {
                Err(print::text(&report))
            }
        })
        .await
        .unwrap()
    }

    /// Waits until exactly one finding is there, and it has this code and names this object.
    pub async fn finds(&self, code: &str, object: &str) -> Finding {
        wait_for(&format!("{code} of {object}"), BOUND * 2, || async {
            only(&self.report().await, code, object)
        })
        .await
        .unwrap()
    }

    /// Plants an object that is new.
    pub async fn planted(&self, object: &Value, code: &str, title: &str) {
        apply(&self.cluster, object).await;
        let found = self.finds(code, title).await;
        println!("{code}: {} {}", found.object, found.message);
        kubectl(
            &self.cluster,
            &["delete", "--grace-period=0", "--force", "-f", "-"],
            &object.to_string(),
        )
        .await;
    }

    /// Changes an object, and puts it back.
    pub async fn changed(
        &self,
        kind: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
        code: &str,
        title: &str,
    ) {
        let before = get(&self.cluster, kind, name).await;
        let mut after = before.clone();
        change(&mut after);
        kubectl(&self.cluster, &["replace", "-f", "-"], &after.to_string()).await;
        let found = self.finds(code, title).await;
        println!("{code}: {} {}", found.object, found.message);
        kubectl(&self.cluster, &["replace", "-f", "-"], &before.to_string()).await;
    }
}

pub fn only(report: &Report, code: &str, object: &str) -> Result<Finding, String> {
    match report.findings.as_slice() {
        [one] if one.code == code && one.object.contains(object) => Ok(one.clone()),
        _ => Err(print::text(report)),
    }
}
