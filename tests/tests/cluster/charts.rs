//! The charts on a real API server: installed, upgraded, uninstalled, and the operator with the rights that they give.

use std::time::Duration;

use serde_json::Value;
use trimtab_cluster::Cluster;

use crate::fixture::{RELEASE_NAMESPACE, cluster, operator};

/// The API server reads its priority levels at once, as a rule.
const BOUND: Duration = Duration::from_secs(60);
const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts");

async fn get(cluster: &Cluster, args: &[&str]) -> Result<Value, String> {
    let mut all = vec!["get", "-o", "json"];
    all.extend(args);
    let text = cluster
        .kubectl(&all, "")
        .await
        .map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_chart_is_installed_upgraded_and_uninstalled() {
    let cluster = cluster().await;
    let namespace = format!("chart-{}", std::process::id());
    let chart = format!("{CHARTS}/trimtab");
    let name = "--set=fullnameOverride=other";
    let install = [
        "install",
        "other",
        &chart,
        "-n",
        &namespace,
        "--create-namespace",
        name,
    ];
    let notes = cluster.helm(&install).await.unwrap();
    assert!(notes.contains("STATUS: deployed"), "{notes}");
    let deployment = get(cluster, &["-n", &namespace, "deployment", "other"])
        .await
        .unwrap();
    let checksum = |d: &Value| d["spec"]["template"]["metadata"]["annotations"].to_string();
    let before = checksum(&deployment);

    let set = "--set=config.limiter.refresh=7s";
    let upgrade = ["upgrade", "other", &chart, "-n", &namespace, name, set];
    cluster.helm(&upgrade).await.unwrap();
    let deployment = get(cluster, &["-n", &namespace, "deployment", "other"])
        .await
        .unwrap();
    assert_ne!(
        checksum(&deployment),
        before,
        "a changed configuration rolls the pod"
    );
    let config = get(cluster, &["-n", &namespace, "configmap", "other"])
        .await
        .unwrap();
    assert!(
        config["data"]["config.yaml"]
            .as_str()
            .unwrap()
            .contains("refresh: 7s")
    );

    let wrong = [
        "upgrade",
        "other",
        &chart,
        "-n",
        &namespace,
        name,
        "--set=replicaCount=-1",
    ];
    let refused = cluster.helm(&wrong).await.unwrap_err().to_string();
    assert!(refused.contains("replicaCount"), "{refused}");

    uninstalled(cluster, &namespace).await;
}

/// The API server takes the priority level, and puts requests of the ServiceAccount into it: those about Leases as a flow apart.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_operator_have_a_priority_level_of_their_own() {
    let cluster = cluster().await;
    let namespace = format!("priority-{}", std::process::id());
    let name = namespace.clone();
    let chart = format!("{CHARTS}/trimtab");
    let full = format!("--set=fullnameOverride={name}");
    let on = "--set=apiPriority.enabled=true";
    let install = [
        "install",
        &name,
        &chart,
        "-n",
        &namespace,
        "--create-namespace",
        &full,
        on,
    ];
    cluster.helm(&install).await.unwrap();
    let account = format!("--as=system:serviceaccount:{namespace}:{name}");
    for (resource, schema) in [
        ("leases", format!("{name}-lease")),
        ("configmaps", name.clone()),
    ] {
        let sample = format!(
            "apiserver_flowcontrol_dispatched_requests_total{{flow_schema=\"{schema}\",priority_level=\"{name}\"}}"
        );
        trimtab_lab::process::wait_until(&schema, BOUND, || async {
            // Whether it may or not.
            let _ = cluster
                .kubectl(&["get", resource, "-n", &namespace, &account], "")
                .await;
            let metrics = cluster.kubectl(&["get", "--raw", "/metrics"], "").await;
            let metrics = metrics.map_err(|e| e.to_string())?;
            let found = metrics.lines().find(|line| line.starts_with(&sample));
            found.map(|_| ()).ok_or_else(|| format!("no {sample}"))
        })
        .await
        .unwrap();
    }
    cluster
        .helm(&["uninstall", &name, "-n", &namespace])
        .await
        .unwrap();
    for kind in ["flowschema", "prioritylevelconfiguration"] {
        let gone = get(cluster, &[kind, &name]).await.unwrap_err();
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
    }
}

/// Nothing of the release is left.
async fn uninstalled(cluster: &Cluster, namespace: &str) {
    cluster
        .helm(&["uninstall", "other", "-n", namespace])
        .await
        .unwrap();
    for kind in ["deployment", "service", "configmap", "serviceaccount"] {
        let gone = get(cluster, &["-n", namespace, kind, "other"])
            .await
            .unwrap_err();
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
    }
    let gone = get(cluster, &["clusterrole", "other"]).await.unwrap_err();
    assert!(gone.contains("NotFound"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_account_has_the_rights_that_it_needs_and_no_others() {
    operator().await;
    let cluster = cluster().await;
    let account = format!("--as=system:serviceaccount:{RELEASE_NAMESPACE}:trimtab");
    let can = async |verb: &str, resource: &str| {
        let args = ["auth", "can-i", verb, resource, "-A", &account];
        // It exits with 1 for a no.
        cluster
            .kubectl(&args, "")
            .await
            .is_ok_and(|text| text.trim() == "yes")
    };
    assert!(can("watch", "smartlimiters.microservice.slime.io").await);
    assert!(can("patch", "envoyfilters.networking.istio.io").await);
    for (verb, resource) in [
        ("list", "secrets"),
        ("create", "pods"),
        ("delete", "pods"),
        ("update", "services"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("delete", "smartlimiters.microservice.slime.io"),
        ("create", "deployments.apps"),
    ] {
        assert!(!can(verb, resource).await, "{verb} {resource}");
    }
}

/// What `helm install trimtab-crds` gives a user: one kind behind `sml`, kept when the chart goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_crds_chart_takes_over_and_keeps() {
    let cluster = cluster().await;
    let chart = format!("{CHARTS}/trimtab-crds");
    let namespace = format!("crds-{}", std::process::id());
    let install = [
        "install",
        "crds",
        &chart,
        "-n",
        &namespace,
        "--create-namespace",
        "--take-ownership",
        "--force-conflicts",
    ];
    cluster.helm(&install).await.unwrap();
    let table = cluster.kubectl(&["get", "sml", "-A"], "").await;
    assert!(table.is_ok(), "{table:?}");
    cluster
        .helm(&["uninstall", "crds", "-n", &namespace])
        .await
        .unwrap();
    let kept = get(cluster, &["crd", "smartlimiters.microservice.slime.io"])
        .await
        .unwrap();
    assert_eq!(
        kept["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
}
