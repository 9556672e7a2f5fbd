//! Aeraki's kinds: each rule with an accepted and a refused object, defaults, nulls, round trips, and the examples.

// Helpers outside of #[test] functions fail the test by panicking too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod dubbo;
mod examples;
mod istio;
mod metarouter;
mod redis;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use trimtab_embedded::Embedded;

/// An embedded API with every kind of this project.
fn api() -> Embedded {
    let embedded = Embedded::new();
    let ours = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .map(|(_, crd)| crd);
    for crd in ours.chain(trimtab_crds::manifests::istio_crds()) {
        embedded.install_crd(&crd).unwrap();
    }
    embedded
}

/// The stored `spec`, or why the object is refused. Every object has a name of its own, so tests share one API.
fn apply(api_version: &str, kind: &str, spec: &Value) -> Result<Value, String> {
    static API: OnceLock<Embedded> = OnceLock::new();
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let name = format!("o{}", NAMES.fetch_add(1, Ordering::Relaxed));
    API.get_or_init(api)
        .load(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}))
        .map(|mut stored| stored["spec"].take())
        .map_err(|e| e.to_string())
}

fn assert_accepted(outcome: Result<Value, String>, given: &Value) -> Value {
    match outcome {
        Ok(stored) => stored,
        Err(error) => panic!("{given}: {error}"),
    }
}

fn assert_refused(outcome: Result<Value, String>, given: &Value, want: &str) {
    let Err(error) = outcome else {
        panic!("{given} is accepted; want {want:?}");
    };
    assert!(error.contains(want), "{given}: {error}; want {want:?}");
}

/// `base` with the JSON merge patch `change`.
fn with(base: &Value, change: &Value) -> Value {
    let mut out = base.clone();
    merge(&mut out, change);
    out
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                if value == "DELETE" {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Printer columns by name.
fn columns(file: &str) -> Vec<String> {
    let (_, crd) = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .find(|(name, _)| *name == file)
        .unwrap();
    let version = &crd.spec.versions[0];
    assert!(
        version.subresources.as_ref().unwrap().status.is_some(),
        "{file} has no status subresource"
    );
    version
        .additional_printer_columns
        .as_ref()
        .unwrap()
        .iter()
        .map(|c| c.name.clone())
        .collect()
}
