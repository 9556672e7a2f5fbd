//! What fences in files are told, and what comes of them: misspelt names, selectors and keys as Slime writes them, hints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use trimtab::config::Config;
use trimtab::translate::Output;
use trimtab::{manifests, standalone, translate};

const OFF: &str = "lazyload: {fallback: {enabled: false}}";

/// A fence; `spec` is added to `enable: true`.
fn fence(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: microservice.slime.io/v1alpha1\nkind: ServiceFence\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{enable: true{spec}}}\n"
    )
}

fn service(namespace: &str, name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn config(text: &str) -> Config {
    let config: Config = serde_saphyr::from_str(text).unwrap();
    config.check().unwrap();
    config
}

async fn translated(text: &str, settings: &str) -> Output {
    let documents = manifests::parse(Path::new("in.yaml"), text).unwrap();
    let pass = translate::pass(&documents, &BTreeMap::new(), &config(settings)).await;
    let (_, output) = pass.unwrap();
    assert_eq!(output.refused, Vec::<String>::new());
    output
}

/// Entries of a Sidecar.
fn entries(output: &Output, name: &str) -> Vec<String> {
    let sidecar = output
        .objects
        .iter()
        .find(|o| o["kind"] == "Sidecar" && o["metadata"]["name"] == name);
    let hosts = sidecar.unwrap()["spec"]["egress"][0]["hosts"].as_array();
    let hosts = hosts.unwrap().iter();
    hosts.map(|h| h.as_str().unwrap().to_owned()).collect()
}

/// What `Accepted` says of a fence.
fn accepted<'a>(output: &'a Output, fence: &str) -> &'a str {
    let start = format!("ServiceFence {fence}: Accepted: ");
    let line = output.notes.iter().find_map(|n| n.strip_prefix(&start));
    line.unwrap_or_default()
}

#[tokio::test]
async fn fault_s19_each_misspelt_name_has_one_remark() {
    for (spec, parts) in [
        (
            ", host: {lapm.hall.svc.cluster.local: {}}",
            &[
                "spec.host \"lapm.hall.svc.cluster.local\"",
                "has no Service lapm",
            ][..],
        ),
        (
            ", host: {lamp.hal.svc.cluster.local: {}}",
            &[
                "spec.host \"lamp.hal.svc.cluster.local\"",
                "no namespace hal:",
            ],
        ),
        (
            ", host: {lapm: {}}",
            &["spec.host \"lapm\"", "no such service"],
        ),
        (", host: {lapm.hall: {}}", &["spec.host \"lapm.hall\""]),
        (
            ", host: {www.exmaple.com: {}}",
            &["spec.host \"www.exmaple.com\""],
        ),
        (
            ", host: {\"*.exmaple.com\": {}}",
            &["spec.host \"*.exmaple.com\""],
        ),
        (
            ", host: {\"hal/*\": {}}",
            &["spec.host \"hal/*\"", "no namespace hal:"],
        ),
        (
            ", namespaceSelector: [hal]",
            &["spec.namespaceSelector \"hal\"", "no namespace hal:"],
        ),
        (
            ", labelSelector: [{selector: {app: lamp}}, {selector: {app: lapm}}]",
            &["spec.labelSelector[1]", "selects no Service"],
        ),
        (
            ", host: {home/lamp.hall.svc.cluster.local: {}}",
            &["namespace home has no such host (hall has it)"],
        ),
        (
            ", workloadSelector: {labels: {app: raeder}}",
            &["spec.workloadSelector.labels (app=raeder)", "no pod"],
        ),
    ] {
        let text = service("hall", "lamp") + &service("home", "door") + &fence("home", "one", spec);
        let output = translated(&text, OFF).await;
        let told = accepted(&output, "home/one");
        assert!(told.starts_with("AcceptedWithRemarks: "), "{spec}: {told}");
        for part in parts {
            assert!(told.contains(part), "{spec}: {told}");
        }
        assert!(!told.contains("; "), "one remark alone: {spec}: {told}");
    }
}

