//! Every case of `tests/golden/lazyload` gives its output: objects of a mesh in, Sidecars with their reasons out.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test must stop with its reason"
)]

mod mesh;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use mesh::Mesh;
use trimtab_lazyload::scope::Warning;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/lazyload")
}

fn cases() -> BTreeMap<String, Mesh> {
    let folders = std::fs::read_dir(root()).expect("the cases");
    folders
        .map(|folder| {
            let folder = folder.expect("a case");
            let text = std::fs::read_to_string(folder.path().join("in.yaml")).expect("in.yaml");
            let name = folder.file_name().to_string_lossy().into_owned();
            let mesh = Mesh::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, mesh)
        })
        .collect()
}

#[test]
fn every_case_gives_its_golden_output() {
    let cases = cases();
    assert!(cases.len() >= 30, "the cases are there: {}", cases.len());
    for (name, mesh) in cases {
        let out = root().join(&name).join("out.yaml");
        let rewriting = std::env::var_os("UPDATE_EXPECT").is_some();
        assert!(rewriting || out.exists(), "{name} has no out.yaml");
        expect_file![out].assert_eq(&mesh.render());
    }
}

#[test]
fn the_order_of_objects_makes_no_difference() {
    for (name, mut mesh) in cases() {
        let forward = mesh.render();
        mesh.objects.reverse();
        assert_eq!(mesh.render(), forward, "{name}");
    }
}

#[test]
fn a_relist_and_a_repeated_event_change_nothing() {
    for (name, mesh) in cases() {
        let index = mesh.index();
        let before = mesh.render_from(&index);
        index.drain_changes();
        for object in &mesh.objects {
            mesh::apply(&index, object);
        }
        let changes = index.drain_changes();
        assert!(changes.is_empty(), "{name}: {changes:?}");
        mesh::relist(&index, &mesh.objects);
        let changes = index.drain_changes();
        assert!(changes.is_empty(), "{name}: {changes:?}");
        assert_eq!(mesh.render_from(&index), before, "{name}");
    }
}

/// Whether a user wrote an entry as it is, or the namespace of it.
fn written(mesh: &Mesh, entry: &str) -> bool {
    let namespace = entry.strip_suffix("/*");
    let mut fences = mesh.objects.iter().filter(|o| o["kind"] == "ServiceFence");
    let in_spec = fences.any(|fence| {
        let spec = &fence["spec"];
        let selected = spec["namespaceSelector"].as_array().into_iter().flatten();
        let mut selected = selected.filter_map(|n| n.as_str());
        // What nothing names any more stays for the grace.
        let before = &fence["status"]["domains"][entry];
        let named = !spec["host"][entry].is_null() || !before.is_null();
        named || selected.any(|n| Some(n) == namespace)
    });
    in_spec
        || mesh
            .setup
            .config
            .stable_host
            .iter()
            .any(|text| text == entry)
}

/// Every entry is one namespace and one host, unless the user or the mesh itself has a wildcard there, or istiod would find one
/// of several services.
#[test]
fn entries_are_exact() {
    for (name, mesh) in cases() {
        let index = mesh.index();
        for (fence, part) in mesh.parts(&index) {
            for entry in part.scope.entries.keys() {
                let (namespace, host) = entry.split_once('/').expect("a namespace");
                let whole = entry == "~/*" || written(&mesh, entry);
                let several =
                    |w: &Warning| matches!(w, Warning::Wide { host: of, .. } if of == host);
                let wide = part.scope.warnings.iter().any(several);
                assert!(
                    whole || wide || namespace != "*",
                    "{name}: {fence}: {entry}"
                );
                assert!(whole || host != "*", "{name}: {fence}: {entry}");
            }
        }
    }
}
