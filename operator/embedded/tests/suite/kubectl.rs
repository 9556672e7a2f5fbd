//! The real kubectl against the served API. It is looked up in the variable `KUBECTL`, then in `PATH`.

use std::path::PathBuf;
use std::process::Stdio;

use crate::conformance;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_embedded::Embedded;

struct Cluster {
    embedded: Embedded,
    url: String,
    home: PathBuf,
    _stop: DropGuard,
}

impl Cluster {
    async fn start(name: &str) -> Self {
        let embedded = Embedded::new();
        embedded.install_crd(&conformance::widget_crd()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn({
            let (embedded, stop) = (embedded.clone(), stop.clone());
            async move { embedded.serve(listener, stop).await }
        });
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("kubectl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        Self {
            embedded,
            url,
            home,
            _stop: stop.drop_guard(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .arg("--server")
            .arg(&self.url)
            .arg("--cache-dir")
            .arg(self.home.join("cache"))
            .args(args)
            .env("HOME", &self.home)
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl with `input`; returns whether it succeeded, its output and its errors.
    async fn try_run(&self, args: &[&str], input: &str) -> (bool, String, String) {
        let mut child = self.command(args).spawn().unwrap_or_else(|error| {
            panic!("kubectl cannot be started ({error}); install kubectl 1.30 or later, or set KUBECTL to its path")
        });
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(conformance::LIMIT, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("kubectl {args:?} does not end"))
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    async fn run(&self, args: &[&str], input: &str) -> String {
        let (ok, out, err) = self.try_run(args, input).await;
        assert!(ok, "kubectl {args:?} failed:\n{out}{err}");
        assert_eq!(err, "", "kubectl {args:?} warned");
        out
    }

    async fn get(&self, what: &str, name: &str) -> Value {
        serde_json::from_str(&self.run(&["get", what, name, "-o", "json"], "").await).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn manifest(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "conformance.example/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
    .to_string()
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80}
  - {name: extra, port: 81}
";

#[tokio::test]
async fn apply_get_describe_delete() {
    let cluster = Cluster::start("apply").await;
    let apply = ["apply", "-f", "-"];
    let out = cluster
        .run(&apply, &manifest("w", &json!({"size": 2, "color": "red"})))
        .await;
    assert_eq!(out, "widget.conformance.example/w created\n");
    let out = cluster
        .run(&apply, &manifest("w", &json!({"size": 2, "color": "red"})))
        .await;
    assert_eq!(out, "widget.conformance.example/w unchanged\n");
    let out = cluster
        .run(&apply, &manifest("w", &json!({"size": 3})))
        .await;
    assert_eq!(out, "widget.conformance.example/w configured\n");
    let spec = &cluster.get("widget", "w").await["spec"];
    assert_eq!(*spec, json!({"size": 3}));

    let (ok, _, err) = cluster
        .try_run(&apply, &manifest("w", &json!({"size": 3, "sizes": 1})))
        .await;
    assert!(!ok && err.contains("unknown field \"spec.sizes\""), "{err}");
    let (ok, _, err) = cluster
        .try_run(&apply, &manifest("w", &json!({"size": 300})))
        .await;
    assert!(!ok && err.contains("spec.size"), "{err}");

    let table = cluster.run(&["get", "wd"], "").await;
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "SIZE", "READY", "AGE"]);
    assert!(
        table.lines().nth(1).unwrap().starts_with("w      3"),
        "{table}"
    );
    let described = cluster.run(&["describe", "widget", "w"], "").await;
    assert!(described.contains("Size:  3"), "{described}");
    let crds = cluster.run(&["get", "crd", "-o", "name"], "").await;
    assert_eq!(
        crds,
        "customresourcedefinition.apiextensions.k8s.io/widgets.conformance.example\n"
    );
    let out = cluster.run(&["delete", "widget", "w"], "").await;
    assert!(
        out.starts_with("widget.conformance.example \"w\" deleted"),
        "{out}"
    );
    let (ok, _, err) = cluster.try_run(&["get", "widget", "w"], "").await;
    assert!(!ok && err.contains("NotFound"), "{err}");
}

#[tokio::test]
async fn built_in_kinds() {
    let cluster = Cluster::start("builtin").await;
    let apply = ["apply", "-f", "-"];
    assert_eq!(cluster.run(&apply, SERVICE).await, "service/web created\n");
    assert_eq!(
        cluster.run(&apply, SERVICE).await,
        "service/web unchanged\n"
    );
    let less = SERVICE.replace("  - {name: extra, port: 81}\n", "");
    assert_eq!(cluster.run(&apply, &less).await, "service/web configured\n");
    assert_eq!(
        cluster.get("service", "web").await["spec"]["ports"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let table = cluster.run(&["get", "services", "-A"], "").await;
    assert!(
        table.contains("NAMESPACE") && table.contains("ClusterIP"),
        "{table}"
    );
    let described = cluster.run(&["describe", "service", "web"], "").await;
    assert!(
        described.contains("Selector:") && described.contains("app=web"),
        "{described}"
    );
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
    cluster
        .run(&["create", "-f", "-"], &settings.to_string())
        .await;
    cluster
        .run(&["label", "configmap", "settings", "x=y"], "")
        .await;
    cluster
        .run(&["annotate", "configmap", "settings", "n=m"], "")
        .await;
    let settings = cluster.get("configmap", "settings").await;
    assert_eq!(settings["metadata"]["labels"]["x"], "y");
    cluster.embedded.ensure_namespace("other").unwrap();
    cluster.run(&["delete", "namespace", "other"], "").await;
    let version = cluster.run(&["version"], "").await;
    assert!(version.contains("Server Version: v1.33.0"), "{version}");
    let resources = cluster.run(&["api-resources", "--no-headers"], "").await;
    assert!(resources.contains("widgets"), "{resources}");
}

#[tokio::test]
async fn server_side_apply_reports_conflicts() {
    let cluster = Cluster::start("ssa").await;
    let args = ["apply", "--server-side", "-f", "-"];
    let out = cluster
        .run(&args, &manifest("w", &json!({"size": 2})))
        .await;
    assert_eq!(out, "widget.conformance.example/w serverside-applied\n");
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let (ok, _, err) = cluster
        .try_run(&other, &manifest("w", &json!({"size": 4})))
        .await;
    assert!(
        !ok && err.contains("conflict with \"kubectl\": .spec.size"),
        "{err}"
    );
    let forced = [
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
    ];
    cluster
        .run(&forced, &manifest("w", &json!({"size": 4})))
        .await;
    assert_eq!(cluster.get("widget", "w").await["spec"]["size"], 4);
}

#[tokio::test]
async fn edit_changes_an_object() {
    let cluster = Cluster::start("edit").await;
    cluster
        .run(&["apply", "-f", "-"], &manifest("w", &json!({"size": 2})))
        .await;
    let mut command = cluster.command(&["edit", "widget", "w"]);
    let output = command
        .env("KUBE_EDITOR", "sed -i s/size:.2/size:\\ 7/")
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(cluster.get("widget", "w").await["spec"]["size"], 7);
}

#[tokio::test]
async fn watch_follows_changes() {
    let cluster = Cluster::start("watch").await;
    cluster
        .run(&["apply", "-f", "-"], &manifest("w", &json!({"size": 2})))
        .await;
    let mut child = cluster.command(&["get", "widgets", "-w"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(conformance::LIMIT, lines.next_line()).await;
        let line = line
            .expect("kubectl prints a line in time")
            .unwrap()
            .expect("the watch goes on");
        line.split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["NAME", "SIZE"]);
    assert_eq!(next().await, ["w", "2"]);
    cluster
        .run(&["apply", "-f", "-"], &manifest("w", &json!({"size": 5})))
        .await;
    assert_eq!(next().await, ["w", "5"]);
    cluster
        .run(&["apply", "-f", "-"], &manifest("v", &json!({"size": 6})))
        .await;
    assert_eq!(next().await, ["v", "6"]);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn fault_o38_what_people_type_first_works() {
    let cluster = Cluster::start("o38").await;
    cluster.run(&["create", "ns", "shop"], "").await;
    assert_eq!(cluster.get("ns", "shop").await["status"]["phase"], "Active");
    let literal = ["create", "configmap", "c", "--from-literal=a=b"];
    cluster.run(&literal, "").await;
    assert_eq!(cluster.get("configmap", "c").await["data"]["a"], "b");
    let secret = ["create", "secret", "generic", "s", "--from-literal=a=b"];
    cluster.run(&secret, "").await;
    assert_eq!(cluster.get("secret", "s").await["data"]["a"], "Yg==");
    cluster.run(&["create", "serviceaccount", "x"], "").await;
    cluster.run(&["apply", "-f", "-"], SERVICE).await;
    let all = cluster.run(&["get", "all"], "").await;
    assert!(all.contains("service/web"), "{all}");
    let crds = cluster.run(&["get", "crds"], "").await;
    assert!(crds.contains("widgets.conformance.example"), "{crds}");
    for args in [
        &["auth", "can-i", "create", "widgets"][..],
        &["auth", "can-i", "--list"],
        &["auth", "whoami"],
    ] {
        let answer = cluster.run(args, "").await;
        assert!(
            ["yes", "*.*", "anybody"].iter().any(|w| answer.contains(w)),
            "{answer}"
        );
    }
    // What is not read is answered with a sentence.
    let (ok, _, err) = cluster
        .try_run(&["create", "deployment", "d", "--image=i"], "")
        .await;
    assert!(
        !ok && err.contains("with kubectl use `apply -f` or `create -f`"),
        "{err}"
    );
}

#[tokio::test]
async fn crds_come_and_go_with_kubectl() {
    let cluster = Cluster::start("crd").await;
    let mut crd: Value = serde_json::to_value(conformance::widget_crd()).unwrap();
    crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
    crd["kind"] = json!("CustomResourceDefinition");
    cluster
        .run(&["delete", "crd", "widgets.conformance.example"], "")
        .await;
    let (ok, _, _) = cluster.try_run(&["get", "widgets"], "").await;
    assert!(!ok, "the kind goes with its CRD");
    cluster.run(&["create", "-f", "-"], &crd.to_string()).await;
    let name = "crd/widgets.conformance.example";
    cluster
        .run(
            &["wait", "--for=condition=Established", name, "--timeout=10s"],
            "",
        )
        .await;
    cluster
        .run(&["apply", "-f", "-"], &manifest("w", &json!({})))
        .await;
    let read: CustomResourceDefinition =
        serde_json::from_value(cluster.get("crd", "widgets.conformance.example").await).unwrap();
    assert_eq!(
        read.status.unwrap().accepted_names.unwrap().plural,
        "widgets"
    );
    assert!(cluster.embedded.write_count() > 0);
}