#[tokio::test]
async fn fault_s19_right_names_have_no_remark() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: one-1, namespace: home, labels: {app: one}}\nspec: {containers: [{name: a, image: a}]}\nstatus: {podIP: 10.1.0.5, phase: Running}\n";
    let space = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n";
    for spec in [
        ", host: {lamp.hall.svc.cluster.local: {}, lamp.hall: {}, hall/lamp.hall.svc.cluster.local: {}}",
        ", host: {\"hall/*\": {}, \"./*\": {}, \"empty/*\": {}, \"*.hall.svc.cluster.local\": {}}",
        ", namespaceSelector: [hall, home, empty], labelSelector: [{selector: {app: lamp}}]",
        ", workloadSelector: {labels: {app: one}}",
        "",
    ] {
        let text = service("hall", "lamp") + pod + space + &fence("home", "one", spec);
        let output = translated(&text, OFF).await;
        assert_eq!(accepted(&output, "home/one"), "", "{spec}");
    }
}

#[tokio::test]
async fn fault_s19_a_sidecar_for_nothing_names_no_host() {
    let text = service("hall", "lamp") + &fence("home", "one", ", namespaceSelector: []");
    let output = translated(&text, OFF).await;
    assert_eq!(entries(&output, "one"), ["~/*"]);
    let notes = output.notes.join("\n");
    assert!(notes.contains("the Sidecar names no host"), "{notes}");
    assert!(notes.contains("scope: 0 of 1 services"), "{notes}");
}

#[tokio::test]
async fn fault_s19_misspelt_names_of_the_configuration_are_told() {
    let all = [
        (
            "stableHost: [lapm.hall.svc.cluster.local]",
            "stableHost \"lapm.hall.svc.cluster.local\"",
        ),
        ("stableHost: [\"hal/*\"]", "stableHost \"hal/*\""),
        (
            "domainAliases: [{pattern: '^lapm[.]', templates: [a.b.c]}]",
            "lazyload.domainAliases[0]: pattern \"^lapm[.]\"",
        ),
        (
            "fences: {autoFence: true, whiteNamespaceList: 'hall, hal'}",
            "lazyload.fences.whiteNamespaceList \"hal\"",
        ),
        (
            "fences: {autoFence: true, blackNamespaceList: hal}",
            "lazyload.fences.blackNamespaceList \"hal\"",
        ),
    ];
    let text = service("hall", "lamp") + &fence("home", "one", "");
    for (key, part) in all {
        let settings = format!("lazyload: {{fallback: {{enabled: false}}, {key}}}");
        let output = translated(&text, &settings).await;
        let told = accepted(&output, "home/one");
        assert!(told.contains(part), "{key}: {told}");
    }
    let dispatch = |domain: &str| {
        format!(
            "lazyload: {{fallback: {{dispatches: [{{name: a, domains: ['{domain}'], cluster: PassthroughCluster}}]}}}}"
        )
    };
    for (domain, told) in [
        ("lapm.hall.svc.cluster.local", true),
        ("lapm.hall.svc.cluster.local:80", true),
        ("lapm.hall", true),
        ("*.hal.svc.cluster.local", true),
        ("lamp.hall.svc.cluster.local", false),
        ("lamp.hall", false),
        ("*.hall.svc.cluster.local", false),
        // Nobody knows these names.
        ("www.exmaple.com", false),
        ("*.exmaple.com", false),
        ("*", false),
    ] {
        let output = translated(&text, &dispatch(domain)).await;
        let key = format!("lazyload.fallback.dispatches[0].domains[0] \"{domain}\"");
        let remark = accepted(&output, "home/one");
        assert_eq!(remark.contains(&key), told, "{domain}: {remark}");
    }
}

#[tokio::test]
async fn fault_s22_what_is_not_exported_has_that_remark_alone() {
    let entry = |exports: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: mill, namespace: stream}}\nspec: {{exportTo: [{exports}], hosts: [mill.example, \"*.wheels.example\"], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: NONE}}\n"
        )
    };
    for host in ["mill.example", "'*.wheels.example'", "stream/mill.example"] {
        for (exports, parts) in [("'.'", vec!["is not exported to home"]), ("home", vec![])] {
            let text = entry(exports) + &fence("home", "one", &format!(", host: {{{host}: {{}}}}"));
            let output = translated(&text, OFF).await;
            let told = accepted(&output, "home/one");
            for part in &parts {
                assert!(told.contains(part), "{host}: {told}");
            }
            assert_eq!(told.is_empty(), parts.is_empty(), "{host}: {told}");
            assert!(!told.contains("correct the name"), "{host}: {told}");
        }
    }
}

