//! The pages have the steps that the program prints.

use std::path::{Path, PathBuf};

use trimtab::migrate::{MigrateArgs, migrate};

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the repository").to_owned()
}

/// Lines without their indentation.
fn lines(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|l| l.trim().trim_end_matches('\\').trim_end());
    lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// The commands of the report on what the walk of the page installs first are on the page, in this order, and so are the ways back.
#[tokio::test]
async fn fault_o19_pages_and_reports_have_the_same_steps() {
    for product in ["slime", "aeraki", "lazyxds"] {
        let fixture = repository().join("tests/fixtures").join(product);
        let fixture = fixture.display().to_string();
        let args = MigrateArgs::of(&[product, "-f", &fixture, "-o", "json"]).unwrap();
        let report = migrate(&args).await.unwrap();
        let report: serde_json::Value = serde_json::from_str(&report.text).unwrap();
        let page = repository().join(format!("docs/migrate/{product}.md"));
        let page = lines(&std::fs::read_to_string(page).unwrap());
        let mut at = 0;
        let (mut count, mut ways) = (0, 0);
        for step in report["steps"].as_array().unwrap() {
            for command in step["commands"].as_array().unwrap() {
                for line in lines(command.as_str().unwrap()) {
                    let found = page[at..].iter().position(|l| l.contains(&line));
                    let found = found.unwrap_or_else(|| {
                        panic!("{product}: the page lacks, or has earlier: {line}")
                    });
                    at += found;
                    count += 1;
                }
            }
            for command in step["back"].as_array().unwrap() {
                let command = command.as_str().unwrap();
                let runs =
                    ["kubectl ", "helm ", "sed "].map(|program| command.starts_with(program));
                if !runs.contains(&true) {
                    continue;
                }
                assert!(
                    page[at..].iter().any(|line| line == command),
                    "{product}: the page has no such way back, or has it earlier: {command}"
                );
                ways += 1;
            }
        }
        assert!(count > 8 && ways > 2, "{product}: {count}, {ways}");
    }
}
