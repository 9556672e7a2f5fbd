//! `translate`, `describe`, `xds` and the standalone mode with layer-7 objects.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, folder, trimtab};

fn run(args: &[&str]) -> Output {
    Command::new(trimtab()).args(args).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn examples(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/metaprotocol")
        .join(name)
}

#[test]
fn examples_are_translated_and_mistakes_refused() {
    let config = folder("translate-config").join("config.yaml");
    let aeraki = "metaprotocol: {dataPlane: Aeraki, secretPath: '/secrets/{name}/{field}'}";
    std::fs::write(&config, aeraki).unwrap();
    // As Aeraki's proxies get them, too.
    for (name, more) in [
        ("thrift", None),
        ("dubbo", Some(["--config", config.to_str().unwrap()])),
        ("redis", Some(["--config", config.to_str().unwrap()])),
    ] {
        let dir = examples(name);
        let mut args = vec![
            "translate",
            "-o",
            "json",
            "--xds",
            "-f",
            dir.to_str().unwrap(),
        ];
        args.extend(more.into_iter().flatten());
        let output = run(&args);
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{name}: {stderr}");
        let json: Value = serde_json::from_str(&stdout).unwrap();
        let kinds = |kind: &str| {
            json["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|i| i["kind"] == kind)
                .count()
        };
        assert!(
            json["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|i| i["kind"].is_string()),
            "{stdout}"
        );
        assert!(kinds("EnvoyFilter") > 0, "{name}: {stdout}");
        // Redis has no routes to discover.
        assert_eq!(
            kinds("XdsResource") > 0,
            name != "redis",
            "{name}: {stdout}"
        );
    }
    let dir = folder("translate-layer7");
    std::fs::write(dir.join("s.yaml"), "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{name: tcp-metaprotocol-unknown, port: 80}]}}").unwrap();
    let output = run(&["translate", "-f", dir.to_str().unwrap()]);
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("Service default/a") && stderr.contains("ApplicationProtocol \"unknown\""),
        "{stderr}"
    );
    let _ = std::fs::remove_dir_all(dir);
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: orders}, spec: {selector: {app: orders}, ports: [{name: tcp-thrift, port: 9090}]}}";
const HOST: &str = "orders.default.svc.cluster.local";

fn router() -> String {
    format!(
        "{{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: MetaRouter, metadata: {{name: orders}}, spec: {{hosts: [{HOST}], routes: [\
         {{name: canary, match: {{attributes: {{method: {{exact: pay}}}}}}, route: [{{destination: {{host: {HOST}, subset: v2}}}}]}},\
         {{name: rest, route: [{{destination: {{host: {HOST}, subset: v1}}, weight: 90}}, {{destination: {{host: {HOST}, subset: v2}}, weight: 10}}]}}]}}}}"
    )
}

fn mesh(name: &str) -> PathBuf {
    let dir = folder(name);
    let rule = format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: orders}}, spec: {{host: {HOST}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}"
    );
    std::fs::write(dir.join("service.yaml"), SERVICE).unwrap();
    std::fs::write(dir.join("rule.yaml"), rule).unwrap();
    std::fs::write(dir.join("router.yaml"), router()).unwrap();
    dir
}

#[test]
fn the_way_of_a_call_is_told_from_files() {
    let dir = mesh("describe");
    let files = dir.to_str().unwrap();
    let output = run(&[
        "describe",
        "metarouter",
        "orders",
        "-f",
        files,
        "--attribute",
        "method=pay",
    ]);
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stderr}");
    for want in [
        HOST,
        "thrift_proxy by ECDS",
        "routes[0] \"canary\": takes it",
        "100% to outbound|9090|v2|",
        "Accepted True",
    ] {
        assert!(stdout.contains(want), "no {want} in\n{stdout}");
    }
    let output = run(&[
        "describe",
        "mr",
        "orders",
        "-f",
        files,
        "--attribute",
        "method=list",
    ]);
    let (stdout, _) = texts(&output);
    assert!(
        stdout.contains("routes[0] \"canary\": not: method is \"list\""),
        "{stdout}"
    );
    assert!(stdout.contains("90% to outbound|9090|v1|"), "{stdout}");
    let output = run(&["describe", "metarouter", "other", "-f", files]);
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("no MetaRouter default/other"));
    let nobody = run(&[
        "describe",
        "metarouter",
        "orders",
        "--server",
        "http://127.0.0.1:1",
    ]);
    assert!(
        texts(&nobody).1.contains("--server"),
        "{:?}",
        texts(&nobody)
    );
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn a_folder_is_served_and_the_running_operator_answers_the_commands() {
    crate::support::ring();
    let dir = mesh("layer7-standalone");
    let out = folder("layer7-out");
    let (http, xds) = (free_address().unwrap(), free_address().unwrap());
    let config = folder("layer7-config").join("config.yaml");
    std::fs::write(
        &config,
        format!("{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}}}"),
    )
    .unwrap();
    std::fs::write(dir.join("protocol.yaml"), "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: own}, spec: {protocol: own, codec: my.codec}}").unwrap();
    let args = [
        "run",
        "--config",
        config.to_str().unwrap(),
        "--standalone",
        dir.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let mut process = Process::start(Spec {
        name: "trimtab".to_owned(),
        program: trimtab(),
        args: args.iter().map(Into::into).collect(),
        log: out.join("log"),
    })
    .unwrap();
    let files = || {
        std::fs::read_dir(&out)
            .unwrap()
            .filter_map(Result::ok)
            .filter(|e| e.path().extension().is_some_and(|x| x == "yaml"))
            .count()
    };
    wait_until("two files", BOUND, || async {
        if files() == 2 {
            Ok(())
        } else {
            Err(format!("{}", files()))
        }
    })
    .await
    .unwrap();
    let server = format!("http://{http}");
    let output = run(&[
        "describe",
        "metarouter",
        "orders",
        "--server",
        &server,
        "--attribute",
        "method=pay",
    ]);
    let (stdout, stderr) = texts(&output);
    assert!(
        stdout.contains("100% to outbound|9090|v2|"),
        "{stdout}{stderr}"
    );
    let output = run(&["xds", "nodes", "--server", &server]);
    assert!(
        texts(&output).0.starts_with("HOLDS"),
        "{:?}",
        texts(&output)
    );
    let output = run(&["xds", "diff", "nobody", "--server", &server]);
    assert!(
        texts(&output)
            .1
            .contains("no proxy with the node id nobody"),
        "{:?}",
        texts(&output)
    );
    let text = trimtab_lab::http::get(http, "/api/v1/metaprotocol")
        .await
        .unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["items"][0]["host"], HOST);
    // Files that go take their objects with them, also those without a namespace.
    std::fs::remove_file(dir.join("protocol.yaml")).unwrap();
    std::fs::remove_file(dir.join("service.yaml")).unwrap();
    wait_until("no files", BOUND, || async {
        if files() == 0 {
            Ok(())
        } else {
            Err(format!("{}", files()))
        }
    })
    .await
    .unwrap();
    process.kill();
    let log = std::fs::read_to_string(out.join("log")).unwrap();
    assert!(
        log.contains("kind=ApplicationProtocol") && !log.contains("ERROR"),
        "{log}"
    );
    for dir in [dir, out] {
        let _ = std::fs::remove_dir_all(dir);
    }
}