#[tokio::test]
async fn fault_s22_an_alias_has_a_key_of_its_own() {
    let text = service("hall", "lamp")
        + "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: far, namespace: away}\nspec: {hosts: [hall.lamp.far], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n"
        + &fence("home", "one", ", host: {lamp.hall.svc.cluster.local: {}}");
    let settings = "lazyload: {fallback: {enabled: false}, domain_aliases: [{pattern: '^([a-z]+)[.]([a-z]+)[.]svc[.]cluster[.]local$', templates: ['$2.$1.far']}]}";
    let output = translated(&text, settings).await;
    assert_eq!(
        entries(&output, "one"),
        ["away/hall.lamp.far", "hall/lamp.hall.svc.cluster.local"]
    );
    assert_eq!(accepted(&output, "home/one"), "");
}

#[tokio::test]
async fn fault_s20_selectors_of_slime_choose_namespaces() {
    let space = |name: &str, stage: &str| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{stage: {stage}}}}}\n"
        )
    };
    let text = space("hall", "canary")
        + &space("attic", "test")
        + &service("hall", "lamp")
        + &service("attic", "chest");
    let made = |output: &Output| -> BTreeSet<String> {
        let sidecars = output.objects.iter().filter(|o| o["kind"] == "Sidecar");
        let names = sidecars.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    for (selectors, expected) in [
        ("[{stage: canary}]", &["lamp"][..]),
        (
            "[{matchLabels: {stage: prod}}, {matchExpressions: [{key: stage, operator: In, values: [canary]}]}]",
            &["lamp"],
        ),
        (
            "[{matchExpressions: [{key: stage, operator: NotIn, values: [canary]}, {key: stage, operator: Exists}]}]",
            &["chest"],
        ),
        (
            "[{matchExpressions: [{key: stage, operator: DoesNotExist}]}]",
            &[],
        ),
        ("[{matchLabels: {stage: prod}}, {stage: test}]", &["chest"]),
    ] {
        let settings = format!(
            "lazyload: {{fallback: {{enabled: false}}, fences: {{auto_fence: true, default_fence: true, managementSelectors: {selectors}}}}}"
        );
        let output = translated(&text, &settings).await;
        let expected: BTreeSet<String> = expected.iter().map(|&s| s.to_owned()).collect();
        assert_eq!(made(&output), expected, "{selectors}");
    }
}

