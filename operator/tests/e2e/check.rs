//! `check` and `version`: exit codes, forms, and what they ask.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Dial, folder, mesh, operator, trimtab};

/// With a kubeconfig, and nothing else that names a cluster.
fn run(kubeconfig: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(trimtab())
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", "/nonexistent")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn without_a_cluster_there_is_nothing_to_check() {
    let nowhere = Path::new("/nonexistent/kubeconfig");
    let (code, out, error) = run(nowhere, &["check"]);
    assert_eq!((code, out.as_str()), (2, ""), "{error}");
    assert!(error.contains("no cluster: set KUBECONFIG"), "{error}");
    let dir = folder("check-closed");
    let closed = kubeconfig(&dir, "http://127.0.0.1:9");
    let (code, _, error) = run(&closed, &["check"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("the API server cannot be asked"), "{error}");
    let (code, _, _) = run(nowhere, &["check", "--failure-threshold", "loud"]);
    assert_eq!(code, 2);
}

#[test]
fn fault_o21_the_version_is_told_without_anybody() {
    let nowhere = Path::new("/nonexistent/kubeconfig");
    let (code, out, _) = run(nowhere, &["version"]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("client  {version}")), "{out}");
    let (_, out, _) = run(nowhere, &["version", "-o", "json"]);
    let both: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(both["client"]["version"], version);
    assert!(both.get("server").is_none(), "{both}");
    let (code, out, _) = run(nowhere, &["version", "--server", "http://127.0.0.1:9"]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("server  unknown: no operator answers at http://127.0.0.1:9"),
        "{out}"
    );
}

fn kubeconfig(dir: &Path, server: &str) -> std::path::PathBuf {
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]});
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// No Istio runs beside the embedded API, which is all that is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn fault_o21_an_operator_and_its_objects_are_judged() {
    let embedded = mesh(true);
    let dial = Dial::default();
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (api, stopped) = (embedded.clone(), stop.clone());
    let serving = tokio::spawn(async move { api.serve(listener, stopped).await });
    let dir = folder("check");
    let cluster = kubeconfig(&dir, &format!("http://{address}"));
    let server = format!("http://{}", operator.http);
    let ask = async |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        all.extend(["--server".to_owned(), server.clone()]);
        let cluster = cluster.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run(&cluster, &all)
        });
        asked.await.unwrap()
    };
    let (code, out, error) = ask(&["check", "-o", "json"]).await;
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {error}"));
    assert_eq!(found["installed"], true, "{found}");
    let codes: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["code"].as_str())
        .collect();
    assert_eq!(codes, ["TC102"], "{out}");
    assert_eq!(code, 0, "a warning is no error");
    let (code, text, _) = ask(&["check", "--failure-threshold", "warning"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("see: https://trimtab.io/docs/check.md#tc102"),
        "{text}"
    );
    let (code, out, _) = ask(&["version"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(&format!("\nserver  {}", env!("CARGO_PKG_VERSION"))),
        "{out}"
    );
    operator.stop().await.unwrap();
    stop.cancel();
    let _ = serving.await;
}

/// Answers a query by the words in it, as Prometheus does.
async fn answer(query: String) -> (axum::http::StatusCode, axum::Json<Value>) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let series =
        |pod: &str| json!({"metric": {"namespace": "default", "pod": pod}, "value": [now, "1"]});
    let result =
        |all: Value| json!({"status": "success", "data": {"resultType": "vector", "result": all}});
    if query.contains("bad") {
        let refused = json!({"status": "error", "errorType": "bad_data", "error": "parse error"});
        return (axum::http::StatusCode::BAD_REQUEST, axum::Json(refused));
    }
    let answer = if query.contains("empty") {
        result(json!([]))
    } else {
        result(json!([series("a-0"), series("a-1")]))
    };
    (axum::http::StatusCode::OK, axum::Json(answer))
}

async fn prometheus() -> std::net::SocketAddr {
    let router = axum::Router::new().route("/api/v1/query", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn each_query_of_a_configuration_is_asked() {
    let embedded = mesh(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = tokio::spawn(async move { embedded.serve(listener, stopped).await });
    let dir = folder("check-queries");
    let cluster = kubeconfig(&dir, &format!("http://{address}"));
    let config = dir.join("config.yaml");
    let text = format!(
        "metrics: {{prometheus: {{address: 'http://{}', handlers: {{\
         good: {{query: good, type: PerPod}}, empty: {{query: empty}}, many: {{query: many}}, wrong: {{query: bad}}}}}}}}",
        prometheus().await
    );
    std::fs::write(&config, text).unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let file = config.to_str().unwrap();
        run(&cluster, &["check", "-o", "json", "--config", file])
    });
    let (_, out, error) = asked.await.unwrap();
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {error}"));
    let of = |f: &Value| {
        let text = |field: &str| f[field].as_str().unwrap().to_owned();
        (text("code"), text("field"))
    };
    let findings = found["findings"].as_array().unwrap();
    let named: Vec<(String, String)> = findings
        .iter()
        .map(of)
        .filter(|f| f.1.starts_with("handlers"))
        .collect();
    let wanted = [
        ("TC402", "handlers.wrong"),
        ("TC403", "handlers.empty"),
        ("TC404", "handlers.many"),
    ];
    let wanted = wanted.map(|(code, field)| (code.to_owned(), field.to_owned()));
    assert_eq!(named, wanted, "{out}");
    stop.cancel();
    let _ = serving.await;
}
