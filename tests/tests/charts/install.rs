//! What an installer meets: CRDs that are missing, an image that is nowhere, arguments and variables of their own.

use std::path::Path;

use serde_json::{Value, json};

use crate::helm::{chart, object, objects, render, run};

/// A cluster that was asked names kinds; without any `--api-versions` helm knows of no cluster.
const ASKED: [&str; 2] = ["--api-versions", "apps/v1/Deployment"];

const NEEDS: [(&str, &str, &str); 4] = [
    (
        "serviceMonitor.enabled",
        "monitoring.coreos.com/v1/ServiceMonitor",
        "install the CRDs of the Prometheus Operator first",
    ),
    (
        "prometheusRule.enabled",
        "monitoring.coreos.com/v1/PrometheusRule",
        "install the CRDs of the Prometheus Operator first",
    ),
    (
        "fallback.enabled",
        "networking.istio.io/v1/DestinationRule",
        "install Istio's CRDs first",
    ),
    (
        "apiPriority.enabled",
        "flowcontrol.apiserver.k8s.io/v1/FlowSchema",
        "Kubernetes has it from 1.29 on",
    ),
];

#[test]
fn fault_o37_a_missing_crd_is_named_with_the_value_that_needs_it() {
    for (value, kind, remedy) in NEEDS {
        let set = format!("{value}=true");
        let mut arguments = vec!["--set", &set];
        assert!(
            render("trimtab", &arguments).is_ok(),
            "{value}: no cluster was asked"
        );
        arguments.extend(ASKED);
        let error = render("trimtab", &arguments).unwrap_err();
        let wanted =
            format!("{value}: the cluster has no {kind}: {remedy}, or leave {value} false");
        assert!(error.contains(&wanted), "{error}");
        arguments.extend(["--api-versions", kind]);
        render("trimtab", &arguments).unwrap();
    }
    let all = render("trimtab", &ASKED).unwrap();
    assert!(!objects(&all).is_empty(), "the defaults need no CRD");
}

/// Every other kind that comes from a CRD is left out where the CRD is missing, or needs one of ours, which the notes name.
#[test]
fn nothing_else_needs_a_crd() {
    let values = chart("trimtab").join("../../tests/golden/charts/everything/values.yaml");
    let text = render("trimtab", &["--values", &values.to_string_lossy()]).unwrap();
    for object in objects(&text) {
        let version = object["apiVersion"].as_str().unwrap();
        let builtin =
            !version.split('/').next().unwrap().contains('.') || version.contains(".k8s.io/");
        let hook = object["metadata"]["annotations"]["helm.sh/hook"] == "test";
        let kind = format!("{version}/{}", object["kind"].as_str().unwrap());
        let named = NEEDS.iter().any(|(_, needs, _)| *needs == kind);
        assert!(builtin || hook || named, "{kind} is not checked");
    }
}

/// The notes of an installation.
fn notes(arguments: &[&str]) -> String {
    let folder = chart("trimtab");
    let mut all = vec!["install", "trimtab", folder.to_str().unwrap()];
    all.extend(["--namespace", "istio-system", "--dry-run=client"]);
    all.extend(arguments);
    let output = run(all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (_, notes) = text.split_once("NOTES:\n").expect("notes");
    notes.to_owned()
}

#[test]
fn fault_o17_the_notes_warn_of_an_image_that_no_registry_has() {
    let warning = format!(
        "WARNING: no registry has the image trimtab:{}",
        env!("CARGO_PKG_VERSION")
    );
    assert!(notes(&[]).contains(&warning), "{}", notes(&[]));
    for own in [
        "image.repository=registry.example.com/trimtab",
        "image.tag=mine",
    ] {
        let notes = notes(&["--set", own]);
        assert!(!notes.contains("WARNING"), "{own}: {notes}");
        assert!(
            notes.contains("helm test trimtab --namespace istio-system"),
            "{notes}"
        );
        assert!(
            notes.contains("kubectl get sml --all-namespaces"),
            "{notes}"
        );
    }
    let text = notes(&[]);
    assert!(text.contains("The CRDs are missing"), "{text}");
    assert!(text.contains("Istio's CRDs are missing"), "{text}");
}

#[test]
fn fault_o37_arguments_and_variables_of_ones_own_reach_the_operator() {
    let set = [
        "--set-json",
        r#"extraArgs=["--state","/tmp/x"]"#,
        "--set-json",
        r#"extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]"#,
    ];
    let text = render("trimtab", &set).unwrap();
    let deployment = object(&text, "Deployment", "trimtab");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["args"],
        json!([
            "run",
            "--config",
            "/etc/trimtab/config.yaml",
            "--state",
            "/tmp/x"
        ])
    );
    let env = container["env"].as_array().unwrap();
    let own = json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"});
    assert!(env.contains(&own), "{env:?}");
    assert!(env.iter().any(|e| e["name"] == "RUST_LOG"), "{env:?}");
    let wrong = render("trimtab", &["--set-json", r#"extraEnv=[{"value":"a"}]"#]).unwrap_err();
    assert!(wrong.contains("missing property 'name'"), "{wrong}");
}

/// The objects of `helm test`, by kind.
fn hooks(arguments: &[&str]) -> Vec<Value> {
    let text = render("trimtab", arguments).unwrap();
    let all = objects(&text).into_iter();
    all.filter(|o| o["metadata"]["annotations"]["helm.sh/hook"] == "test")
        .collect()
}

#[test]
fn fault_o37_the_test_touches_nothing_of_the_release_and_is_taken_away() {
    let text = render("trimtab", &[]).unwrap();
    let service = object(&text, "Service", "trimtab");
    let selector = service["spec"]["selector"].as_object().unwrap();
    let hooks = hooks(&["--api-versions", "security.istio.io/v1/PeerAuthentication"]);
    let mut kinds: Vec<&str> = hooks.iter().map(|o| o["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "ConfigMap",
            "Deployment",
            "PeerAuthentication",
            "Pod",
            "Service",
            "SmartLimiter"
        ]
    );
    for hook in &hooks {
        assert_eq!(hook["metadata"]["name"], "trimtab-test");
        let policy = &hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"];
        assert_eq!(policy, "before-hook-creation,hook-succeeded");
        let template = hook.pointer("/spec/template/metadata/labels");
        for labels in [Some(&hook["metadata"]["labels"]), template]
            .into_iter()
            .flatten()
        {
            let selected = selector.iter().all(|(key, value)| &labels[key] == value);
            assert!(!selected, "the operator's Services select {hook}");
        }
    }
}

/// Documents that show values.
#[test]
fn the_values_of_the_alerts_page_are_accepted() {
    let page = std::fs::read_to_string(chart("trimtab").join("../../docs/alerts.md")).unwrap();
    let block = page.split("```yaml\n").nth(1).expect("an example");
    let block = block.split("```").next().unwrap();
    let values = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts-example.yaml");
    std::fs::write(&values, block).unwrap();
    let text = render("trimtab", &["--values", &values.to_string_lossy()]).unwrap();
    let rules = object(&text, "PrometheusRule", "trimtab");
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(!rules.iter().any(|r| r["alert"] == "TrimtabCallsNotKept"));
    let changed = rules
        .iter()
        .find(|r| r["alert"] == "TrimtabNotReady")
        .unwrap();
    assert_eq!(
        (&changed["for"], &changed["labels"]["severity"]),
        (&json!("30m"), &json!("critical"))
    );
}