#[test]
fn fault_s20_an_operator_that_is_none_is_refused_with_key_and_line() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("s20-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("config.yaml");
    let text = "lazyload:\n  fences:\n    managementSelectors:\n    - matchExpressions:\n      - key: stage\n        operator: Within\n        values: [prod]\n";
    std::fs::write(&file, text).unwrap();
    let error = format!("{:#}", Config::load(&file).unwrap_err());
    for part in ["managementSelectors", "Within", "line 6"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn fault_s20_keys_of_slime_are_read_in_both_spellings() {
    let camel = "lazyload: {stableHost: [a.b], domainAliases: [{pattern: a, templates: [b]}], enableShortDomain: true, fences: {autoFence: true, defaultFence: true, blackNamespaceList: a, managementSelectors: [{a: b}], fenceLabelKeyAlias: 'a:b'}, fallback: {globalSidecarMode: cluster, clusterGsNamespace: a, wormholePort: ['80'], autoPort: false, cleanupWormholePort: true, supportH2: false, passthroughByDefault: true, addEnvHeaderViaLua: true, proxyVersion: a, dispatches: [{name: a, domainRegex: a, cluster: a}]}}";
    let snake = "lazyload: {stable_host: [a.b], domain_aliases: [{pattern: a, templates: [b]}], enable_short_domain: true, fences: {auto_fence: true, default_fence: true, black_namespace_list: a, management_selectors: [{match_labels: {a: b}}], fence_label_key_alias: 'a:b'}, fallback: {global_sidecar_mode: cluster, cluster_gs_namespace: a, wormhole_port: ['80'], auto_port: false, cleanup_wormhole_port: true, support_h2: false, passthrough_by_default: true, add_env_header_via_lua: true, proxy_version: a, dispatches: [{name: a, domain_regex: a, cluster: a}]}}";
    let read = |text: &str| {
        let section = config(text).modules["lazyload"].clone();
        serde_json::from_value::<trimtab_lazyload::config::LazyloadConfig>(section).unwrap()
    };
    assert_eq!(read(camel), read(snake));
}

#[tokio::test]
async fn fault_s22_hints_count_in_files() {
    let text = service("hall", "lamp")
        + &service("hall", "bell")
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: one-1, namespace: home, labels: {app: one}}\nspec:\n  containers:\n  - name: one\n    image: one\n    env:\n    - {name: LAMP, value: 'http://lamp.hall:80/on'}\n    - {name: ROOM, value: hall}\n    - {name: BELL, value: 'bell.$(ROOM):80'}\n    - {name: NOT, value: 'http://door.$$(ROOM):80'}\nstatus: {podIP: 10.1.0.5, phase: Running}\n"
        + &service("hall", "door")
        + &fence("home", "one", "");
    let output = translated(&text, OFF).await;
    assert_eq!(
        entries(&output, "one"),
        [
            "hall/bell.hall.svc.cluster.local",
            "hall/lamp.hall.svc.cluster.local"
        ]
    );
}

/// A pod, a ConfigMap, a Service and an EndpointSlice whose owners are not there, and a fence of the pod.
fn without_owners() -> String {
    let metadata = |name: &str, kind: &str, labels: &str| {
        format!(
            "metadata: {{name: {name}, namespace: home, labels: {{{labels}}}, ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: gone, uid: 0e0e0e0e-1111-2222-3333-444444444444, controller: true}}]}}"
        )
    };
    let pod = metadata("one-5d-x", "ReplicaSet", "app: one, pod-template-hash: 5d");
    let map = metadata("map", "Deployment", "");
    let owned = metadata("owned", "Deployment", "");
    let slice = metadata("slice", "Service", "");
    let all = [
        service("hall", "lamp"),
        format!(
            "---\napiVersion: v1\nkind: Pod\n{pod}\nspec: {{containers: [{{name: one, image: one, env: [{{name: LAMP, value: 'http://lamp.hall:80'}}]}}]}}\nstatus: {{podIP: 10.1.0.5, phase: Running}}\n"
        ),
        format!("---\napiVersion: v1\nkind: ConfigMap\n{map}\n"),
        format!(
            "---\napiVersion: v1\nkind: Service\n{owned}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
        ),
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{slice}\naddressType: IPv4\nendpoints: []\n"
        ),
        fence("home", "one", ""),
    ];
    all.concat()
}

#[tokio::test]
async fn fault_s21_objects_of_a_folder_stay_without_their_owners() {
    let text = without_owners();
    assert_eq!(
        entries(&translated(&text, OFF).await, "one"),
        ["hall/lamp.hall.svc.cluster.local"]
    );
    let embedded = standalone::embedded().unwrap();
    let documents = manifests::parse(Path::new("in.yaml"), &text).unwrap();
    // The second time as a file that was touched is.
    for document in documents.iter().chain(&documents) {
        standalone::load(&embedded, document).unwrap();
    }
    let client = embedded.client();
    let pods = Api::<Pod>::namespaced(client.clone(), "home");
    assert!(pods.get_opt("one-5d-x").await.unwrap().is_some());
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "home");
    assert!(maps.get_opt("map").await.unwrap().is_some());
    let services = Api::<Service>::namespaced(client.clone(), "home");
    assert!(services.get_opt("owned").await.unwrap().is_some());
    let slices = Api::<EndpointSlice>::namespaced(client, "home");
    assert!(slices.get_opt("slice").await.unwrap().is_some());
    // It goes like any other when the folder has it no more.
    slices.delete("slice", &<_>::default()).await.unwrap();
    assert!(slices.get_opt("slice").await.unwrap().is_none());
}

#[test]
fn fault_s22_templates_in_dispatches_are_refused() {
    for (dispatch, key) in [
        (
            "name: a, domains: [b], cluster: '{{ .Values.c }}'",
            "dispatches[0].cluster",
        ),
        (
            "name: a, domains: [b, '*.{{ .Values.c }}'], cluster: c",
            "dispatches[0].domains[1]",
        ),
        (
            "name: '{{ .a }}', domains: [b], cluster: c",
            "dispatches[0].name",
        ),
    ] {
        let text = format!("lazyload: {{fallback: {{dispatches: [{{{dispatch}}}]}}}}");
        let config: Config = serde_saphyr::from_str(&text).unwrap();
        let error = config.check().unwrap_err().to_string();
        let key = format!("lazyload.fallback.{key}");
        assert!(
            error.contains(&key) && error.contains("template"),
            "{error}"
        );
    }
}
