//! The fallback of the chart is that of the program, with what values say put in.

use std::path::PathBuf;

use serde_json::{Value, json};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::fallback::proxy::ProxyOptions;
use trimtab_lazyload::fallback::{Deploy, FallbackInput, manifests};

use crate::helm::{chart, objects, render};

/// What the template replaces.
const DRAIN: u32 = 64_000;

fn folder() -> PathBuf {
    chart("trimtab").join("files/fallback")
}

/// The content of a file of the chart.
fn generated(tcp: bool) -> String {
    let mut config = LazyloadConfig {
        namespace: "FALLBACK-NAMESPACE".to_owned(),
        domain: "MESH-DOMAIN".to_owned(),
        ..LazyloadConfig::default()
    };
    config.fallback.tcp = tcp;
    let input = FallbackInput {
        config,
        proxy: ProxyOptions {
            access_log: "ACCESS-LOG-HOST:65000".to_owned(),
            ..ProxyOptions::default()
        },
        deploy: Deploy {
            image: "FALLBACK-IMAGE".to_owned(),
            drain_seconds: DRAIN,
            inject: [].into(),
            ..Deploy::default()
        },
        ..FallbackInput::default()
    };
    let mut objects = manifests(&input);
    for object in &mut objects {
        // The template hashes what it renders.
        if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations") {
            annotations["checksum/config"] = json!("");
        }
    }
    serde_json::to_string_pretty(&objects).expect("JSON") + "\n"
}

fn files() -> [(PathBuf, String); 2] {
    [("http.json", false), ("tcp.json", true)]
        .map(|(name, tcp)| (folder().join(name), generated(tcp)))
}

/// Writes the files anew.
pub(crate) fn write() {
    std::fs::create_dir_all(folder()).expect("the folder");
    for (path, text) in files() {
        std::fs::write(path, text).expect("a file is written");
    }
}

#[test]
fn the_files_are_what_the_program_makes() {
    crate::copies::refresh();
    for (path, text) in files() {
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            have,
            text,
            "{}; to fix: UPDATE_EXPECT=1 cargo test -p trimtab-tests --test charts",
            path.display()
        );
        // Each stands for one thing only.
        for (word, times) in [
            ("65000", 1),
            ("ACCESS-LOG-HOST", 1),
            ("64000", 2),
            ("64015", 1),
        ] {
            assert_eq!(
                text.matches(word).count(),
                times,
                "{word} in {}",
                path.display()
            );
        }
    }
}

/// Objects of the fallback in a rendering.
fn rendered(arguments: &[&str]) -> Vec<Value> {
    let text = render("trimtab", arguments).unwrap();
    objects(&text)
        .into_iter()
        .filter(|o| o["metadata"]["name"] == "global-sidecar")
        .collect()
}

/// Takes away what belongs to helm, and the hashes, which differ in kind.
fn bare(mut object: Value) -> Value {
    for at in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(Value::Object(labels)) = object.pointer_mut(at) {
            labels
                .retain(|k, _| !k.starts_with("helm.sh/") && !k.starts_with("app.kubernetes.io/"));
        }
    }
    if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations") {
        let hash = annotations["checksum/config"].take();
        assert!(hash.as_str().is_some_and(|h| !h.is_empty()), "{object}");
    }
    object
}

fn same(arguments: &[&str], input: &FallbackInput) {
    let made: Vec<Value> = manifests(input).into_iter().map(bare).collect();
    let all = ["--set", "fallback.enabled=true"];
    let arguments: Vec<&str> = all.iter().chain(arguments).copied().collect();
    let mut have: Vec<Value> = rendered(&arguments).into_iter().map(bare).collect();
    // helm sorts by kind.
    let mut made = made;
    let key = |o: &Value| {
        (
            o["metadata"]["namespace"].to_string(),
            o["kind"].to_string(),
        )
    };
    have.sort_by_key(key);
    made.sort_by_key(key);
    assert_eq!(have.len(), made.len(), "{arguments:?}");
    for (have, made) in have.iter().zip(&made) {
        assert_eq!(
            have, made,
            "{arguments:?}: left: the chart, right: trimtab fallback"
        );
    }
}

fn input() -> FallbackInput {
    let mut input = FallbackInput::default();
    "istio-system".clone_into(&mut input.config.namespace);
    "trimtab-leader.istio-system.svc.cluster.local:8082".clone_into(&mut input.proxy.access_log);
    input
}

#[test]
fn the_chart_gives_the_objects_of_the_program() {
    assert_eq!(rendered(&[]), Vec::<Value>::new());
    same(&[], &input());
    let mut all = input();
    all.config.domain = "mesh.example.com".to_owned();
    all.config.fallback.tcp = true;
    all.config.revision = "canary".to_owned();
    all.proxy.access_log = "trimtab-leader.istio-system.svc.mesh.example.com:9082".to_owned();
    all.deploy = Deploy {
        image: "registry.example.com/envoy:1.40".to_owned(),
        replicas: 3,
        drain_seconds: 60,
        resources: json!({"requests": {"cpu": "1"}}),
        inject: [("istio.io/rev".to_owned(), "canary".to_owned())].into(),
        image_pull_secrets: vec!["registry".to_owned()],
    };
    let arguments = [
        "--set",
        "clusterDomain=mesh.example.com,fallback.tcp=true,config.lazyload.revision=canary,service.ports.accessLogs=9082",
        "--set",
        "fallback.image=registry.example.com/envoy:1.40,fallback.replicas=3,fallback.drainSeconds=60,imagePullSecrets[0].name=registry",
        "--set-json",
        r#"fallback.resources={"requests": {"cpu": "1", "memory": null}, "limits": null}"#,
        "--set-json",
        r#"fallback.podLabels={"istio.io/rev": "canary", "sidecar.istio.io/inject": null}"#,
    ];
    same(&arguments, &all);
    let mut namespaces = input();
    namespaces.config.fallback.global_sidecar_mode =
        trimtab_lazyload::config::GlobalSidecarMode::Namespace;
    namespaces.config.fallback.namespace = vec!["b".to_owned(), "a".to_owned()];
    let arguments = [
        "--set",
        "config.lazyload.fallback.globalSidecarMode=namespace,config.lazyload.fallback.namespace={b,a}",
    ];
    same(&arguments, &namespaces);
    let mut elsewhere = input();
    elsewhere.config.fallback.cluster_gs_namespace = "edge".to_owned();
    same(
        &["--set", "config.lazyload.fallback.clusterGsNamespace=edge"],
        &elsewhere,
    );
}

#[test]
fn a_change_of_the_fallbacks_configuration_makes_new_pods() {
    let hash = |arguments: &[&str]| {
        let deployment = rendered(arguments)
            .into_iter()
            .find(|o| o["kind"] == "Deployment")
            .unwrap();
        deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    };
    let on = "fallback.enabled=true";
    assert_ne!(
        hash(&["--set", on]),
        hash(&["--set", on, "--set", "service.ports.accessLogs=9082"])
    );
    assert_eq!(
        hash(&["--set", on]),
        hash(&["--set", on, "--set", "fallback.replicas=5"])
    );
}
