//! Every key of Slime's that a page speaks of is known to the program.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use trimtab::config::Config;
use trimtab::modules;
use trimtab_kit::module::Became;

use crate::cases::run;

const PAGE: &str = include_str!("../../../docs/slime-compatibility.md");

/// Keys that the page speaks of in a section, up to the next heading.
fn keys(heading: &str) -> BTreeSet<String> {
    let section = PAGE
        .split(&format!("## {heading}\n"))
        .nth(1)
        .expect("the section");
    let rows = section.split("\n## ").next().unwrap_or_default().lines();
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    // `key: value` is the key with one of its values.
    words
        .map(|word| word.split(':').next().unwrap_or(word).to_owned())
        .collect()
}

/// The keys of a module that are known, by name.
fn known(module: &str) -> BTreeSet<String> {
    let all = modules::all();
    let factory = all.iter().find(|f| f.name == module).expect("the module");
    factory.legacy().iter().map(|l| l.key.to_owned()).collect()
}

#[test]
fn fault_o18_every_key_of_the_page_is_known() {
    let limiter = keys("Configuration");
    assert!(
        limiter.contains("backend") && limiter.len() > 5,
        "{limiter:?}"
    );
    let unknown: Vec<_> = limiter.difference(&known("limiter")).cloned().collect();
    assert_eq!(unknown, Vec::<String>::new());
    let lazyload = keys("Configuration of the lazyload module");
    assert!(
        lazyload.contains("wormholePort") && lazyload.len() > 15,
        "{lazyload:?}"
    );
    // Those of the framework are known to `migrate` only.
    let own = lazyload
        .iter()
        .filter(|k| !k.contains('.'))
        .cloned()
        .collect::<BTreeSet<_>>();
    let unknown: Vec<_> = own.difference(&known("lazyload")).cloned().collect();
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn fault_o18_keys_that_are_not_needed_are_taken_with_a_warning() {
    let config =
        Config::parse("limiter: {backend: 1, disableAdaptive: true, refresh: 7s}").unwrap();
    for factory in modules::all() {
        for legacy in factory.legacy() {
            for key in [legacy.key.to_owned(), snake(legacy.key)] {
                let section = json!({key.clone(): true});
                let warnings = factory.ignored(&section);
                let text = json!({factory.name: section}).to_string();
                let parsed = Config::parse(&text);
                match legacy.became {
                    Became::Nothing(_) => {
                        assert!(parsed.is_ok(), "{text}: {parsed:?}");
                        assert!(warnings[0].contains(&key), "{warnings:?}");
                    }
                    Became::Key(_) | Became::Other(_) => assert!(warnings.is_empty(), "{key}"),
                }
            }
        }
    }
    let limiter = modules::all()
        .into_iter()
        .find(|f| f.name == "limiter")
        .unwrap();
    assert_eq!(limiter.ignored(config.section(&limiter)).len(), 2);
    assert_eq!(limiter.effective(config.section(&limiter))["refresh"], "7s");
}

fn snake(key: &str) -> String {
    key.chars().fold(String::new(), |mut out, letter| {
        if letter.is_uppercase() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
        out
    })
}

#[test]
fn fault_o18_a_key_that_went_elsewhere_is_named_where_it_is() {
    for (text, words) in [
        ("lazyload: {wormholePort: ['80']}", "fallback.wormholePort"),
        ("lazyload: {auto_fence: true}", "fences.autoFence"),
        ("lazyload: {metricSourceType: accesslog}", "learn.accessLog"),
        ("limiter: {rlsConfigMap: {}}", "strategy global"),
    ] {
        let error = format!("{:#}", Config::parse(text).unwrap_err());
        assert!(error.contains(words), "{text}: {error}");
    }
    let error = Config::parse("limiter: {refesh: 5s}")
        .unwrap_err()
        .to_string();
    assert!(!error.contains("Slime"), "{error}");
}

#[test]
fn fault_o18_a_slime_boot_as_configuration_names_the_command() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/migrate/slime/in.yaml");
    let error = format!("{:#}", Config::load(&file).unwrap_err());
    assert!(error.contains("trimtab migrate slime -f"), "{error}");
    assert!(!error.contains("unknown"), "{error}");
}

/// Keys with values of no meaning.
fn all<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let keys = names.into_iter().map(|name| (name.to_owned(), json!("x")));
    Value::Object(keys.collect())
}

/// `global` of a module.
fn global() -> Value {
    let words = "service istioNamespace slimeNamespace multicluster istioRev strictRev selfResourceRev configRev deployRev \
                 istioConfigSource enableConvertSeToIstioRes masterUrl clientGoTokenBucket";
    let log = "logLevel klogLevel ilogLevel enableQuote logRotate logRotateConfig";
    let misc = "metrics-addr aux-addr logSourcePort enableLeaderElection seLabelSelectorKeys xdsSourceEnableIncPush \
                pathRedirect global_sidecar_mode";
    let mut global = all(words.split_whitespace());
    global["configSources"] = json!([{"address": "k8s://"}]);
    global["log"] = all(log.split_whitespace());
    global["misc"] = all(misc.split_whitespace());
    global
}

/// Each key that Slime's documents and code have, in one SlimeBoot.
fn everything() -> Value {
    let words = "namespace istioNamespace image replicaCount resources args volumes volumeMounts nodeSelector tolerations \
                 affinity imagePullSecrets podSecurityContext containerSecurityContext serviceAccount";
    let service = "type port auxiliaryPort logSourcePort mcpOverXdsPort";
    let sidecar =
        "enable port probePort replicas image resources legacyFilterName affinity tolerations";
    let mut spec = all(words.split_whitespace());
    spec["service"] = all(service.split_whitespace());
    spec["env"] = json!([{"name": "WATCH_NAMESPACE"}, {"name": "POD_NAME"}, {"name": "SLIME_PASS_LBL_REG"},
        {"name": "ENVOY_FILTER_NAME_LEGACY"}]);
    let mut sidecar = all(sidecar.split_whitespace());
    sidecar["sidecarInject"] = all(["enable", "mode", "labels", "annotations"]);
    spec["component"] = json!({"globalSidecar": sidecar});
    let module = |kind: &str| {
        let keys = known(kind);
        let general = all(keys.iter().map(String::as_str));
        json!({"name": kind, "kind": kind, "enable": true, "general": general, "global": global()})
    };
    spec["module"] = json!([module("limiter"), module("lazyload")]);
    json!({"apiVersion": "config.netease.com/v1alpha1", "kind": "SlimeBoot",
        "metadata": {"name": "all", "namespace": "mesh-operator"}, "spec": spec})
}

#[tokio::test]
async fn fault_o18_no_documented_key_is_unknown() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("all-keys.yaml");
    let boot = everything().to_string();
    std::fs::write(&file, &boot).unwrap();
    let done = run("slime", &file, &[]).await;
    assert!(!done.text.contains("no key of Slime"), "{}", done.text);
    std::fs::write(&file, boot.replace("\"refresh\"", "\"refesh\"")).unwrap();
    let done = run("slime", &file, &[]).await;
    assert!(done.text.contains("general.refesh"), "{}", done.text);
}
