//! `trimtab check` on a real API server: before the installation, healthy, and with faults planted one at a time.
//!
//! Pods have no kubelet: the test writes them and their status as one would, and the operator runs in this process with the
//! name of one of them. The port-forward has a test of its own, with a stand-in for the kubelet.

mod installed;

use serde_json::{Value, json};
use trimtab::check::finding::Report;
use trimtab::check::{print, report};
use trimtab::reach::Server;
use trimtab_cluster::{Cluster, service_account_token, wait_for};

use crate::fixture::BOUND;
use installed::{
    CHARTS, Installed, NAMESPACE, NODE, apply, get, istiod, kubectl, only, patch_status,
};

const IMAGE: &str = "registry.example.com/trimtab:0.1.0";

fn webhook(service: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "aeraki-istio-system"},
        "webhooks": [{"name": "validation.aeraki.io", "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": service, "namespace": NAMESPACE, "path": "/validate"}},
            "rules": [{"apiGroups": ["metaprotocol.aeraki.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                "resources": ["metarouters"]}]}]})
}

/// A pod in the namespace default, with or without a proxy.
fn pod_with(name: &str, proxy: bool, labels: &Value) -> Value {
    let mut containers = vec![json!({"name": "app", "image": "app"})];
    if proxy {
        containers.push(json!({"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.31.0"}));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": NODE, "containers": containers}})
}

fn limiter(name: &str) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"sets": {"_base": {"descriptor": [{"condition": "true", "action": {"quota": "10", "fill_interval": {"seconds": 60}}}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_installation_the_users_rights_count_and_a_missing_crd_is_named() {
    let cluster = Cluster::without_trimtab().await.unwrap();
    let _ = cluster
        .kubectl(&["create", "namespace", NAMESPACE], "")
        .await;
    apply(&cluster, &istiod("1.31.0")).await;
    let server = Server::default();
    let client = cluster.client().await.unwrap();
    let found = report(client.clone(), None, None, &server).await.unwrap();
    let one = only(
        &found,
        "TC201",
        "applicationprotocols.metaprotocol.aeraki.io",
    )
    .unwrap();
    assert!(one.message.contains("and 1 more"), "{one:?}");
    let chart = format!("{CHARTS}/trimtab-crds");
    let install = ["install", "trimtab-crds", &chart, "-n", NAMESPACE];
    cluster.helm(&install).await.unwrap();
    let found = report(client, None, None, &server).await.unwrap();
    assert_eq!(found.findings, [], "{}", print::text(&found));
    assert!(
        found.ok.iter().any(|ok| ok.message == "not installed yet"),
        "{found:?}"
    );

    // Somebody with few rights.
    let _ = cluster
        .kubectl(&["-n", "default", "create", "serviceaccount", "jane"], "")
        .await;
    let role = [
        "create",
        "clusterrole",
        "jane",
        "--verb=list",
        "--resource=deployments.apps,pods,services,namespaces",
    ];
    kubectl(&cluster, &role, "").await;
    let binding = [
        "create",
        "clusterrolebinding",
        "jane",
        "--clusterrole=jane",
        "--serviceaccount=default:jane",
    ];
    kubectl(&cluster, &binding, "").await;
    let token = service_account_token(&cluster, "default", "jane", &[])
        .await
        .unwrap();
    let client = cluster.client_with_token(&token).await.unwrap();
    let found = report(client, None, None, &server).await.unwrap();
    let codes: Vec<&str> = found.findings.iter().map(|f| f.code).collect();
    assert!(
        codes.contains(&"TC303") && codes.contains(&"TC001"),
        "{}",
        print::text(&found)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_o21_planted_faults_are_named_and_a_healthy_cluster_is_only_ok() {
    let installed = Installed::start().await;
    let healthy = installed.healthy().await;
    let text = print::text(&healthy);
    println!("{text}");
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
    installation(&installed).await;
    rights(&installed).await;
    leftovers(&installed).await;
    metrics(&installed).await;
    mesh(&installed).await;
    releases(&installed).await;
    services(&installed).await;
    replicas(&installed).await;
    installed.healthy().await;
    lease(installed).await;
}

async fn installation(installed: &Installed) {
    let cluster = &installed.cluster;
    let crd = get(cluster, "crd", "dubboauthorizationpolicies.dubbo.aeraki.io").await;
    kubectl(
        cluster,
        &[
            "delete",
            "crd",
            "dubboauthorizationpolicies.dubbo.aeraki.io",
        ],
        "",
    )
    .await;
    installed.finds("TC201", "dubboauthorizationpolicies").await;
    apply(
        cluster,
        &json!({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "spec": crd["spec"],
        "metadata": {"name": crd["metadata"]["name"]}}),
    )
    .await;
    installed.healthy().await;

    let old = |crd: &mut Value| {
        let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let fields = crd.pointer_mut(at).unwrap().as_object_mut().unwrap();
        assert!(fields.remove("stabilization").is_some());
    };
    let name = "smartlimiters.microservice.slime.io";
    installed.changed("crd", name, old, "TC202", name).await;
}

async fn rights(installed: &Installed) {
    let fewer = |role: &mut Value| {
        let rules = role["rules"].as_array_mut().unwrap();
        let filters = json!(["envoyfilters"]);
        let writes = |rule: &&mut Value| {
            rule["resources"] == filters
                && rule["verbs"].as_array().unwrap().contains(&json!("create"))
        };
        let rule = rules.iter_mut().find(writes).unwrap();
        rule["verbs"] = json!(["patch", "update", "delete"]);
    };
    installed
        .changed(
            "clusterrole",
            "trimtab",
            fewer,
            "TC301",
            "ServiceAccount istio-system/trimtab",
        )
        .await;
    let fewer = |role: &mut Value| {
        role["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    };
    installed
        .changed(
            "role",
            "trimtab-pods",
            fewer,
            "TC301",
            "ServiceAccount istio-system/trimtab",
        )
        .await;
}

async fn leftovers(installed: &Installed) {
    let cluster = &installed.cluster;
    installed
        .planted(
            &webhook("aeraki"),
            "TC704",
            "ValidatingWebhookConfiguration aeraki-istio-system",
        )
        .await;
    // The same while somebody answers.
    installed
        .planted(
            &webhook("trimtab"),
            "TC703",
            "ValidatingWebhookConfiguration aeraki-istio-system",
        )
        .await;
    let aeraki = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "aeraki", "namespace": NAMESPACE, "labels": {"app": "aeraki"}},
        "spec": {"selector": {"matchLabels": {"app": "aeraki"}}, "template": {"metadata": {"labels": {"app": "aeraki"}},
            "spec": {"containers": [{"name": "aeraki", "image": "aeraki"}]}}}});
    installed
        .planted(&aeraki, "TC702", "Deployment istio-system/aeraki")
        .await;
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "slimeboots.config.netease.com"},
        "spec": {"group": "config.netease.com", "scope": "Namespaced", "names": {"kind": "SlimeBoot", "plural": "slimeboots"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    apply(cluster, &crd).await;
    let wait = [
        "wait",
        "--for=condition=established",
        "--timeout=60s",
        "crd",
        "slimeboots.config.netease.com",
    ];
    kubectl(cluster, &wait, "").await;
    installed.healthy().await;
    let boot = json!({"apiVersion": "config.netease.com/v1alpha1", "kind": "SlimeBoot",
        "metadata": {"name": "lazyload", "namespace": "default"}, "spec": {}});
    installed
        .planted(&boot, "TC701", "SlimeBoot default/lazyload")
        .await;
}

async fn metrics(installed: &Installed) {
    let text = kubectl(
        &installed.cluster,
        &[
            "-n",
            NAMESPACE,
            "get",
            "configmap",
            "trimtab",
            "-o",
            "jsonpath={.data.config\\.yaml}",
        ],
        "",
    )
    .await;
    let with = |metrics: &str| format!("{text}\nmetrics: {metrics}\n");
    let broken = with(
        "{prometheus: {address: 'http://127.0.0.1:9', handlers: {cpu: {query: 'up', type: PerPod}}}}",
    );
    let found = installed.report_with(Some(&broken)).await;
    only(&found, "TC401", "Configuration metrics.prometheus").unwrap();
    let found = installed
        .report_with(Some(&with("{metricsServer: {}}")))
        .await;
    // The installed ClusterRole does not have the right either.
    let codes: Vec<&str> = found.findings.iter().map(|f| f.code).collect();
    assert_eq!(codes, ["TC301", "TC405"], "{}", print::text(&found));
}

async fn mesh(installed: &Installed) {
    let gone = pod_with("gone", true, &json!({"istio.io/rev": "gone"}));
    installed.planted(&gone, "TC604", "Namespace default").await;

    let cluster = &installed.cluster;
    apply(cluster, &limiter("nobody")).await;
    let found = installed
        .finds("TC601", "SmartLimiter default/nobody")
        .await;
    assert!(
        found.message.contains("there is no Service default/nobody"),
        "{found:?}"
    );
    kubectl(cluster, &["-n", "default", "delete", "sml", "nobody"], "").await;
}

async fn releases(installed: &Installed) {
    let cluster = &installed.cluster;
    // A fence that watches only is well without pods.
    let fence = |mode: &str, enable: bool| {
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"enable": enable, "mode": mode}})
    };
    apply(cluster, &pod_with("web", false, &json!({}))).await;
    apply(cluster, &fence("Observe", true)).await;
    installed.finds("TC602", "Namespace default").await;
    apply(cluster, &pod_with("proxy", true, &json!({}))).await;
    installed.healthy().await;
    apply(cluster, &istiod("1.30.4")).await;
    installed.healthy().await;
    apply(cluster, &fence("Exclude", true)).await;
    let named = wait_for("the older istiod to be named", BOUND, || async {
        let report = installed.report().await;
        let found = report.findings.iter().find(|f| f.code == "TC103").cloned();
        found.ok_or_else(|| print::text(&report))
    });
    let found = named.await.unwrap();
    assert_eq!(
        (found.object.as_str(), found.field.as_str()),
        ("ServiceFence default/web", "spec.mode")
    );
    apply(cluster, &istiod("1.31.0")).await;
    for (kind, name) in [("svf", "web"), ("pod", "web"), ("pod", "proxy")] {
        kubectl(
            cluster,
            &[
                "-n",
                "default",
                "delete",
                kind,
                name,
                "--grace-period=0",
                "--force",
            ],
            "",
        )
        .await;
    }
    installed.healthy().await;
}

async fn services(installed: &Installed) {
    let renamed = |service: &mut Value| service["spec"]["ports"][1]["name"] = json!("xds");
    installed
        .changed(
            "service",
            "trimtab",
            renamed,
            "TC513",
            "Service istio-system/trimtab",
        )
        .await;
    let elsewhere = |service: &mut Value| {
        for port in service["spec"]["ports"].as_array_mut().unwrap() {
            if port["port"] == 15010 {
                port["port"] = json!(15011);
            }
        }
    };
    installed
        .changed(
            "service",
            "trimtab",
            elsewhere,
            "TC511",
            "Deployment istio-system/trimtab",
        )
        .await;
    let nobody = |service: &mut Value| service["spec"]["selector"] = json!({"app": "nobody"});
    installed
        .changed(
            "service",
            "trimtab",
            nobody,
            "TC512",
            "Service istio-system/trimtab",
        )
        .await;
    installed.healthy().await;
}

async fn replicas(installed: &Installed) {
    let cluster = &installed.cluster;
    let ready = |number: i32| json!({"readyReplicas": number, "availableReplicas": number});
    let waiting = |reason: &str| {
        json!({"containerStatuses": [{"name": "trimtab", "image": IMAGE, "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": reason}}}]})
    };
    patch_status(cluster, "deployment", "trimtab", &ready(1)).await;
    patch_status(cluster, "pod", "trimtab-1", &waiting("CrashLoopBackOff")).await;
    let found = installed
        .finds("TC501", "Deployment istio-system/trimtab")
        .await;
    assert!(found.message.contains("1 of 2"), "{found:?}");
    patch_status(cluster, "pod", "trimtab-1", &waiting("ImagePullBackOff")).await;
    installed
        .finds("TC502", "Deployment istio-system/trimtab")
        .await;
    patch_status(
        cluster,
        "pod",
        "trimtab-1",
        &json!({"containerStatuses": null}),
    )
    .await;
    patch_status(cluster, "deployment", "trimtab", &ready(2)).await;
    let mixed = |pod: &mut Value| {
        pod["spec"]["containers"][0]["image"] = json!("registry.example.com/trimtab:0.2.0");
    };
    installed
        .changed(
            "pod",
            "trimtab-1",
            mixed,
            "TC503",
            "Deployment istio-system/trimtab",
        )
        .await;
}

/// The operator ends, and leaves a Lease that nobody renews.
async fn lease(installed: Installed) {
    let Installed {
        cluster,
        operator,
        server,
    } = installed;
    operator.stop().await.unwrap();
    let client = cluster.client().await.unwrap();
    let codes = |report: &Report| report.findings.iter().map(|f| f.code).collect::<Vec<_>>();
    let found = report(client.clone(), None, None, &server).await.unwrap();
    // It has given the Lease back.
    assert_eq!(codes(&found), ["TC505", "TC509"], "{}", print::text(&found));
    let held = json!({"spec": {"holderIdentity": "trimtab-9_00000000"}}).to_string();
    let patch = [
        "-n",
        NAMESPACE,
        "patch",
        "lease",
        "trimtab",
        "--type=merge",
        "-p",
        &held,
    ];
    kubectl(&cluster, &patch, "").await;
    let found = report(client, None, None, &server).await.unwrap();
    assert_eq!(codes(&found), ["TC505", "TC510"], "{}", print::text(&found));
    let stale = found.findings.iter().find(|f| f.code == "TC510").unwrap();
    assert!(stale.message.contains("a pod that is gone"), "{stale:?}");
}
