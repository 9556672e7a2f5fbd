//! Golden cases: reading, translating, writing; and what holds for each of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde_json::{Value, json};
use trimtab_metaprotocol::input::ServicePortInput;
use trimtab_metaprotocol::output::Translation;
use trimtab_metaprotocol::translate::translate;

/// The folder of all cases.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/metaprotocol")
}

/// Names of all cases, sorted.
pub(crate) fn names() -> Vec<String> {
    let folder = std::fs::read_dir(root()).expect("the folder of golden cases");
    let mut names: Vec<String> = folder
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Reads a case's input.
pub(crate) fn input(name: &str) -> ServicePortInput {
    let path = root().join(name).join("in.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Translates a case.
pub(crate) fn load(name: &str) -> Translation {
    translate(&input(name))
}

/// The generated EnvoyFilters as JSON.
pub(crate) fn envoy_filters(out: &Translation) -> Vec<Value> {
    let json = |filter| serde_json::to_value(filter).expect("JSON");
    out.envoy_filters.iter().map(json).collect()
}

/// The content of a resource.
pub(crate) fn canonical(text: &str) -> Value {
    serde_json::from_str(text).expect("canonical JSON")
}

/// `out.yaml`.
fn render(out: &Translation) -> String {
    let resources: Vec<Value> = out
        .resources
        .iter()
        .map(|r| {
            json!({
                "type": r.type_url, "name": r.name, "origin": r.origin, "readers": r.readers,
                "content": canonical(&r.canonical),
            })
        })
        .collect();
    let refusals: Vec<String> = out
        .refusals
        .iter()
        .map(|r| {
            let effect = if r.blocks_routes {
                "blocks routes"
            } else {
                "the rest is applied"
            };
            format!("{} ({effect}): {}", r.problem.reason, r.problem)
        })
        .collect();
    let all = json!({
        "envoyFilters": envoy_filters(out),
        "virtualServices": out.virtual_services,
        "resources": resources,
        "programs": out.programs,
        "frozen": out.retained,
        "refusals": refusals,
    });
    serde_saphyr::to_string(&all).expect("YAML")
}

#[test]
fn every_case_gives_its_golden_output() {
    let names = names();
    assert!(names.len() >= 40, "the cases are there: {names:?}");
    for name in &names {
        let folder = root().join(name);
        let files: BTreeSet<String> = std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|f| {
                f.expect("a file")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let rewriting = std::env::var_os("UPDATE_EXPECT").is_some();
        let complete = BTreeSet::from(["in.yaml".to_owned(), "out.yaml".to_owned()]);
        assert!(
            rewriting || files == complete,
            "{}: has {files:?}, wanted are in.yaml and out.yaml",
            folder.display()
        );
        expect_file![folder.join("out.yaml")].assert_eq(&render(&load(name)));
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for name in names() {
        let (a, b) = (load(&name), load(&name));
        assert_eq!(render(&a), render(&b), "{name}");
        assert_eq!(a.resources, b.resources, "{name}");
    }
}

#[test]
fn an_input_that_is_dumped_and_read_again_is_the_same() {
    for name in names() {
        let input = input(&name);
        let text = serde_saphyr::to_string(&input).expect("YAML");
        let again: ServicePortInput = serde_saphyr::from_str(&text).expect("the dump is an input");
        // Credentials are never dumped; all else must be there.
        if !text.contains("kind: plain") && !text.contains("kind: secret") {
            assert_eq!(again, input, "{name}");
        }
    }
}

#[test]
fn objects_have_names_that_kubernetes_takes_and_labels_to_be_found_by() {
    for name in names() {
        let mut seen = BTreeSet::new();
        for filter in load(&name).envoy_filters {
            let meta = &filter.metadata;
            let object = meta.name.clone().expect("a name");
            let good = |part: &str| {
                let edge = |c: Option<char>| {
                    c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
                };
                edge(part.chars().next())
                    && edge(part.chars().last())
                    && part
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            };
            assert!(
                object.len() <= 253 && object.split('.').all(good),
                "{name}: {object}"
            );
            let key = (meta.namespace.clone().expect("a namespace"), object);
            assert!(seen.insert(key.clone()), "{name}: {key:?} twice");
            let labels = meta.labels.as_ref().expect("labels");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "trimtab", "{name}");
            assert_eq!(labels["trimtab.io/module"], "metaprotocol", "{name}");
            assert!(
                !labels.contains_key("manager"),
                "{name}: Aeraki would delete it"
            );
        }
    }
}

#[test]
fn every_refusal_names_object_field_and_fix() {
    for name in names() {
        for refusal in load(&name).refusals {
            let problem = &refusal.problem;
            assert!(problem.object.contains('/'), "{name}: {problem}");
            assert!(problem.field.starts_with("spec."), "{name}: {problem}");
            let pascal = problem.reason.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(
                pascal && problem.reason.chars().all(|c| c.is_ascii_alphanumeric()),
                "{name}: {problem}"
            );
        }
    }
}

fn sources(path: &Path, text: &mut String) {
    for entry in std::fs::read_dir(path).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn cases_and_tests_that_the_documentation_names_exist() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for folder in [
        "metaprotocol/src",
        "metaprotocol/tests",
        "tests/tests/metaprotocol",
    ] {
        sources(&repository.join(folder), &mut code);
    }
    let page =
        std::fs::read_to_string(repository.join("docs/aeraki-compatibility.md")).expect("the page");
    let mut named = BTreeSet::new();
    let rows = page.lines().filter(|l| l.starts_with("| "));
    for cell in rows.filter_map(|l| l.trim_end_matches(" |").rsplit(" | ").next()) {
        let words = cell.split('`').skip(1).step_by(2);
        named.extend(words.filter(|w| !w.contains([' ', '/'])).map(str::to_owned));
    }
    assert!(named.len() > 50, "{named:?}");
    let cases: BTreeSet<String> = names().into_iter().collect();
    for name in named {
        match name.rsplit_once("::") {
            Some((_, test)) => assert!(
                code.contains(&format!("fn {test}(")),
                "there is no test {name}"
            ),
            None => assert!(cases.contains(&name), "there is no case {name}"),
        }
    }
}
