//! The part of `docs/slime-compatibility.md` on SmartLimiter names only cases and tests that exist, and every defect.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::cases;
use crate::fixture::{base, limiter};

/// The part on SmartLimiter; the other one is held by the target `fences`.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/slime-compatibility.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let (_, rest) = text.split_once("\n# SmartLimiter\n").expect("its part");
    let (part, _) = rest.split_once("\n# ServiceFence\n").expect("its end");
    part.to_owned()
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Rows of tables, by cell. A bar with a backslash before it is text.
fn rows(page: &str) -> Vec<Vec<String>> {
    page.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| {
            let line = line.replace("\\|", "\u{1}");
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('\u{1}', "|"))
                .collect()
        })
        .collect()
}

#[test]
fn the_page_names_only_what_exists() {
    let names: BTreeSet<String> = cases::names().into_iter().collect();
    let page = page();
    let mut evidence_set = 0;
    for row in rows(&page) {
        assert_eq!(row.len(), 3, "{row:?}");
        for proof in quoted(&row[2]) {
            evidence_set += 1;
            match proof.split_once("::") {
                None => assert!(names.contains(proof), "no golden case {proof}"),
                Some((module, test)) => {
                    // `module::test` of this target, or `target/module::test`.
                    let file = if module.contains('/') {
                        format!("tests/{module}.rs")
                    } else {
                        format!("tests/limiter/{module}.rs")
                    };
                    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                    let source = std::fs::read_to_string(&file).unwrap_or_default();
                    assert!(source.contains(&format!("fn {test}()")), "no test {proof}");
                }
            }
        }
    }
    assert!(evidence_set > 100, "{evidence_set} proofs");
}

#[test]
fn every_golden_case_has_its_place_on_the_page() {
    let page = page();
    let named: BTreeSet<&str> = quoted(&page).collect();
    let missing: Vec<String> = cases::names()
        .into_iter()
        .filter(|name| !named.contains(name.as_str()))
        .collect();
    assert_eq!(
        missing,
        ["match-two-rules"],
        "cases that show no feature of their own"
    );
}

#[test]
fn fault_l19_a_set_has_512_descriptors() {
    let embedded = trimtab::standalone::embedded().expect("an API");
    let spec = |n| {
        let rule = |i: usize| {
            json!({"condition": "true", "match": [{"name": "k", "exact_match": i.to_string()}],
                "action": {"quota": "1", "fill_interval": {"seconds": 1}}})
        };
        base(&(0..n).map(rule).collect::<Vec<_>>())
    };
    embedded.load(limiter("many", 1, &spec(512))).expect("512");
    let error = embedded.load(limiter("more", 1, &spec(513))).unwrap_err();
    assert!(error.to_string().contains("512"), "{error}");
}

#[test]
fn every_defect_is_listed_with_its_test() {
    let page = page();
    for n in 1..=19 {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| L-{n} |")));
        let row = row.unwrap_or_else(|| panic!("L-{n} is not listed"));
        assert!(row.contains(&format!("`defects::l{n:02}_")), "{row}");
    }
}
