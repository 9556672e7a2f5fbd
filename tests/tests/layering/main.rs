//! Holds the dependency rules of ARCHITECTURE.md: which crate may use which, what pure rooms must not touch, and that
//! files import each other in one direction.

#[cfg(test)]
mod imports;
#[cfg(test)]
mod places;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod rules {
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::Command;

    use serde_json::Value;

    use super::scan::{mentions, repository, sources};

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
        for name in ["trimtab-crds", "trimtab-mesh"] {
            for feature in ["client", "runtime", "ws"] {
                assert!(
                    !crates[name]["kube"].contains(feature),
                    "{name} must not ask kube for {feature}"
                );
            }
            assert!(
                !crates[name].contains_key("tokio"),
                "{name} must not depend on tokio"
            );
        }
        for kubernetes in ["kube", "k8s-openapi", "kube-cel"] {
            assert!(
                !crates["trimtab-xds"].contains_key(kubernetes),
                "trimtab-xds must not depend on {kubernetes}"
            );
        }
    }

    /// Rooms without effects, by the folder of their crate.
    const PURE: [(&str, &[&str]); 8] = [
        (
            "modules/kit/src",
            &[
                "apply/objects.rs",
                "condition.rs",
                "envoy",
                "envoyfilter.rs",
                "budget.rs",
                "generated.rs",
                "problem.rs",
                "prometheus/access.rs",
                "prometheus/answer.rs",
                "rights.rs",
                "sources/prometheus/join.rs",
                "sources/prometheus/plan.rs",
                "sources/prometheus/series.rs",
            ],
        ),
        (
            "operator/src",
            &[
                "check/facts.rs",
                "check/finding.rs",
                "check/judge",
                "check/judge.rs",
                "check/print.rs",
            ],
        ),
        (
            "modules/limiter/src",
            &[
                "validate",
                "decide",
                "needs.rs",
                "translate",
                "status.rs",
                "input.rs",
                "owner.rs",
            ],
        ),
        (
            "metaprotocol/src",
            &[
                "config.rs",
                "explain.rs",
                "features",
                "input",
                "object.rs",
                "output.rs",
                "owner.rs",
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
                "snapshot.rs",
            ],
        ),
        (
            "modules/mesh/src",
            &[
                "host_map.rs",
                "model",
                "names.rs",
                "quantity.rs",
                "table.rs",
                "visibility.rs",
            ],
        ),
        (
            "operator/src",
            &[
                "migrate/aeraki",
                "migrate/aeraki.rs",
                "migrate/ambient.rs",
                "migrate/lazyxds.rs",
                "migrate/objects.rs",
                "migrate/ratelimit",
                "migrate/ratelimit.rs",
                "migrate/report.rs",
                "migrate/slime",
                "migrate/slime.rs",
                "migrate/values.rs",
            ],
        ),
        (
            "modules/lazyload/src",
            &[
                "auto",
                "config.rs",
                "edges",
                "exclude",
                "fallback",
                "hints",
                "learn/access_log.rs",
                "learn/hints.rs",
                "learn/host.rs",
                "learn/mod.rs",
                "learn/prometheus/counters.rs",
                "mesh",
                "object.rs",
                "predict",
                "scope",
                "status.rs",
                "tighten",
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
