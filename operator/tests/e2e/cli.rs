//! `translate`, `crds`, `completions`: output, exit codes, messages.

use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use serde_json::Value;

use crate::support::{examples, folder, trimtab};

fn run(args: &[&str]) -> Output {
    Command::new(trimtab()).args(args).output().unwrap()
}

fn translate(dir: &Path, metrics: &[&str]) -> (i32, Value, String) {
    let mut args = vec!["translate", "-o", "json", "-f", dir.to_str().unwrap()];
    for metric in metrics {
        args.extend(["--metric", metric]);
    }
    let output = run(&args);
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (
        output.status.code().unwrap_or(-1),
        json,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

const BUCKET: &str = "/spec/configPatches/2/patch/value/typed_per_filter_config/envoy.filters.http.local_ratelimit/value/descriptors/0/tokenBucket/maxTokens";

#[test]
fn the_example_limits_by_its_metric() {
    let (code, json, notes) = translate(&examples(), &["cpu=0.85"]);
    assert_eq!(code, 0, "{notes}");
    assert_eq!(
        json["items"][0].pointer(BUCKET),
        Some(&Value::from(7)),
        "half a second of 15: {json}"
    );
    let (code, json, _) = translate(&examples(), &["cpu=0.5"]);
    assert_eq!((code, json["items"].as_array().map(Vec::len)), (0, Some(0)));
    // Three pods: the count of pods can be given like any metric.
    let (_, json, _) = translate(&examples(), &["cpu=0.85", "pod=3"]);
    assert_eq!(
        json["items"][0].pointer(BUCKET),
        Some(&Value::from(5)),
        "half a second of 10: {json}"
    );
}

fn refused(name: &str, files: &[(&str, &str)], wants: &[&str]) {
    let dir = folder(name);
    for (file, text) in files {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let (code, _, message) = translate(&dir, &[]);
    assert_eq!(code, 1, "{message}");
    for want in wants {
        assert!(
            message.contains(want),
            "{name}: no \"{want}\" in: {message}"
        );
    }
    let _ = std::fs::remove_dir_all(dir);
}

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}}}";

fn limiter(descriptor: &str) -> String {
    format!(
        "{{apiVersion: microservice.netease.com/v1alpha1, kind: SmartLimiter, metadata: {{name: a}}, spec: {{descriptors: [{descriptor}]}}}}"
    )
}

#[test]
fn bad_input_names_object_field_and_fix() {
    let unknown =
        limiter("{condition: '{cpuu}>1', action: {quota: '1', fill_interval: {seconds: 1}}}");
    refused(
        "unknown",
        &[("s.yaml", SERVICE), ("l.yaml", &unknown)],
        &[
            "SmartLimiter default/a",
            "descriptors[0].condition",
            "unknown metric \"cpuu\"",
            "known here are cpu, cpu.cores,",
        ],
    );
    let missing = limiter("{condition: 'true', action: {quota: '1'}}");
    refused(
        "interval",
        &[("s.yaml", SERVICE), ("l.yaml", &missing)],
        &[
            "SmartLimiter default/a",
            "spec.descriptors[0].action",
            "fill_interval is required",
            "fill_interval: {seconds: 1}",
        ],
    );
    let good = limiter("{condition: 'true', action: {quota: '1', fill_interval: {seconds: 1}}}");
    refused(
        "service",
        &[("l.yaml", &good)],
        &[
            "SmartLimiter default/a",
            "there is no Service default/a",
            "spec.workloadSelector",
        ],
    );
    let global = limiter(
        "{condition: 'true', action: {quota: '1', strategy: global, fill_interval: {seconds: 1}}}",
    );
    refused(
        "global",
        &[("s.yaml", SERVICE), ("l.yaml", &global)],
        &["action.strategy", "not available yet", "single"],
    );
    refused("yaml", &[("x.yaml", "a: [")], &["x.yaml", "not YAML"]);
    refused(
        "kind",
        &[("x.yaml", "{apiVersion: v1, metadata: {name: a}}")],
        &["x.yaml", "kind"],
    );
    refused("empty", &[("s.yaml", SERVICE)], &["no SmartLimiter"]);
}

/// kubectl takes `smartlimiters` for the first of two groups, so only whoever asks gets the other one.
#[test]
fn fault_o16_crds_prints_the_first_form_only_when_asked() {
    let print = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = "name: smartlimiters.microservice.netease.com";
    let present = "name: smartlimiters.microservice.slime.io";
    let text = print(&["crds"]);
    assert!(text.contains(present) && !text.contains("netease"));
    let both = print(&["crds", "--first-form"]);
    assert!(both.contains(present) && both.contains(first));
    let wrong = run(&["crds", "--first-form", "--check", "crds/manifests"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn crds_and_completions_print() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/manifests");
    let output = run(&["crds", "--check", manifests.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stale = folder("stale");
    assert_eq!(
        run(&["crds", "--check", stale.to_str().unwrap()])
            .status
            .code(),
        Some(1)
    );
    assert!(!run(&["completions", "bash"]).stdout.is_empty());
    assert_eq!(run(&["translate"]).status.code(), Some(2));
}

/// Values that a careless or hostile user may write in any field.
fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "{cpu}>0.8",
            "{{",
            "1/0",
            "outbound",
            "SourceIpMatch",
            "10.0.0.0/99",
            "(((",
            "((",
            "1e999",
            "-1"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys = prop::sample::select(vec![
            "condition",
            "action",
            "quota",
            "fill_interval",
            "seconds",
            "nanos",
            "strategy",
            "match",
            "name",
            "exact_match",
            "regex_match",
            "matchSource",
            "target",
            "direction",
            "route",
            "host",
            "port",
            "sets",
            "_base",
            "descriptor",
            "descriptors",
            "gateway",
            "workloadSelector",
            "metrics",
            "query",
            "holdFor",
            "fallback",
            "mode",
            "delivery",
            "rollout",
            "headers_to_add",
            "response",
            "status",
            "body",
            "present_match",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..6).prop_map(|m| Value::Object(
                m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_the_spec_there_is_no_panic(spec in junk(), first in any::<bool>()) {
        let version = if first { "microservice.netease.com/v1alpha1" } else { "microservice.slime.io/v1alpha2" };
        let object = serde_json::json!({"apiVersion": version, "kind": "SmartLimiter", "metadata": {"name": "a", "namespace": "default"}, "spec": spec});
        let service: Value = serde_saphyr::from_str(SERVICE).unwrap();
        let documents: Vec<trimtab::manifests::Document> = [service, object]
            .into_iter()
            .map(|object| trimtab::manifests::Document::new("x.yaml", object))
            .collect();
        crate::support::ring();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(trimtab::translate::pass(&documents, &std::collections::BTreeMap::new(), &trimtab::config::Config::default()));
    }

    #[test]
    fn whatever_the_text_there_is_no_panic(text in "\\PC{0,300}") {
        let _ = trimtab::manifests::parse(Path::new("x.yaml"), &text);
    }
}
