//! The operator with the rights of the chart's ClusterRole and no more: it does its work, and it uses every one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::{LimiterStatus, first_form, v1alpha2};
use trimtab_embedded::Embedded;
use trimtab_kit::lease::LEADER_LABEL;
use trimtab_lab::LabError;
use trimtab_lab::process::wait_until;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;

use crate::guard::{Guard, Log, Right, rights};
use crate::helm::{configuration, object, objects, render, repository};
use crate::{fences, protocols};

const BOUND: Duration = Duration::from_secs(60);
/// The operator's own pod.
const POD: &str = "trimtab-0";
const METRICS: &str = "config.metrics.metricsServer={}";
const SECRETS: &str = "config.metaprotocol.readSecrets=true";
const FALLBACK: &str = "fallback.enabled=true";
const ADDRESSES: &str = r#"config.metaprotocol.vips={"v4": "240.241.0.0/24"}"#;

/// The limiter of the example in the first form, with metrics of metrics-server, and one in the present form.
fn mesh() -> Embedded {
    let embedded = standalone::embedded().unwrap();
    for document in manifests::read(&[repository().join("examples/quickstart")])
        .unwrap()
        .documents
    {
        standalone::load(&embedded, &document).unwrap();
    }
    limiter(&embedded, "true");
    protocols::load(&embedded);
    fences::load(&embedded);
    let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": "istio-system"}, "spec": {"containers": []}});
    embedded.load(own).unwrap();
    embedded
}

fn limiter(embedded: &Embedded, condition: &str) {
    let object = json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
        "metadata": {"name": "always", "namespace": "default"},
        "spec": {"workloadSelector": {"app": "a"}, "sets": {"_base": {"descriptor": [
            {"condition": condition, "action": {"quota": "30", "fill_interval": {"seconds": 1}}}]}}}});
    embedded.load(object).unwrap();
}

/// The EnvoyFilter of the limiter in the present form.
async fn filter(embedded: &Embedded) -> Option<EnvoyFilter> {
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let name = "always.default.ratelimit";
    api.get_opt(name).await.unwrap()
}

