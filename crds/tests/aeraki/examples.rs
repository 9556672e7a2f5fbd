//! The examples that users apply.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::api;

fn yaml_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    found.sort();
}

#[test]
fn every_example_applies_and_loses_nothing() {
    let mut files = Vec::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/metaprotocol");
    yaml_files(&dir, &mut files);
    let embedded = api();
    let mut kinds = std::collections::BTreeSet::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert!(!documents.is_empty(), "{}", file.display());
        for document in documents {
            let title = format!(
                "{}: {} {}",
                file.display(),
                document["kind"],
                document["metadata"]["name"]
            );
            let stored = embedded
                .load(document.clone())
                .unwrap_or_else(|e| panic!("{title}: {e}"));
            assert_eq!(
                contained(&document["spec"], &stored["spec"]),
                None,
                "{title}: a field is lost"
            );
            kinds.insert(document["kind"].as_str().unwrap().to_owned());
        }
    }
    for kind in [
        "Service",
        "DestinationRule",
        "MetaRouter",
        "RedisService",
        "RedisDestination",
        "DubboAuthorizationPolicy",
    ] {
        assert!(kinds.contains(kind), "no example of a {kind}");
    }
}

/// Path of the first part of `given` that is not in `stored`.
fn contained(given: &Value, stored: &Value) -> Option<String> {
    match (given, stored) {
        (Value::Object(given), Value::Object(stored)) => given.iter().find_map(|(key, value)| {
            let below = stored.get(key).unwrap_or(&Value::Null);
            contained(value, below).map(|path| format!("{key}.{path}"))
        }),
        (Value::Array(given), Value::Array(stored)) if given.len() == stored.len() => given
            .iter()
            .zip(stored)
            .find_map(|(given, stored)| contained(given, stored)),
        _ => (given != stored).then(|| given.to_string()),
    }
}
