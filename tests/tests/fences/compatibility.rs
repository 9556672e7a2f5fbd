//! The part of `docs/slime-compatibility.md` on ServiceFence, and `docs/servicefence.md`: they name only cases and tests that
//! exist, every defect, and objects that the API server takes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trimtab::manifests;

use crate::fixture::Fixture;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn document(name: &str) -> String {
    let path = tests().join("../docs").join(name);
    std::fs::read_to_string(path).expect("the document")
}

/// The part on ServiceFence; the other one is held by the target `limiter`.
fn page() -> String {
    let text = document("slime-compatibility.md");
    let (_, part) = text.split_once("\n# ServiceFence\n").expect("its part");
    part.to_owned()
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The last cell of each row of a table. A bar with a backslash before it is text.
fn evidence_set(page: &str) -> Vec<String> {
    page.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| {
            let line = line.replace("\\|", "\u{1}");
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            assert_eq!(cells.len(), 3, "{line}");
            cells[2].to_owned()
        })
        .collect()
}

fn folders(name: &str) -> Vec<String> {
    let root = tests().join("golden").join(name);
    let entries = std::fs::read_dir(root).expect("golden cases");
    let names = entries.map(|e| {
        e.expect("a case")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.collect()
}

/// Golden cases as the page names them.
fn cases() -> BTreeSet<String> {
    let of_fallback = folders("lazyload-fallback");
    let of_fallback = of_fallback.iter().map(|name| format!("fallback/{name}"));
    folders("lazyload").into_iter().chain(of_fallback).collect()
}

/// `module::test` of this target, or `target/module::test`.
fn assert_test(proof: &str, module: &str, test: &str) {
    let file = if module.contains('/') {
        format!("tests/{module}.rs")
    } else {
        format!("tests/fences/{module}.rs")
    };
    let source = std::fs::read_to_string(tests().join(file)).unwrap_or_default();
    assert!(source.contains(&format!("fn {test}()")), "no test {proof}");
}

#[test]
fn the_page_names_only_what_exists() {
    let (page, cases) = (page(), cases());
    let mut count = 0;
    for cell in evidence_set(&page) {
        for proof in quoted(&cell) {
            count += 1;
            match proof.split_once("::") {
                None => assert!(cases.contains(proof), "no golden case {proof}"),
                Some((module, test)) => assert_test(proof, module, test),
            }
        }
    }
    assert!(count > 100, "{count} proofs");
}

#[test]
fn every_golden_case_has_its_place_on_the_page() {
    let page = page();
    let named: BTreeSet<String> = quoted(&page).map(str::to_owned).collect();
    let missing: Vec<String> = cases().difference(&named).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_defect_is_listed_with_its_test() {
    let page = page();
    for n in 1..=13 {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| Z-{n} |")));
        let row = row.unwrap_or_else(|| panic!("Z-{n} is not listed"));
        assert!(row.contains(&format!("::z{n:02}_")), "{row}");
    }
}

#[test]
fn the_guide_names_tests_that_exist() {
    let guide = document("servicefence.md");
    let mut count = 0;
    for proof in quoted(&guide) {
        if let Some((module, test)) = proof.split_once("::") {
            count += 1;
            assert_test(proof, module, test);
        }
    }
    assert!(count > 10, "{count} tests");
}

#[tokio::test]
async fn the_objects_of_the_guide_are_taken() {
    let guide = document("servicefence.md");
    let blocks: Vec<&str> = guide
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    let fixture = Fixture::new();
    for block in blocks {
        for read in manifests::parse(Path::new("docs/servicefence.md"), block).unwrap() {
            let remarks = trimtab::standalone::remarks(&read);
            assert_eq!(remarks, Vec::<String>::new());
            if read.object["kind"] != "AuthorizationPolicy" {
                assert_eq!(read.object["kind"], "ServiceFence");
                fixture.put(read.object);
            }
        }
    }
}
