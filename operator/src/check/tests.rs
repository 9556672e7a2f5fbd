//! Planted faults, each found by one finding; and the page of codes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::facts::Facts;
use super::finding::{CODES, Report};
use super::judge::judge;
use super::print::text;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join(path)
}

fn read(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name], value);
        }
    }
}

fn healthy() -> Value {
    read(&repository("tests/golden/check/healthy.yaml"))
}

fn report(facts: Value) -> Report {
    let facts: Facts = serde_json::from_value(facts).unwrap();
    judge(&facts)
}

/// Folders with cases, by name.
fn cases() -> Vec<(String, PathBuf)> {
    let folders = std::fs::read_dir(repository("tests/golden/check")).unwrap();
    let folders = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    let mut out: Vec<_> = folders.map(named).collect();
    out.sort();
    out
}

#[test]
fn a_healthy_cluster_is_only_ok() {
    let report = report(healthy());
    assert_eq!(report.findings, []);
    let text = text(&report);
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
    let mut before = healthy();
    merge(
        &mut before,
        &serde_json::json!({"operator": null, "objects": {}}),
    );
    assert_eq!(self::report(before).findings, [], "before the installation");
}

#[test]
fn each_planted_fault_is_named_by_one_finding() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut planted = BTreeSet::new();
    for (name, folder) in cases() {
        let mut facts = healthy();
        merge(&mut facts, &read(&folder.join("in.yaml")));
        let report = report(facts);
        let code = name.split('-').next().unwrap().to_uppercase();
        let found: Vec<&str> = report.findings.iter().map(|f| f.code).collect();
        assert_eq!(found, [code.as_str()], "{name}: {:#?}", report.findings);
        planted.insert(code);
        let file = folder.join("out.txt");
        let shown = text(&report);
        let (_, shown) = shown.split_once("\n\n").unwrap();
        if update {
            std::fs::write(&file, shown).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), shown, "{name}");
    }
    let all: BTreeSet<String> = CODES.iter().map(|code| code.id.to_owned()).collect();
    assert_eq!(planted, all, "left: planted, right: codes");
}

#[test]
fn the_page_has_each_code() {
    let page = std::fs::read_to_string(repository("docs/check.md")).unwrap();
    let mut sections = page.split("\n### ");
    sections.next();
    let described: Vec<(&str, &str)> = sections
        .map(|section| {
            let mut lines = section.lines().filter(|line| !line.is_empty());
            (lines.next().unwrap(), lines.next().unwrap())
        })
        .collect();
    let known: Vec<(&str, String)> = CODES
        .iter()
        .map(|code| {
            (
                code.id,
                format!("**{}** ({}).", code.title, code.severity.as_str()),
            )
        })
        .collect();
    let (ids, known_ids): (Vec<_>, Vec<_>) = (
        described.iter().map(|d| d.0).collect(),
        known.iter().map(|k| k.0).collect(),
    );
    assert_eq!(ids, known_ids, "left: page, right: codes");
    for ((id, line), (_, begin)) in described.iter().zip(&known) {
        assert!(
            line.starts_with(begin.as_str()),
            "{id} begins with {begin}: {line}"
        );
    }
    for code in CODES {
        assert!(
            code.link()
                .ends_with(&format!("docs/check.md#{}", code.id.to_lowercase()))
        );
    }
}

#[test]
fn what_cannot_be_read_stops_nothing() {
    for field in [
        "istiods",
        "crds",
        "writtenKinds",
        "rights",
        "namespaces",
        "proxies",
        "leftovers",
    ] {
        let mut facts = healthy();
        facts[field] = serde_json::json!({"Err": "forbidden"});
        let report = report(facts);
        let found: Vec<&str> = report.findings.iter().map(|f| f.code).collect();
        assert_eq!(found, ["TC001"], "{field}");
        assert!(report.ok.len() > 5, "{field}");
    }
}
