//! Holds the dependency rules of ARCHITECTURE.md: which crate may use which, what pure rooms must not touch, and that
//! files import each other in one direction.

#[cfg(test)]
mod imports;
#[cfg(test)]
mod rules {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use serde_json::Value;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap()
            .to_owned()
    }

    /// Rows of the table in a section of ARCHITECTURE.md, without its head.
    fn table(section: &str) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
        let heading = format!("\n## {section}\n");
        let part = text
            .split(&heading)
            .nth(1)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no section {section}"));
        let rows: Vec<Vec<String>> = part
            .split("\n## ")
            .next()
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("| `").map(|rest| format!("`{rest}")))
            .map(|line| {
                line.split(" |")
                    .map(|cell| cell.trim().to_owned())
                    .collect()
            })
            .collect();
        assert!(!rows.is_empty(), "the section {section} has no table");
        rows
    }

    /// The words in backticks.
    fn names(cell: &str) -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    fn metadata() -> Value {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--offline",
            ])
            .current_dir(repository())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Dependencies of what is shipped, by crate: name and features.
    fn shipped(metadata: &Value) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let mut out = BTreeMap::new();
        for package in metadata["packages"].as_array().unwrap() {
            let dependencies = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| d["kind"].is_null())
                .map(|d| {
                    (
                        text(&d["name"]),
                        d["features"].as_array().unwrap().iter().map(text).collect(),
                    )
                })
                .collect();
            out.insert(text(&package["name"]), dependencies);
        }
        out
    }

    #[test]
    fn crates_use_only_what_the_table_allows() {
        let crates = shipped(&metadata());
        let allowed: BTreeMap<String, BTreeSet<String>> = table("Crates")
            .iter()
            .map(|row| (row[0].trim_matches('`').to_owned(), names(&row[3])))
            .collect();
        let (listed, existing): (BTreeSet<_>, BTreeSet<_>) =
            (allowed.keys().collect(), crates.keys().collect());
        assert_eq!(
            listed, existing,
            "left: the table of ARCHITECTURE.md, right: the workspace"
        );
        for (name, allowed) in &allowed {
            let used: BTreeSet<String> = crates[name]
                .keys()
                .filter(|d| crates.contains_key(*d))
                .cloned()
                .collect();
            let extra: Vec<&String> = used.difference(allowed).collect();
            assert!(extra.is_empty(), "{name} must not depend on {extra:?}");
        }
        for name in [
            "trimtab-kit",
            "trimtab-lazyload",
            "trimtab-limiter",
            "trimtab-metaprotocol",
            "trimtab-dataplane",
        ] {
            let above = ["trimtab", "trimtab-embedded"].map(str::to_owned);
            assert!(
                above.iter().all(|a| !allowed[name].contains(a)),
                "{name} is below the operator: the table must not say otherwise"
            );
        }
    }

    #[test]
    fn api_types_come_without_a_client_and_the_xds_server_without_kubernetes() {
        let crates = shipped(&metadata());
        for feature in ["client", "runtime", "ws"] {
            assert!(
                !crates["trimtab-crds"]["kube"].contains(feature),
                "trimtab-crds must not ask kube for {feature}"
            );
        }
        assert!(
            !crates["trimtab-crds"].contains_key("tokio"),
            "trimtab-crds must not depend on tokio"
        );
        for kubernetes in ["kube", "k8s-openapi", "kube-cel"] {
            assert!(
                !crates["trimtab-xds"].contains_key(kubernetes),
                "trimtab-xds must not depend on {kubernetes}"
            );
        }
    }

    fn sources(path: &Path, out: &mut Vec<PathBuf>) {
        if path.is_dir() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect();
            entries.sort();
            for entry in entries {
                sources(&entry, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path.to_owned());
        }
    }

    /// Lines of `text` that are code and mention one of `words`; comments may speak of anything, and [`WAKES`] is no effect.
    fn mentions<'a>(text: &'a str, words: &[&str]) -> Vec<&'a str> {
        text.lines()
            .filter(|line| !line.trim_start().starts_with("//") && *line != WAKES)
            .filter(|line| words.iter().any(|w| line.contains(w)))
            .collect()
    }

    /// Rooms without effects, by the folder of their crate.
    const PURE: [(&str, &[&str]); 5] = [
        (
            "modules/kit/src",
            &[
                "apply/objects.rs",
                "envoyfilter.rs",
                "budget.rs",
                "prometheus/access.rs",
                "prometheus/answer.rs",
                "rights.rs",
                "sources/prometheus/join.rs",
                "sources/prometheus/plan.rs",
                "sources/prometheus/series.rs",
                "sources/quantity.rs",
            ],
        ),
        (
            "modules/limiter/src",
            &[
                "validate",
                "decide",
                "translate",
                "status.rs",
                "input.rs",
                "error.rs",
            ],
        ),
        (
            "metaprotocol/src",
            &[
                "config.rs",
                "error.rs",
                "explain.rs",
                "features",
                "input",
                "object.rs",
                "output.rs",
                "resolve",
                "status.rs",
                "translate",
                "validate",
                "vip.rs",
            ],
        ),
        (
            "dataplane/src",
            &[
                "bootstrap.rs",
                "clusters.rs",
                "discover.rs",
                "fallback.rs",
                "input.rs",
                "lib.rs",
                "limits.rs",
                "listeners.rs",
                "make.rs",
                "managed.rs",
                "ports.rs",
                "routes.rs",
                "served.rs",
                "sidecar.rs",
                "virtual_service.rs",
                "wire.rs",
                "world.rs",
            ],
        ),
        (
            "modules/lazyload/src",
            &[
                "auto",
                "config.rs",
                "edges",
                "fallback",
                "hints",
                "learn/access_log.rs",
                "learn/hints.rs",
                "learn/host.rs",
                "learn/mod.rs",
                "learn/prometheus/counters.rs",
                "mesh",
                "object.rs",
                "scope",
                "status.rs",
                "translate",
            ],
        ),
    ];

    #[test]
    fn pure_rooms_touch_no_client_runtime_or_clock() {
        for (folder, rooms) in PURE {
            pure(folder, rooms);
        }
        assert_eq!(
            mentions("// tokio\nuse tokio::time;", &IMPURE),
            ["use tokio::time;"],
            "the scan finds what it looks for"
        );
        assert_eq!(
            mentions("use tokio::sync::Notify;\nuse tokio::spawn;", &IMPURE),
            ["use tokio::spawn;"],
            "who keeps state may wake who waits for it"
        );
    }

    /// Wakes a task, and does nothing by itself: allowed where state is kept.
    const WAKES: &str = "use tokio::sync::Notify;";

    /// What a pure room must not mention.
    const IMPURE: [&str; 7] = [
        "kube::Client",
        "kube::Api",
        "tokio",
        "Clock",
        "Instant::now",
        "SystemTime",
        "Timestamp::now",
    ];

    fn pure(folder: &str, rooms: &[&str]) {
        let folder = repository().join(folder);
        let mut files = Vec::new();
        for name in rooms {
            let before = files.len();
            sources(&folder.join(name), &mut files);
            assert!(
                files.len() > before,
                "{name} has no sources: was it moved? Change ARCHITECTURE.md and this test"
            );
        }
        // Tests may wait and know the time.
        files.retain(|file| file.file_name().is_some_and(|name| name != "tests.rs"));
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let found = mentions(&text, &IMPURE);
            assert!(
                found.is_empty(),
                "{} must stay pure: {found:?}",
                file.display()
            );
        }
    }

    /// Files of a folder, without tests, that mention one of `words` in code.
    fn files_that_mention(folder: &str, words: &[&str]) -> BTreeSet<String> {
        let mut files = Vec::new();
        sources(&repository().join(folder), &mut files);
        let mut out = BTreeSet::new();
        files.retain(|file| file.file_name().is_some_and(|name| name != "tests.rs"));
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if !mentions(code, words).is_empty() {
                let name = file.strip_prefix(repository()).unwrap();
                out.insert(name.to_string_lossy().into_owned());
            }
        }
        out
    }

    const MODULES: [&str; 4] = [
        "modules/limiter/src",
        "modules/lazyload/src",
        "metaprotocol/src",
        "dataplane/src",
    ];

    #[test]
    fn only_the_kit_writes_to_the_api_server() {
        let words = ["patch_status", "PatchParams", "PostParams", "DeleteParams"];
        for folder in MODULES {
            let found = files_that_mention(folder, &words);
            assert!(
                found.is_empty(),
                "{found:?}: what must be written is an answer to the driver, see modules/kit/src/write.rs"
            );
        }
        assert!(!files_that_mention("modules/kit/src", &words).is_empty());
    }

    #[test]
    fn only_the_kit_watches_and_drives() {
        let words = [
            "kube::runtime",
            "watcher(",
            "tokio::spawn",
            "Backoff",
            "backoff(",
        ];
        for folder in MODULES {
            let mut found = files_that_mention(folder, &words);
            // Each stream of access logs has a task of the server.
            found.remove("modules/lazyload/src/learn/server.rs");
            assert!(found.is_empty(), "{found:?}: see modules/kit/src/driver.rs");
        }
    }

    #[test]
    fn only_mesh_makes_and_reads_host_names() {
        let words = [
            ".svc.{",
            "svc.cluster.local\"",
            "\"cluster.local\"",
            "\"grpc-web\"",
        ];
        let mut found = BTreeSet::new();
        for folder in MODULES
            .into_iter()
            .chain(["operator/src", "modules/kit/src"])
        {
            found.extend(files_that_mention(folder, &words));
        }
        // Names that do not depend on the cluster's domain, and examples in messages.
        for allowed in [
            "dataplane/src/discover.rs",
            "metaprotocol/src/validate/limits.rs",
            "metaprotocol/src/validate/routes.rs",
            "modules/lazyload/src/learn/testing.rs",
            "modules/lazyload/src/scope/mod.rs",
            "operator/src/fallback.rs",
        ] {
            found.remove(allowed);
        }
        assert!(found.is_empty(), "{found:?}: see modules/mesh/src");
    }

    #[test]
    fn the_operator_names_modules_in_one_place() {
        let words = [
            "trimtab_limiter::",
            "trimtab_lazyload::",
            "trimtab_metaprotocol::",
        ];
        let found = files_that_mention("operator/src", &words);
        let allowed = [
            // A command of its own: it prints manifests and needs no engine.
            "operator/src/fallback.rs",
            "operator/src/modules.rs",
        ];
        assert_eq!(found, allowed.map(str::to_owned).into());
    }

    #[test]
    fn every_direct_dependency_has_a_reason() {
        let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        let section = manifest
            .split("[workspace.dependencies]")
            .nth(1)
            .unwrap()
            .split("\n[")
            .next()
            .unwrap();
        let direct: BTreeSet<String> = section
            .lines()
            .filter_map(|line| {
                line.split_once(" = ")
                    .map(|(name, _)| name.trim().to_owned())
            })
            .filter(|name| !name.starts_with("trimtab"))
            .collect();
        let reasoned: BTreeSet<String> = table("Libraries")
            .iter()
            .flat_map(|row| names(&row[0]))
            .collect();
        assert_eq!(
            direct, reasoned,
            "left: Cargo.toml, right: the table \"Libraries\" of ARCHITECTURE.md"
        );
    }
}
