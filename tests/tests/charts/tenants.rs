//! Narrower rights, what tenants get, and who may connect.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::guard::{Right, rights};
use crate::helm::{object, objects, render};

fn of_kind(text: &str, kind: &str) -> Vec<Value> {
    objects(text)
        .into_iter()
        .filter(|o| o["kind"] == kind)
        .collect()
}

fn is_write(right: &Right) -> bool {
    !["get", "list", "watch"].contains(&right.2.as_str())
}

/// Rights on the Lease and the label of the leader's pod, which are in the operator's own namespace.
fn is_of_election(right: &Right) -> bool {
    right.0 == "coordination.k8s.io" || (right.1 == "pods" && right.2 == "patch")
}

/// Rights of the ClusterRole, and those of each Role with its namespace, but for what the xDS server's own authority needs.
fn split(arguments: &[&str]) -> (BTreeSet<Right>, Vec<(String, BTreeSet<Right>)>) {
    let arguments = [&["--set", "config.xds.plaintext=true"], arguments].concat();
    let text = render("trimtab", &arguments).unwrap();
    let roles = of_kind(&text, "Role").into_iter().map(|role| {
        let (name, namespace) = (
            &role["metadata"]["name"],
            role["metadata"]["namespace"].as_str().unwrap(),
        );
        let bindings = of_kind(&text, "RoleBinding");
        let bound = bindings
            .iter()
            .find(|b| b["metadata"]["name"] == *name && b["metadata"]["namespace"] == namespace);
        let bound = bound.unwrap_or_else(|| panic!("{name} in {namespace} is bound"));
        assert_eq!(
            bound["roleRef"],
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name})
        );
        assert_eq!(
            bound["subjects"],
            json!([{"kind": "ServiceAccount", "name": "trimtab", "namespace": "istio-system"}])
        );
        (namespace.to_owned(), rights(&role))
    });
    (
        rights(&object(&text, "ClusterRole", "trimtab")),
        roles.collect(),
    )
}

#[test]
fn fault_t14_the_operator_writes_in_the_named_namespaces_only() {
    let more = [
        "--set",
        "fallback.enabled=true",
        "--set-json",
        r#"config.metaprotocol.vips={"v4": "240.241.0.0/24"}"#,
    ];
    let (all, _) = split(&more);
    let named = [
        &more[..],
        &["--set", "rbac.writeNamespaces={shop,istio-system,shop}"],
    ]
    .concat();
    let (cluster, roles) = split(&named);
    // Objects of ApplicationProtocol have no namespace; their status names nothing of others.
    let left: Vec<&Right> = cluster.iter().filter(|r| is_write(r)).collect();
    assert_eq!(
        left,
        [&(
            "metaprotocol.aeraki.io".to_owned(),
            "applicationprotocols/status".to_owned(),
            "patch".to_owned()
        )]
    );
    let write: Vec<_> = roles
        .iter()
        .filter(|(_, rights)| rights.iter().any(is_write))
        .filter(|(_, rights)| !rights.iter().any(is_of_election))
        .collect();
    let namespaces: Vec<&str> = write
        .iter()
        .map(|(namespace, _)| namespace.as_str())
        .collect();
    assert_eq!(namespaces, ["istio-system", "shop"]);
    for (_, rights) in write {
        assert!(
            rights.iter().all(is_write),
            "what is read is read everywhere"
        );
        let both: BTreeSet<Right> = rights.union(&cluster).cloned().collect();
        assert_eq!(both, all, "no right is lost, and none is new");
    }
}

#[test]
fn fault_t14_secrets_are_read_where_and_as_they_are_named() {
    let on = "config.metaprotocol.readSecrets=true";
    let secret = |r: &Right| r.1.starts_with("secrets");
    let (cluster, roles) = split(&["--set", on]);
    assert_eq!(cluster.iter().filter(|r| secret(r)).count(), 1);
    assert!(!roles.iter().any(|(_, r)| r.iter().any(secret)));

    let (cluster, roles) = split(&["--set", on, "--set", "rbac.secrets.namespaces={cache,shop}"]);
    assert!(!cluster.iter().any(secret));
    let of: Vec<&str> = roles
        .iter()
        .filter(|(_, r)| r.iter().any(secret))
        .map(|(n, _)| n.as_str())
        .collect();
    assert_eq!(of, ["cache", "shop"]);

    let names = "rbac.secrets.names={redis,other}";
    let (cluster, roles) = split(&[
        "--set",
        on,
        "--set",
        names,
        "--set",
        "rbac.secrets.namespaces={cache}",
    ]);
    assert!(!cluster.iter().any(secret));
    let (_, rights) = roles.iter().find(|(_, r)| r.iter().any(secret)).unwrap();
    let got: Vec<(&str, &str)> = rights
        .iter()
        .map(|r| (r.1.as_str(), r.2.as_str()))
        .collect();
    assert_eq!(got, [("secrets other", "get"), ("secrets redis", "get")]);

    let (cluster, roles) = split(&["--set", "rbac.secrets.namespaces={cache}"]);
    assert!(
        !cluster.iter().any(secret) && !roles.iter().any(|(_, r)| r.iter().any(secret)),
        "not read, not granted"
    );
}

