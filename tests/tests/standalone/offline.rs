//! What is taken from files, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use trimtab::manifests::{self, Document};
use trimtab::standalone::{self, Folder, Loaded};
use trimtab_crds::metaprotocol::MetaRouter;
use trimtab_kit::clock::ManualClock;
use trimtab_tests::fields::{UNKNOWN, with_unknown_fields};

/// Every kind of ours, every place: the same paths as a real API server names, which a test of the cluster compares.
#[test]
fn fault_m10_every_unknown_field_of_every_kind_is_named() {
    let embedded = standalone::embedded().unwrap();
    let mut places = 0;
    for (file, crd) in trimtab_crds::manifests::trimtab_crds() {
        let (object, paths) = with_unknown_fields(&crd);
        let document = Document::new(file, object);
        let error = standalone::load(&embedded, &document)
            .unwrap_err()
            .to_string();
        for path in &paths {
            assert!(
                error.contains(&format!("{path}: unknown field")),
                "{path}: {error}"
            );
        }
        assert_eq!(
            error.matches("unknown field").count(),
            paths.len(),
            "{error}"
        );
        assert!(error.contains(&document.title()), "{error}");
        places += paths.len();
    }
    assert!(places > 100, "{places} places");
}

/// Fields that the schemas keep are no reason for a refusal.
#[test]
fn old_status_of_every_kind_is_taken() {
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        let (object, paths) = with_unknown_fields(&crd);
        assert_eq!(object["status"][UNKNOWN], 1, "{object}");
        assert!(!paths.contains(&format!("status.{UNKNOWN}")));
    }
}

const GOOD: &str = "apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: desk, namespace: library}
spec:
  hosts: [desk.library.svc.cluster.local]
  routes:
  - {name: one, match: {attributes: {method: {exact: renew}}}, route: [{destination: {host: new.library.svc.cluster.local}}]}
";

fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What is refused when the folder has been like this for long enough.
async fn settled(watched: &mut Folder, clock: &ManualClock) -> Vec<String> {
    for _ in 0..3 {
        clock.advance(Duration::from_millis(500));
        watched.sync().await.unwrap();
    }
    watched.sync().await.unwrap()
}

