//! The charts carry copies, since a chart is packed from its own folder. They must not be out of step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use serde_json::{Value, json};

use crate::helm::{chart, objects, render, repository};

/// Files of a folder with an ending, by name.
fn files(folder: &Path, ending: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("a text");
            (name.into_owned(), text)
        })
        .collect()
}

/// Folders of the charts with the folders that they are copies of, and the ending of the files.
fn pairs() -> [(PathBuf, PathBuf, &'static str); 3] {
    let (dashboards, files) = (
        repository().join("dashboards"),
        chart("trimtab").join("files"),
    );
    [
        (dashboards.clone(), files.join("dashboards"), "json"),
        (dashboards, files, "yaml"),
        (manifests(), chart("trimtab-crds").join("files"), "yaml"),
    ]
}

/// With UPDATE_EXPECT: makes the copies anew, once, and before anything is rendered from them.
pub(crate) fn refresh() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("UPDATE_EXPECT").is_none() {
            return;
        }
        crate::fallback::write();
        crate::aeraki::write();
        crate::documented::write();
        for (origin, copies, ending) in pairs() {
            for name in files(&copies, ending).keys() {
                std::fs::remove_file(copies.join(name)).expect("a stale copy goes");
            }
            for (name, text) in files(&origin, ending) {
                std::fs::write(copies.join(name), text).expect("a copy is written");
            }
        }
    });
}

#[test]
fn copies_are_not_out_of_step() {
    refresh();
    for (origin, copies, ending) in pairs() {
        hold(&origin, &copies, ending);
    }
}

/// Holds the files of `copies` against those of `origin`.
fn hold(origin: &Path, copies: &Path, ending: &str) {
    let wanted = files(origin, ending);
    assert!(!wanted.is_empty(), "{} is empty", origin.display());
    let have = files(copies, ending);
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    let stale: Vec<&String> = wanted
        .iter()
        .filter(|(name, text)| have.get(*name) != Some(text))
        .map(|(name, _)| name)
        .collect();
    assert!(
        stale.is_empty() && names(&have) == names(&wanted),
        "{} has {:?}, {} has {:?}, of which {stale:?} differ; to fix: UPDATE_EXPECT=1 cargo test -p trimtab-tests --test charts",
        copies.display(),
        names(&have),
        origin.display(),
        names(&wanted)
    );
}

fn manifests() -> PathBuf {
    repository().join("crds/manifests")
}

#[test]
fn dashboards_arrive_unchanged() {
    let origin = repository().join("dashboards");
    let text = render("trimtab", &[]).unwrap();
    let dashboards = objects(&text)
        .into_iter()
        .find(|o| o["metadata"]["name"] == "trimtab-dashboards")
        .expect("a ConfigMap with dashboards");
    for (name, file) in files(&origin, "json") {
        let carried = dashboards["data"][format!("trimtab-{name}")].as_str();
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(carried.map(parse), Some(parse(&file)), "{name}");
    }
}

/// A CRD as the chart should render it.
fn expected(file: &str, keep: bool, more: &Value) -> Value {
    let mut crd: Value = serde_saphyr::from_str(file).unwrap();
    let mut labels = json!({
        "app.kubernetes.io/name": "trimtab-crds", "app.kubernetes.io/instance": "trimtab",
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"), "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/part-of": "trimtab",
        "helm.sh/chart": format!("trimtab-crds-{}", env!("CARGO_PKG_VERSION")),
    });
    let mut annotations = json!({});
    if keep {
        annotations["helm.sh/resource-policy"] = "keep".into();
    }
    for (place, key) in [(&mut labels, "labels"), (&mut annotations, "annotations")] {
        if let Some(more) = more[key].as_object() {
            place.as_object_mut().unwrap().extend(more.clone());
        }
    }
    crd["metadata"]["labels"] = labels;
    if annotations != json!({}) {
        crd["metadata"]["annotations"] = annotations;
    }
    crd
}

#[test]
fn the_chart_of_crds_is_the_manifests_and_a_policy() {
    let more = json!({"labels": {"team": "mesh"}, "annotations": {"example.com/a": "b"}});
    let cases: [(&[&str], bool, Value); 4] = [
        (&[], true, Value::Null),
        (&["--set", "firstForm=true"], true, Value::Null),
        (&["--set", "keep=false"], false, Value::Null),
        (
            &[
                "--set-json",
                r#"labels={"team":"mesh"}"#,
                "--set-json",
                r#"annotations={"example.com/a":"b"}"#,
            ],
            true,
            more,
        ),
    ];
    for (arguments, keep, more) in cases {
        let first_form = arguments.contains(&"firstForm=true");
        let mut rendered = objects(&render("trimtab-crds", arguments).unwrap());
        let mut wanted: Vec<Value> = files(&manifests(), "yaml")
            .values()
            .map(|text| expected(text, keep, &more))
            .filter(|crd| first_form || crd["spec"]["group"] != "microservice.netease.com")
            .collect();
        let name = |o: &Value| {
            o["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        rendered.sort_by_key(name);
        wanted.sort_by_key(name);
        assert_eq!(rendered, wanted, "{arguments:?}");
    }
}

#[test]
fn the_charts_are_of_the_operators_version() {
    for name in ["trimtab", "trimtab-crds"] {
        let text = std::fs::read_to_string(chart(name).join("Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"), "{name}");
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"), "{name}");
    }
}

#[test]
fn prometheus_accepts_the_alerts() {
    let prometheus = trimtab_lab::prometheus::find().unwrap_or_else(|e| panic!("{e}"));
    let promtool = prometheus.with_file_name("promtool");
    let output = Command::new(&promtool)
        .args(["check", "rules"])
        .arg(repository().join("dashboards/alerts.yaml"))
        .output()
        .unwrap_or_else(|e| {
            panic!(
                "{}: {e}; Prometheus comes with it: run `make deps`",
                promtool.display()
            )
        });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn alerts_use_series_that_exist() {
    let documented = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let text = std::fs::read_to_string(repository().join("dashboards/alerts.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(!rules.is_empty());
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let series: Vec<&str> = expression
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("trimtab_"))
            .collect();
        assert!(!series.is_empty(), "{expression}");
        for name in series {
            assert!(
                documented.contains(&format!("| `{name}` |")),
                "{}: docs/metrics.md has no series {name}",
                rule["alert"]
            );
        }
    }
}
