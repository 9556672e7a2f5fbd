//! Every case says what it should, and Envoy accepts everything that the cases make.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde_json::{Value, json};
use trimtab_lab::envoy;
use trimtab_lab::ports::loopback;
use trimtab_lazyload::fallback::proxy::bootstrap;
use trimtab_lazyload::fallback::{FallbackInput, PROXY_METADATA, filters, manifests};
use trimtab_tests::mesh::cluster;

use crate::caller::{apply, base, clusters, without_discovery};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/lazyload-fallback")
}

fn cases() -> Vec<(String, FallbackInput)> {
    let mut cases: Vec<(String, FallbackInput)> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let path = root().join(&name).join("in.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            let input: FallbackInput =
                serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            input.check().unwrap();
            (name, input)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(cases.len() >= 9, "the cases are there");
    cases
}

fn render(input: &FallbackInput) -> String {
    let out = json!({
        "bootstrap": bootstrap(&input.proxy_options()),
        "envoyFilters": filters(input),
        "manifests": manifests(input),
    });
    serde_saphyr::to_string(&out).unwrap()
}

#[test]
fn every_case_gives_its_golden_output() {
    for (name, input) in cases() {
        assert_eq!(render(&input), render(&input.clone()), "{name}");
        expect_file![root().join(&name).join("out.yaml")].assert_eq(&render(&input));
    }
}

#[test]
fn envoy_accepts_every_bootstrap() {
    for (name, input) in cases() {
        if let Err(reason) = envoy::validate(&bootstrap(&input.proxy_options())) {
            panic!("{name}: Envoy refuses it: {reason}");
        }
    }
}

#[test]
fn envoy_accepts_every_envoy_filter_in_every_kind_of_proxy() {
    for (name, input) in cases() {
        let filters = serde_json::to_value(filters(&input)).unwrap();
        for vhost in ["allow_any", "block_all"] {
            for metadata in [None, Some(PROXY_METADATA)] {
                let at = loopback(1);
                let mut config = base(at, loopback(2), loopback(3), vhost);
                apply(&mut config, &filters, metadata);
                without_discovery(&mut config, &[at]);
                for name in clusters_of_routes(&filters) {
                    clusters(&mut config).push(cluster(&name, &[at], false));
                }
                if let Err(reason) = envoy::validate(&config) {
                    panic!("{name}, {vhost}, {metadata:?}: Envoy refuses it: {reason}");
                }
            }
        }
    }
}

/// Envoy checks that they exist when routes are in the bootstrap.
fn clusters_of_routes(filters: &Value) -> BTreeSet<String> {
    let patches = filters.as_array().unwrap().iter();
    patches
        .flat_map(|filter| filter["spec"]["configPatches"].as_array().unwrap())
        .filter_map(|patch| patch["patch"]["value"]["route"]["cluster"].as_str())
        .filter(|name| *name != "PassthroughCluster")
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_of_istio_is_removed() {
    for (name, input) in cases() {
        let filters: Vec<Value> = filters(&input)
            .iter()
            .map(|filter| serde_json::to_value(filter).unwrap())
            .collect();
        for patch in filters
            .iter()
            .flat_map(|f| f["spec"]["configPatches"].as_array().unwrap())
        {
            let operation = patch["patch"]["operation"].as_str().unwrap();
            assert!(
                !matches!(operation, "REMOVE" | "REPLACE"),
                "{name}: {patch}"
            );
        }
    }
}

#[test]
fn no_object_asks_for_more_than_it_needs() {
    for (name, input) in cases() {
        for object in manifests(&input) {
            let text = object.to_string();
            let kind = object["kind"].as_str().unwrap();
            assert!(
                object["metadata"]["namespace"].is_string(),
                "{name}: {kind}"
            );
            assert!(!kind.contains("Role"), "{name}: {kind}");
            assert!(!text.contains("privileged"), "{name}: {kind}");
        }
    }
}