#[test]
fn fault_t14_tenants_get_the_safe_kinds_with_view_and_edit() {
    let text = render("trimtab", &[]).unwrap();
    for (role, labels, verbs) in [
        ("view", &["view"][..], &["get", "list", "watch"][..]),
        (
            "edit",
            &["edit", "admin"],
            &["create", "delete", "deletecollection", "patch", "update"],
        ),
    ] {
        let role = object(&text, "ClusterRole", &format!("trimtab-{role}"));
        for label in labels {
            assert_eq!(
                role["metadata"]["labels"]
                    [format!("rbac.authorization.k8s.io/aggregate-to-{label}")],
                "true"
            );
        }
        let granted = rights(&role);
        let kinds: BTreeSet<(&str, &str)> = granted
            .iter()
            .map(|r| (r.0.as_str(), r.1.as_str()))
            .collect();
        let safe = [
            ("microservice.netease.com", "smartlimiters"),
            ("microservice.slime.io", "servicefences"),
            ("microservice.slime.io", "smartlimiters"),
        ];
        assert_eq!(kinds, safe.into());
        let got: BTreeSet<&str> = granted.iter().map(|r| r.2.as_str()).collect();
        assert_eq!(got, verbs.iter().copied().collect());
    }
    let off = render("trimtab", &["--set", "rbac.aggregateClusterRoles=false"]).unwrap();
    assert_eq!(of_kind(&off, "ClusterRole").len(), 1);
    let off = render("trimtab", &["--set", "config.lazyload.enabled=false"]).unwrap();
    let view = object(&off, "ClusterRole", "trimtab-view");
    assert!(!view.to_string().contains("servicefences"));
}

/// Ports with their peers.
fn ingress(policy: &Value) -> Vec<(i64, &Value)> {
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    rules
        .iter()
        .map(|rule| {
            assert_eq!(rule["ports"].as_array().unwrap().len(), 1);
            assert!(
                rule["from"].as_array().is_some_and(|from| !from.is_empty()),
                "an empty list would let everybody in"
            );
            (rule["ports"][0]["port"].as_i64().unwrap(), &rule["from"])
        })
        .collect()
}

#[test]
fn fault_t14_a_network_policy_lets_in_proxies_and_monitoring() {
    assert!(of_kind(&render("trimtab", &[]).unwrap(), "NetworkPolicy").is_empty());
    let on = "networkPolicy.enabled=true";
    let text = render("trimtab", &["--set", on]).unwrap();
    let policy = object(&text, "NetworkPolicy", "trimtab");
    let pod = object(&text, "Deployment", "trimtab");
    assert_eq!(
        policy["spec"]["podSelector"]["matchLabels"],
        pod["spec"]["selector"]["matchLabels"]
    );
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
    let rules = ingress(&policy);
    let ports: Vec<i64> = rules.iter().map(|r| r.0).collect();
    assert_eq!(ports, [8080, 15010, 8082]);
    assert_eq!(
        rules[0].1[0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "monitoring"
    );
    assert_eq!(rules[1].1, rules[2].1);
    assert_eq!(
        rules[1].1[0]["namespaceSelector"]["matchLabels"]["istio-injection"],
        "enabled"
    );

    let more = [
        "--set",
        on,
        "--set",
        "networkPolicy.monitoring=null",
        "--set",
        "config.xds.address=0.0.0.0:16010",
        "--set-json",
        r#"config.metrics.mds={"address": "0.0.0.0:8094"}"#,
        "--set-json",
        r#"networkPolicy.metricPushers=[{"podSelector": {"matchLabels": {"app": "gauge"}}}]"#,
    ];
    let text = render("trimtab", &more).unwrap();
    let policy = object(&text, "NetworkPolicy", "trimtab");
    let ports: Vec<i64> = ingress(&policy).iter().map(|r| r.0).collect();
    assert_eq!(ports, [16010, 8082, 8094]);
    let quiet = [
        "--set",
        on,
        "--set",
        "config.lazyload.enabled=false",
        "--set-json",
        "config.metrics.mds={}",
    ];
    let text = render("trimtab", &quiet).unwrap();
    let policy = object(&text, "NetworkPolicy", "trimtab");
    let ports: Vec<i64> = ingress(&policy).iter().map(|r| r.0).collect();
    assert_eq!(ports, [8080, 15010], "nobody is named who pushes");
}
