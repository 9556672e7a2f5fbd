//! Reports, and that what they print can be used.

use std::collections::BTreeMap;

use expect_test::expect_file;
use trimtab::translate;

use crate::cases::{input, names, report, root, run};

#[tokio::test]
async fn every_case_gives_its_golden_output() {
    for name in names() {
        let (file, from) = input(&name);
        let done = run(&from, &file, &[]).await;
        expect_file![root().join(&name).join("out.txt")].assert_eq(&done.text);
        let again = run(&from, &file, &[]).await;
        assert_eq!(again.text, done.text, "{name}");
    }
}

/// `translate` takes the SmartLimiters and fences that are printed, and refuses nothing of them.
#[tokio::test]
async fn fault_o18_printed_objects_are_accepted_by_the_operator() {
    let mut tried = 0;
    for name in names() {
        let (file, from) = input(&name);
        let printed = report(&name).await;
        let Some(objects) = printed["objects"].as_array() else {
            continue;
        };
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("migrate-{name}"));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("objects.yaml");
        if from == "istio-ratelimit" {
            // As it stands on standard output, comments and all.
            std::fs::write(&path, run(&from, &file, &[]).await.text).unwrap();
        } else {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
            std::fs::write(&path, list.to_string()).unwrap();
        }
        let config = translate::configuration(None).unwrap();
        let files = [path, file];
        let files = if from == "istio-ratelimit" {
            &files[..1]
        } else {
            &files[..]
        };
        let output = translate::run(files, "default", &BTreeMap::new(), &config).await;
        let output = output.unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(output.refused, Vec::<String>::new(), "{name}");
        if from == "istio-ratelimit" {
            assert!(
                output.objects.len() >= objects.len(),
                "{name}: an EnvoyFilter each"
            );
        }
        tried += 1;
    }
    assert!(tried >= 4, "{tried}");
}

/// What cannot be expressed is named with its reason, and the exit code says so.
#[tokio::test]
async fn what_a_smart_limiter_cannot_say_is_listed() {
    let (file, from) = input("ratelimit-refused");
    let done = run(&from, &file, &[]).await;
    assert!(!done.complete);
    let printed = report("ratelimit-refused").await;
    assert!(printed["objects"].is_null(), "{printed}");
    let count = std::fs::read_to_string(file)
        .unwrap()
        .matches("\"EnvoyFilter\"")
        .count();
    let decisions = printed["decisions"].as_array().unwrap();
    let stays: usize = printed["stays"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["what"].as_array().unwrap().len())
        .sum();
    assert_eq!(decisions.len() + stays, count, "each once");
    assert_eq!(stays, 2, "{printed}");
}