#[tokio::test]
async fn fault_m10_a_misspelt_field_leaves_the_last_good_version() {
    let dir = folder("m10");
    let embedded = standalone::embedded().unwrap();
    let clock = ManualClock::default();
    let mut watched = Folder::with_clock(&dir, embedded.clone(), Arc::new(clock.clone()));
    let routers: Api<MetaRouter> = Api::namespaced(embedded.client(), "library");
    let file = dir.join("router.yaml");
    std::fs::write(&file, GOOD).unwrap();
    assert_eq!(settled(&mut watched, &clock).await, Vec::<String>::new());
    let good = routers.get("desk").await.unwrap();

    for (from, to, meant) in [
        (
            "attributes:",
            "attribute:",
            "spec.routes[0].match.attribute: unknown field, did you mean attributes?",
        ),
        (
            "{exact: renew}",
            "{exakt: renew}",
            "spec.routes[0].match.attributes.method.exakt: unknown field, did you mean exact?",
        ),
        (
            "  hosts:",
            "  hosts: [other.library]\n  hosts:",
            "MetaRouter library/desk: a key is written twice",
        ),
        (
            "metadata: {",
            "metadata: {lables: {a: b}, ",
            "metadata.lables: unknown field, did you mean labels?",
        ),
        (
            "kind: MetaRouter",
            "kind: MetaRoute",
            "did you mean MetaRouter?",
        ),
        (
            "aeraki.io/v1alpha1",
            "aeraki.io/v1",
            "write apiVersion: metaprotocol.aeraki.io/v1alpha1",
        ),
        ("  hosts:", "\n  hosts: [", "not YAML"),
    ] {
        std::fs::write(&file, GOOD.replace(from, to)).unwrap();
        let refused = settled(&mut watched, &clock).await.join("\n");
        assert!(refused.contains(meant), "{meant}: {refused}");
        assert!(refused.contains("router.yaml"), "{refused}");
        let now = routers.get("desk").await;
        assert_eq!(now.expect(meant).spec, good.spec, "{meant}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(settled(&mut watched, &clock).await, Vec::<String>::new());
    assert!(routers.get_opt("desk").await.unwrap().is_none());
    let _ = std::fs::remove_dir_all(dir);
}

fn istio(version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", version, kind))
}

/// What is written in one version is there in each, and once.
#[tokio::test]
async fn fault_m4_versions_of_istios_kinds_are_one_kind() {
    let embedded = standalone::embedded().unwrap();
    let kinds = [
        ("DestinationRule", "{host: a.library.svc.cluster.local}"),
        ("ServiceEntry", "{hosts: [a.example]}"),
        ("VirtualService", "{hosts: [a.example]}"),
        ("Gateway", "{selector: {a: b}}"),
        ("Sidecar", "{egress: [{hosts: ['./*']}]}"),
        ("WorkloadEntry", "{address: 10.0.0.1}"),
    ];
    for (kind, spec) in kinds {
        for (i, version) in ["v1alpha3", "v1beta1", "v1"].into_iter().enumerate() {
            let text = format!(
                "{{apiVersion: networking.istio.io/{version}, kind: {kind}, metadata: {{name: one, namespace: library, labels: {{i: '{i}'}}}}, spec: {spec}, status: {{}}}}"
            );
            for document in manifests::parse(Path::new("in.yaml"), &text).unwrap() {
                assert_eq!(
                    standalone::load(&embedded, &document).unwrap(),
                    Loaded::Taken
                );
            }
            for asked in ["v1", "v1beta1", "v1alpha3"] {
                let resource = istio(asked, kind);
                let api: Api<DynamicObject> = Api::all_with(embedded.client(), &resource);
                let list = api.list(&<_>::default()).await.unwrap();
                assert_eq!(list.items.len(), 1, "{kind} {asked}");
                let found = &list.items[0];
                assert_eq!(
                    found.types.as_ref().map(|t| t.api_version.clone()),
                    Some(resource.api_version.clone())
                );
                assert_eq!(
                    found.metadata.labels.as_ref().unwrap()["i"],
                    i.to_string(),
                    "{kind} {asked}"
                );
            }
        }
    }
}

#[test]
fn fault_m10_fields_that_istio_does_not_have_are_told() {
    let text = "{apiVersion: networking.istio.io/v1beta1, kind: VirtualService, metadata: {name: a, namespace: library}, spec: {hosts: [a.example], http: [{mtch: [], route: []}]}}";
    let document = manifests::parse(Path::new("in.yaml"), text)
        .unwrap()
        .remove(0);
    let remarks = standalone::remarks(&document);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    for part in [
        "in.yaml: VirtualService library/a",
        "spec.http[0].mtch",
        "did you mean match?",
    ] {
        assert!(remarks[0].contains(part), "{remarks:?}");
    }
    let embedded = standalone::embedded().unwrap();
    assert_eq!(
        standalone::load(&embedded, &document).unwrap(),
        Loaded::Taken
    );
}

/// Loads an object of a kind that has nothing but a name.
fn load_kind(api_version: &str, kind: &str) -> Result<Loaded, String> {
    let embedded = standalone::embedded().unwrap();
    let text = format!(
        "{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: x}}, spec: {{any: 1}}}}"
    );
    let document = manifests::parse(Path::new("in.yaml"), &text)
        .unwrap()
        .remove(0);
    standalone::load(&embedded, &document).map_err(|e| e.to_string())
}

/// What folders of applications hold besides.
#[test]
fn fault_m4_kinds_that_do_not_matter_are_no_mistakes() {
    for (api_version, kinds) in [
        ("apps/v1", "StatefulSet DaemonSet ReplicaSet Deployment"),
        ("batch/v1", "Job CronJob"),
        ("autoscaling/v1", "HorizontalPodAutoscaler"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "Ingress IngressClass NetworkPolicy"),
        (
            "rbac.authorization.k8s.io/v1",
            "Role ClusterRole RoleBinding ClusterRoleBinding",
        ),
        (
            "v1",
            "PersistentVolumeClaim LimitRange ResourceQuota ServiceAccount ConfigMap",
        ),
        (
            "security.istio.io/v1beta1",
            "PeerAuthentication RequestAuthentication AuthorizationPolicy",
        ),
        ("telemetry.istio.io/v1alpha1", "Telemetry"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute GRPCRoute"),
        ("gateway.networking.k8s.io/v1beta1", "HTTPRoute"),
    ] {
        for kind in kinds.split(' ') {
            assert_eq!(load_kind(api_version, kind), Ok(Loaded::Taken), "{kind}");
        }
    }
    for (api_version, kind) in [
        ("argoproj.io/v1alpha1", "Rollout"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
        ("batch/v1beta1", "CronJob"),
        ("extensions/v1beta1", "Ingress"),
        ("metrics.k8s.io/v1beta1", "NodeMetrics"),
    ] {
        assert_eq!(
            load_kind(api_version, kind),
            Ok(Loaded::PassedOver),
            "{kind}"
        );
    }
}

#[test]
fn fault_m4_misspelt_kinds_and_versions_are_mistakes() {
    for (api_version, kind, fix) in [
        ("apps/v1", "StatefullSet", "did you mean StatefulSet?"),
        ("v2", "Service", "write apiVersion: v1"),
        (
            "discovery.k8s.io/v1beta1",
            "EndpointSlice",
            "write apiVersion: discovery.k8s.io/v1",
        ),
        (
            "networking.istio.io/v2",
            "VirtualService",
            "write apiVersion: networking.istio.io/v1",
        ),
        (
            "networking.istio.io/v1",
            "Virtualservice",
            "did you mean VirtualService?",
        ),
        (
            "microservice.slime.io/v1alpha1",
            "SmartLimiter",
            "write apiVersion: microservice.slime.io/v1alpha2",
        ),
        (
            "microservice.slime.io/v1alpha1",
            "EnvoyPlugin",
            "Trimtab does not know it",
        ),
    ] {
        let error = load_kind(api_version, kind).unwrap_err();
        assert!(error.contains(fix), "{kind}: {error}");
    }
}

/// Folders of installations hold the CRDs too; those of the program count.
#[tokio::test]
async fn fault_m17_crds_of_aeraki_in_the_folder_change_nothing() {
    let dir = folder("m17");
    let embedded = standalone::embedded().unwrap();
    let clock = ManualClock::default();
    let mut watched = Folder::with_clock(&dir, embedded.clone(), Arc::new(clock.clone()));
    let (_, mut crd) = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .nth(1)
        .unwrap();
    assert_eq!(crd.spec.names.kind, "ApplicationProtocol");
    "Namespaced".clone_into(&mut crd.spec.scope);
    let protocol = "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: p, namespace: istio-system}, spec: {protocol: p, codec: c}}";
    std::fs::write(dir.join("crd.yaml"), manifests::yaml(&crd).unwrap()).unwrap();
    std::fs::write(dir.join("protocol.yaml"), protocol).unwrap();
    assert_eq!(settled(&mut watched, &clock).await, Vec::<String>::new());
    let kind = || embedded.kind("metaprotocol.aeraki.io/v1alpha1", "ApplicationProtocol");
    assert!(!kind().unwrap().namespaced);
    std::fs::remove_file(dir.join("crd.yaml")).unwrap();
    settled(&mut watched, &clock).await;
    assert!(
        kind().is_some(),
        "the CRD is the program's, not the folder's"
    );
    let _ = std::fs::remove_dir_all(dir);
}