async fn filter_where(
    embedded: &Embedded,
    what: &str,
    good: impl Fn(Option<&EnvoyFilter>) -> bool,
) -> Result<(), LabError> {
    wait_until(what, BOUND, || async {
        let found = filter(embedded).await;
        if good(found.as_ref()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

async fn status_is_written(embedded: &Embedded) -> Result<(), LabError> {
    wait_until("both have a status", BOUND, || async {
        let present: Api<v1alpha2::SmartLimiter> = Api::namespaced(embedded.client(), "default");
        let first: Api<first_form::SmartLimiter> = Api::namespaced(embedded.client(), "default");
        let told = |status: Option<LimiterStatus>| status.is_some_and(|s| s.state.is_some());
        let one = present.get("always").await.map_err(|e| e.to_string())?;
        let two = first.get("a").await.map_err(|e| e.to_string())?;
        if told(one.status) && told(two.status) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await
}

/// The chart's configuration, on free ports of loopback.
fn config(text: &str) -> Config {
    let mut config: Config = serde_saphyr::from_str(&configuration(text)).unwrap();
    config.http.address = ([127, 0, 0, 1], 0).into();
    config.xds.address = ([127, 0, 0, 1], 0).into();
    config.edit::<Lazyload>(|c| {
        if let Some(logs) = &mut c.learn.access_log {
            logs.address = ([127, 0, 0, 1], 0).into();
        }
    });
    config.in_cluster = true;
    config.pod = Some(("istio-system".to_owned(), POD.to_owned()));
    config.edit::<Limiter>(|c| c.refresh = trimtab_crds::Duration::from_millis(100));
    config
}

/// What the operator's account may do: its ClusterRole, and Roles, as if each held everywhere.
fn granted(text: &str) -> BTreeSet<Right> {
    let bound = objects(text).into_iter().filter(|o| {
        let name = o["metadata"]["name"].as_str().unwrap_or_default();
        (o["kind"] == "ClusterRole" && name == "trimtab") || o["kind"] == "Role"
    });
    bound.flat_map(|role| rights(&role)).collect()
}

/// Everything that an operator does with the API server.
async fn whole_life(
    operator: &Operator,
    embedded: &Embedded,
    guard: &Guard,
) -> Result<(), LabError> {
    filter_where(embedded, "an EnvoyFilter", |f| f.is_some()).await?;
    status_is_written(embedded).await?;
    wait_until("ready", BOUND, || async {
        let missing = operator.readiness.missing();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    })
    .await?;
    // A field that another manager added can only be taken away by an update.
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let somebody = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    let edit = Patch::Merge(json!({"spec": {"targetRefs": [{"name": "x"}]}}));
    api.patch("always.default.ratelimit", &somebody, &edit)
        .await
        .unwrap();
    filter_where(embedded, "the added field is gone", |f| {
        f.is_some_and(|f| f.spec.others.is_empty())
    })
    .await?;
    limiter(embedded, "false");
    filter_where(embedded, "the EnvoyFilter is gone", |f| f.is_none()).await?;
    let label = || async {
        let api: Api<Pod> = Api::namespaced(embedded.client(), "istio-system");
        let pod = api.get(POD).await.map_err(|e| e.to_string())?;
        let labels = pod.metadata.labels.unwrap_or_default();
        let leads = labels
            .get(LEADER_LABEL)
            .is_some_and(|lease| lease == "trimtab");
        leads.then_some(()).ok_or_else(|| format!("{labels:?}"))
    };
    wait_until("the label of the leader", BOUND, label).await?;
    protocols::whole_life(embedded).await?;
    fences::whole_life(embedded).await?;
    let asked = |log: &Log| log.used.iter().any(|r| r.0 == "metrics.k8s.io");
    wait_until("metrics-server is asked", BOUND, || async {
        if guard.with_log(asked) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await
}

/// A declared right as [`rights`] reads one from a ClusterRole.
fn of_declared(right: &trimtab_kit::rights::Right) -> Vec<Right> {
    let resource = format!("{} {}", right.resource, right.name);
    let resource = resource.trim_end().to_owned();
    let verbs = right.verbs.iter();
    verbs
        .map(|verb| (right.group.clone(), resource.clone(), (*verb).to_owned()))
        .collect()
}

const ALL: &[&str] = &[
    "--set-json",
    METRICS,
    "--set",
    SECRETS,
    "--set",
    FALLBACK,
    "--set-json",
    ADDRESSES,
];

#[tokio::test]
async fn the_operator_works_with_its_rights_and_needs_each_of_them() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = render("trimtab", ALL).unwrap();
    let granted = granted(&text);
    let embedded = mesh();
    let guard = Guard::new(embedded.client(), granted.clone());
    let operator = Operator::start(config(&text), guard.client(), CancellationToken::new())
        .await
        .unwrap();
    let declared: BTreeSet<Right> = operator
        .modules
        .iter()
        .flat_map(|m| m.rights.iter().flat_map(of_declared))
        .collect();
    // The rest is for metric sources, for the xDS server's authority and tokens, and for the election.
    let of_modules = |r: &&Right| {
        let of_authority = r.1.starts_with("secrets ") || (r.1 == "secrets" && r.2 == "create");
        let of_election = r.0 == "coordination.k8s.io" || (r.1 == "pods" && r.2 == "patch");
        !of_authority
            && !of_election
            && !["metrics.k8s.io", "authentication.k8s.io"].contains(&&*r.0)
    };
    assert_eq!(
        declared,
        granted.iter().filter(of_modules).cloned().collect(),
        "left: what modules declare; right: the ClusterRole"
    );
    let outcome = whole_life(&operator, &embedded, &guard).await;
    operator.stop().await.unwrap();
    guard.with_log(|log| {
        assert!(
            log.refused.is_empty(),
            "missing in the ClusterRole: {:?}",
            log.refused
        );
        outcome.unwrap();
        // Hints of policies are not watched by every build; no proxy comes; nothing of a VirtualService is refused, which an
        // Event would tell; the authority is young, and every Secret may be read here.
        let later = |r: &&Right| {
            [
                "security.istio.io",
                "authentication.k8s.io",
                "events.k8s.io",
            ]
            .contains(&&*r.0)
                || r.1.starts_with("secrets ")
        };
        let idle: Vec<_> = granted
            .difference(&log.used)
            .filter(|r| !later(r))
            .collect();
        assert!(idle.is_empty(), "granted and never used: {idle:?}");
    });
}

#[tokio::test]
async fn a_right_that_is_missing_is_noticed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = render("trimtab", &["--set", FALLBACK]).unwrap();
    let mut granted = granted(&text);
    let create = ("networking.istio.io", "envoyfilters", "create");
    let create = (
        create.0.to_owned(),
        create.1.to_owned(),
        create.2.to_owned(),
    );
    assert!(granted.remove(&create));
    let embedded = mesh();
    let guard = Guard::new(embedded.client(), granted);
    let operator = Operator::start(config(&text), guard.client(), CancellationToken::new())
        .await
        .unwrap();
    wait_until("the refusal is told in the status", BOUND, || async {
        let api: Api<v1alpha2::SmartLimiter> = Api::namespaced(embedded.client(), "default");
        let status = api.get("always").await.map_err(|e| e.to_string())?.status;
        let conditions = status.unwrap_or_default().conditions;
        let applied = conditions.iter().find(|c| c.type_ == "Applied");
        match applied {
            Some(c) if c.reason == "Forbidden" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
    assert!(guard.with_log(|log| log.refused == [create].into()));
    assert!(filter(&embedded).await.is_none());
}

#[test]
fn rights_that_few_need_are_off() {
    let of = |arguments: &[&str]| granted(&render("trimtab", arguments).unwrap());
    let default = of(&[]);
    let more = of(&[
        "--set-json",
        METRICS,
        "--set",
        SECRETS,
        "--set",
        FALLBACK,
        "--set-json",
        ADDRESSES,
        "--set",
        "rbac.ownerReferencesPermissionEnforcement=true",
    ]);
    let added: Vec<_> = more
        .difference(&default)
        .map(|r| (&*r.0, &*r.1, &*r.2))
        .collect();
    assert_eq!(
        added,
        [
            ("", "secrets", "get"),
            ("", "services global-sidecar", "patch"),
            ("metrics.k8s.io", "pods", "list"),
            (
                "microservice.netease.com",
                "smartlimiters/finalizers",
                "update"
            ),
            (
                "microservice.slime.io",
                "servicefences/finalizers",
                "update"
            ),
            (
                "microservice.slime.io",
                "smartlimiters/finalizers",
                "update"
            ),
            ("networking.istio.io", "serviceentries", "patch"),
        ]
    );
    assert!(default.is_subset(&more));
    assert!(of(&["--set", "fallback.external=true"]).is_superset(&default));
}

#[test]
fn a_module_that_is_off_has_no_rights() {
    let of = |arguments: &[&str]| granted(&render("trimtab", arguments).unwrap());
    let default = of(&[]);
    let layer7 = |r: &Right| r.0.ends_with("aeraki.io") || r.1 == "virtualservices";
    let scoping = |r: &Right| {
        let names = [
            "sidecars",
            "authorizationpolicies",
            "httproutes",
            "grpcroutes",
        ];
        r.1.starts_with("servicefences") || names.contains(&r.1.as_str())
    };
    assert!(default.iter().any(layer7) && default.iter().any(scoping));
    let (no_layer7, no_scoping) = (
        "config.metaprotocol.enabled=false",
        "config.lazyload.enabled=false",
    );
    let off = of(&["--set", no_layer7]);
    assert!(off.is_subset(&default));
    let routes = |r: &Right| r.1 == "virtualservices" && r.2 != "list" && r.2 != "watch";
    assert!(!off.iter().any(routes), "routes are only read");
    let mesh_config = |r: &Right| r.1.starts_with("configmaps");
    assert!(default.iter().any(mesh_config));
    let off = of(&["--set", no_scoping]);
    assert!(off.is_subset(&default) && !off.iter().any(scoping));
    let off = of(&["--set", "config.mesh.configMap="]);
    assert!(off.is_subset(&default) && !off.iter().any(mesh_config));
    let off = of(&["--set", no_scoping, "--set", no_layer7]);
    let shared = |r: &Right| r.1 == "endpointslices";
    let kinds = |r: &Right| r.0.ends_with("aeraki.io");
    assert!(!off.iter().any(kinds) && !off.iter().any(shared));
    assert!(!off.iter().any(mesh_config));
    assert!(!off.iter().any(routes), "limiters only read virtual hosts");
}

#[test]
fn the_role_is_bound_to_the_account_that_the_pod_uses() {
    let text = render("trimtab", &["--set", "serviceAccount.name=mesh"]).unwrap();
    let binding = object(&text, "ClusterRoleBinding", "trimtab");
    assert_eq!(binding["roleRef"]["name"], "trimtab");
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "mesh", "namespace": "istio-system"}])
    );
    object(&text, "ServiceAccount", "mesh");
    let pod = &object(&text, "Deployment", "trimtab")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "mesh");
}
