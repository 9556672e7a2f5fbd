//! No input stops it: every part of the golden inputs is replaced by something else.

use std::path::Path;

use serde_json::{Value, json};
use trimtab::manifests;

use crate::cases::{input, run};

/// Pointers to all values in a value.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut inner = |key: &str, value: &Value| {
        let key = key.replace('~', "~0").replace('/', "~1");
        let at = format!("{at}/{key}");
        pointers(value, &at, out);
        out.push(at);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| inner(k, v)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, v)| inner(&i.to_string(), v)),
        _ => {}
    }
}

#[tokio::test]
async fn no_input_stops_it() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrate-total.json");
    let mut tried = 0;
    for name in [
        "ratelimit-descriptors",
        "ratelimit-gateway",
        "ratelimit-routes",
        "lazyxds",
        "ambient",
    ] {
        let (file, from) = input(name);
        let documents = manifests::read_file(&file).unwrap().complete().unwrap();
        for document in &documents {
            let mut all = Vec::new();
            pointers(&document.object, "", &mut all);
            // Without these nothing is an object.
            all.retain(|p| {
                !["/kind", "/apiVersion", "/metadata", "/metadata/name"].contains(&p.as_str())
            });
            for pointer in all {
                for other in [json!(null), json!([]), json!({}), json!("-"), json!(-1)] {
                    let mut object = document.object.clone();
                    *object.pointer_mut(&pointer).unwrap() = other;
                    std::fs::write(&path, object.to_string()).unwrap();
                    let done = run(&from, &path, &[]).await;
                    assert!(!done.text.is_empty());
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}
