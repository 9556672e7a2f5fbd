//! `trimtab describe` of Redis and Dubbo objects: `golden/describe-layer7` has the text of each object of the examples, and of
//! some that are not in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use trimtab::{manifests, translate};
use trimtab_kit::module::DescribeRequest;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text about an object of the files.
async fn described(kind: &str, name: &str, files: &[&str]) -> String {
    let examples = repository().join("examples/metaprotocol");
    let files: Vec<PathBuf> = files.iter().map(|file| examples.join(file)).collect();
    let documents = manifests::read(&files).unwrap().documents;
    let config = translate::configuration(None).unwrap();
    let pass = translate::pass(&documents, &BTreeMap::new(), &config).await;
    let (pass, _) = pass.unwrap();
    let mut all = pass.modules().iter().flat_map(|m| &m.describes);
    let found = all.find(|d| d.kind == kind || d.aliases.contains(&kind));
    let request = DescribeRequest {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        ..DescribeRequest::default()
    };
    found.expect("the kind").text(&request).unwrap()
}

#[tokio::test]
async fn redis_and_dubbo_objects_say_whether_they_are_in_force() {
    for (case, kind, name, files, begin) in [
        (
            "redisservice",
            "redisservice",
            "redis-cache",
            &["redis"][..],
            "IN FORCE: at redis-cache.default.svc.cluster.local:6379",
        ),
        (
            "redisdestination",
            "rd",
            "redis-sessions",
            &["redis"],
            "IN FORCE: at redis-",
        ),
        (
            "dubboauthorizationpolicy",
            "dap",
            "dubbo-demo",
            &["dubbo"],
            "IN FORCE: at ",
        ),
        (
            "redisservice-alone",
            "rsvc",
            "redis-cache",
            &["redis/redisservice.yaml"],
            "NOT IN FORCE: ",
        ),
        (
            "dubboauthorizationpolicy-alone",
            "dubboauthorizationpolicies",
            "dubbo-demo",
            &["dubbo/authorization.yaml"],
            "NOT IN FORCE: NoHost: ",
        ),
    ] {
        let text = described(kind, name, files).await;
        let first = text.lines().next().unwrap_or_default();
        let answer = first.split_once(&format!(" default/{name}: "));
        let answer = answer.expect("the answer").1;
        assert!(answer.starts_with(begin), "{case}: {text}");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/describe-layer7");
        expect_file![golden.join(format!("{case}.txt"))].assert_eq(&text);
    }
}
