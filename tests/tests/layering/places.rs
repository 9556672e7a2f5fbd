//! Each job has one place.

use std::collections::BTreeSet;

use super::scan::{files_that_mention, mentions};

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
fn each_write_is_admitted() {
    let words = ["PatchParams", "PostParams", "DeleteParams", "Recorder::new"];
    let mut writing = files_that_mention("modules/kit/src", &words);
    // A review of a token changes nothing, and the Lease is what admits.
    for file in ["identity/tokens.rs", "lease/elector.rs"] {
        assert!(writing.remove(&format!("modules/kit/src/{file}")), "{file}");
    }
    let admitted = files_that_mention("modules/kit/src", &["admission"]);
    let others: Vec<_> = writing.difference(&admitted).collect();
    assert!(
        others.is_empty(),
        "{others:?}: of several replicas only the leader writes, see modules/kit/src/lease/admission.rs"
    );
}

/// What a module would need to make a condition by itself; a module may well speak of a `RateLimitCondition`.
const OF_CONDITIONS: [&str; 6] = [
    " Condition {",
    "(Condition {",
    "[Condition {",
    ":Condition {",
    "last_transition_time",
    "lastTransitionTime",
];

#[test]
fn only_the_kit_makes_conditions() {
    for folder in MODULES {
        let found = files_that_mention(folder, &OF_CONDITIONS);
        assert!(
            found.is_empty(),
            "{found:?}: say what holds as a Draft, see modules/kit/src/condition.rs"
        );
    }
    let kit = files_that_mention("modules/kit/src", &OF_CONDITIONS);
    assert_eq!(kit, ["modules/kit/src/condition.rs".to_owned()].into());
    let made = "vec![Condition {\nSome(meta::v1::Condition {\n&[LimitCondition {\nc.last_transition_time = now;";
    assert_eq!(mentions(made, &OF_CONDITIONS).len(), 3);
}

#[test]
fn only_the_kit_labels_generated_objects() {
    let words = ["OwnerReference {", "MANAGED_BY_LABEL.to_owned()"];
    for folder in MODULES {
        let found = files_that_mention(folder, &words);
        assert!(
            found.is_empty(),
            "{found:?}: see modules/kit/src/generated.rs"
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
fn only_mesh_reads_objects_of_the_mesh() {
    let words = [
        "discovery::v1",
        "cluster_ip",
        "pod_ip",
        "external_name:",
        "[\"number\"]",
        "[\"host\"]",
    ];
    let found: BTreeSet<String> = MODULES
        .into_iter()
        .flat_map(|folder| files_that_mention(folder, &words))
        .collect();
    assert!(found.is_empty(), "{found:?}: see modules/mesh/src/model");
    assert!(!files_that_mention("modules/mesh/src", &words).is_empty());
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
