//! What a user installs, on a real API server: CRDs, charts, an upgrade and the way back, and `helm test`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_cluster::{
    Cluster, Forwarder, Istiod, Minor, Namespace, Pod, Proxy, original_destination,
    service_account_token, tools,
};
use trimtab_lab::http;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, trimtab};

/// An absent API is looked for again every 30 s.
const AGAIN: Duration = Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

/// The program as a process of its own.
struct Program {
    _process: Process,
    http: SocketAddr,
    log: PathBuf,
}

impl Program {
    /// Runs `trimtab run` with a configuration, on free ports.
    fn start(cluster: &Cluster, kubeconfig: &Path, mut config: Value) -> Self {
        let (http, xds) = (free_address().unwrap(), free_address().unwrap());
        config["http"]["address"] = json!(http);
        config["xds"]["address"] = json!(xds);
        config["xds"]["advertise"] = json!(xds);
        if let Some(logs) = config.pointer_mut("/lazyload/learn/accessLog") {
            logs["address"] = json!(free_address().unwrap());
        }
        let file = cluster.dir().join("operator.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = cluster.dir().join(format!("operator-{}.log", http.port()));
        let args = [
            format!("KUBECONFIG={}", kubeconfig.display()),
            "RUST_LOG=info".to_owned(),
            trimtab().display().to_string(),
            "run".to_owned(),
            format!("--config={}", file.display()),
        ];
        let process = Process::start(Spec {
            name: "trimtab".to_owned(),
            program: "/usr/bin/env".into(),
            args: args.map(Into::into).into(),
            log: log.clone(),
        });
        Self {
            _process: process.unwrap(),
            http,
            log,
        }
    }

    /// Waits until an answer contains a text.
    async fn says(&self, path: &str, text: &str) {
        let what = format!("{text} in {path}");
        let asked = wait_until(&what, AGAIN, || async {
            let answer = http::get(self.http, path).await;
            let answer = answer.map_err(|error| error.to_string())?;
            answer.contains(text).then_some(()).ok_or(answer)
        });
        asked.await.unwrap();
    }
}

async fn kubectl(cluster: &Cluster, line: &str, input: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    cluster.kubectl(&args, input).await.unwrap()
}

async fn get(cluster: &Cluster, what: &str) -> Value {
    let text = kubectl(cluster, &format!("get {what} -o json"), "").await;
    serde_json::from_str(&text).unwrap()
}

/// What a command of the program prints.
fn print(args: &[&str]) -> String {
    let output = std::process::Command::new(trimtab()).args(args).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

const LIMITER: &str = r#"{"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"sets": {"_base": {"descriptor": [{"condition": "true", "action": {"quota": "5", "fill_interval": {"seconds": 60}}}]}}}}"#;
const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 80, "targetPort": 9080}]}}"#;

/// By every name that a document or a habit gives it.
const NAMES: [&str; 5] = [
    "sml",
    "smartlimiter",
    "smartlimiters",
    "SmartLimiter",
    "smartlimiters.microservice.slime.io",
];

#[tokio::test(flavor = "multi_thread")]
async fn fault_o16_kubectl_finds_limiters_by_every_name() {
    let cluster = Cluster::without_trimtab().await.unwrap();
    kubectl(&cluster, "apply --server-side -f -", &print(&["crds"])).await;
    let wait = "wait --for=condition=established --timeout=60s crd --all";
    kubectl(&cluster, wait, "").await;
    kubectl(&cluster, "apply -f -", LIMITER).await;
    for name in NAMES {
        let listed = kubectl(&cluster, &format!("get {name} -A"), "").await;
        assert!(listed.contains("reviews"), "{name}: {listed}");
    }
    let explained = kubectl(&cluster, "explain smartlimiter", "").await;
    assert!(explained.contains("v1alpha2"), "{explained}");
    let category = kubectl(&cluster, "get trimtab -A", "").await;
    assert!(category.contains("reviews"), "{category}");

    // The chart takes over what was applied, and a cluster that lacks a CRD is told so before anything is made.
    let namespace = ["--namespace", "istio-system", "--create-namespace"];
    let crds = chart("trimtab-crds");
    let mut adopt = vec![
        "install",
        "trimtab-crds",
        &crds,
        "--take-ownership",
        "--force-conflicts",
    ];
    adopt.extend(namespace);
    cluster.helm(&adopt).await.unwrap();
    let operator = chart("trimtab");
    for value in ["serviceMonitor.enabled", "prometheusRule.enabled"] {
        let set = format!("--set={value}=true");
        let mut install = vec!["install", "trimtab", &operator, &set];
        install.extend(namespace);
        let error = cluster.helm(&install).await.unwrap_err().to_string();
        let wanted = format!("{value}: the cluster has no monitoring.coreos.com/v1/");
        assert!(error.contains(&wanted), "{error}");
    }
    let mut install = vec![
        "install",
        "trimtab",
        &operator,
        "--set=fallback.enabled=true",
    ];
    install.extend(namespace);
    let notes = cluster.helm(&install).await.unwrap();
    assert!(!notes.contains("CRDs are missing"), "{notes}");

    // With the first form the plural is the other API's, and the short name is not.
    let both = print(&["crds", "--first-form"]);
    kubectl(
        &cluster,
        "apply --server-side --force-conflicts -f -",
        &both,
    )
    .await;
    kubectl(&cluster, wait, "").await;
    for name in ["sml", "smartlimiters.microservice.slime.io"] {
        let listed = kubectl(&cluster, &format!("get {name} -A"), "").await;
        assert!(listed.contains("reviews"), "{name}: {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_o12_without_istios_crds_one_line_says_what_to_install() {
    let cluster = Cluster::without_istio().await.unwrap();
    for object in [SERVICE, LIMITER] {
        kubectl(&cluster, "apply -f -", object).await;
    }
    let program = Program::start(&cluster, cluster.kubeconfig(), json!({}));
    let remedy = "EnvoyFilter is not installed: install Istio's CRDs";
    program.says("/readyz", remedy).await;
    wait_until("a condition with the remedy", BOUND, || async {
        let limiter = get(&cluster, "sml reviews").await["status"].to_string();
        limiter.contains(remedy).then_some(()).ok_or(limiter)
    })
    .await
    .unwrap();
    let log = std::fs::read_to_string(&program.log).unwrap();
    let told: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("install Istio's CRDs"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    for dump in ["404", "Status {", "ApiError"] {
        assert!(!log.contains(dump), "{dump}: {log}");
    }
    assert!(log.lines().count() < 30, "{log}");

    // It goes on by itself when they come.
    let crds = tools::find("crds.yaml").unwrap();
    let apply = format!("apply --server-side -f {}", crds.display());
    kubectl(&cluster, &apply, "").await;
    wait_until("the limit", AGAIN, || async {
        let filters = get(&cluster, "envoyfilters -n default").await;
        let found = filters["items"].as_array().map_or(0, Vec::len);
        (found == 1)
            .then_some(())
            .ok_or_else(|| format!("{found} EnvoyFilters"))
    })
    .await
    .unwrap();
}

/// A chart that renders a file of `previous/`.
fn previous(cluster: &Cluster, name: &str) -> String {
    let folder = cluster.dir().join("previous").join(name);
    std::fs::create_dir_all(folder.join("templates")).unwrap();
    let about = format!("apiVersion: v2\nname: {name}\nversion: 0.0.9\n");
    std::fs::write(folder.join("Chart.yaml"), about).unwrap();
    let file = format!(
        "{}/tests/e2e/previous/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::copy(file, folder.join("all.yaml")).unwrap();
    let template = r#"{{ .Files.Get "all.yaml" }}"#;
    std::fs::write(folder.join("templates/all.yaml"), template).unwrap();
    folder.display().to_string()
}

fn fixture(name: &str) -> Value {
    let file = format!(
        "{}/tests/e2e/previous/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

async fn helm(cluster: &Cluster, line: &str) {
    let mut args: Vec<&str> = line.split(' ').collect();
    args.extend(["--namespace", "istio-system"]);
    cluster.helm(&args).await.unwrap();
}

/// The limiter with its status, its pods and the EnvoyFilter that is in force, as the previous version left them.
async fn limited(cluster: &Cluster) {
    kubectl(cluster, "apply -f -", SERVICE).await;
    for name in ["reviews-0", "reviews-1"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "reviews"}},
            "spec": {"containers": [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "p"}]}});
        kubectl(cluster, "apply -f -", &pod.to_string()).await;
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let patch =
            format!("patch pod {name} --subresource=status --type=merge --patch-file=/dev/stdin");
        kubectl(cluster, &patch, &ready.to_string()).await;
    }
    let limiter = fixture("limiter");
    kubectl(cluster, "apply -f -", &limiter.to_string()).await;
    let status = json!({"status": limiter["status"]}).to_string();
    let patch = "patch sml reviews --subresource=status --type=merge --patch-file=/dev/stdin";
    kubectl(cluster, patch, &status).await;
    let uid = get(cluster, "sml reviews").await["metadata"]["uid"].clone();
    let mut filter = fixture("envoyfilter");
    filter["metadata"]["ownerReferences"] = json!([{"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
        "name": "reviews", "uid": uid, "controller": true, "blockOwnerDeletion": true}]);
    let apply = "apply --server-side --field-manager=trimtab/limiter -f -";
    kubectl(cluster, apply, &filter.to_string()).await;
}

/// What says that an object was neither made anew nor changed: the API server counts the generations of a spec.
async fn identity(cluster: &Cluster) -> Value {
    let filter = get(cluster, "envoyfilter reviews.default.ratelimit").await;
    let of = |key: &str| filter["metadata"][key].clone();
    json!([of("uid"), of("generation"), filter["spec"]])
}

/// Old CRDs and operator, the new ones, and back: what is in force is not touched in any of the steps.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_the_way_back_keep_every_limit() {
    let cluster = Cluster::without_trimtab().await.unwrap();
    let namespace = " --create-namespace";
    for name in ["trimtab-crds", "trimtab"] {
        let chart = previous(&cluster, name);
        helm(&cluster, &format!("install {name} {chart}{namespace}")).await;
    }
    limited(&cluster).await;
    let before = identity(&cluster).await;

    // The commands of docs/install.md, "Upgrade".
    helm(
        &cluster,
        &format!("upgrade trimtab-crds {}", chart("trimtab-crds")),
    )
    .await;
    let scale = "--namespace istio-system scale deployment trimtab --replicas=0";
    kubectl(&cluster, scale, "").await;
    helm(&cluster, &format!("upgrade trimtab {}", chart("trimtab"))).await;
    assert_eq!(identity(&cluster).await, before, "by the charts");
    let program = released(&cluster, "istio-system").await;
    program.says("/readyz", "leader: this replica").await;
    let state = r#"trimtab_limiter_state{namespace="default",limiter="reviews",set="_base",index="0",state="Limiting"} 1"#;
    program.says("/metrics", state).await;
    program
        .says("/metrics", "trimtab_limiter_queue_depth{} 0")
        .await;
    assert_eq!(identity(&cluster).await, before, "by the new operator");

    drop(program);
    let spec = get(&cluster, "sml reviews").await["spec"].clone();
    for name in ["trimtab", "trimtab-crds"] {
        helm(&cluster, &format!("rollback {name} 1")).await;
    }
    assert_eq!(identity(&cluster).await, before, "by the way back");
    let after = get(&cluster, "sml reviews").await;
    assert_eq!(after["spec"], spec);
    assert_eq!(
        after["status"]["state"], "Limiting",
        "what the old operator starts from"
    );
    let deployment = get(&cluster, "deployment trimtab -n istio-system").await;
    assert_eq!(deployment["spec"]["replicas"], 1);
}

/// The program with the rights and the configuration of an installed chart.
async fn released(cluster: &Cluster, namespace: &str) -> Program {
    let token = service_account_token(cluster, namespace, "trimtab", &[])
        .await
        .unwrap();
    let kubeconfig = cluster.kubeconfig_with_token("trimtab", &token).unwrap();
    let map = get(cluster, &format!("configmap trimtab -n {namespace}")).await;
    let config = map["data"]["config.yaml"].as_str().unwrap();
    Program::start(
        cluster,
        &kubeconfig,
        serde_saphyr::from_str(config).unwrap(),
    )
}

/// The objects of `helm test`, by kind.
async fn hooks(cluster: &Cluster, namespace: &str) -> Vec<Value> {
    let args = ["get", "hooks", "trimtab", "--namespace", namespace];
    let text = cluster.helm(&args).await.unwrap();
    let documents = trimtab::manifests::parse(Path::new("helm get hooks"), &text).unwrap();
    documents.into_iter().map(|d| d.object).collect()
}

fn of_kind<'a>(hooks: &'a [Value], kind: &str) -> &'a Value {
    let found = hooks.iter().find(|o| o["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {hooks:?}"))
}

/// The arguments of a container.
fn args(pod: &Value) -> Vec<String> {
    let args = pod
        .pointer("/spec/containers/0/args")
        .and_then(Value::as_array);
    let args = args.expect("arguments").iter();
    args.map(|a| a.as_str().unwrap().to_owned()).collect()
}

/// What the limited pod of `helm test` runs, as a process at the pod's address.
fn limited_process(cluster: &Cluster, hooks: &[Value], pod: &Pod) -> Process {
    let config = of_kind(hooks, "ConfigMap")["data"]["config.yaml"].as_str();
    let mut config: Value = serde_saphyr::from_str(config.unwrap()).unwrap();
    assert_eq!(config["http"]["address"], "0.0.0.0:8080");
    config["http"]["address"] = json!(pod.address(8080));
    config["xds"]["address"] = json!(free_address().unwrap());
    let folder = cluster.dir().join("limited");
    std::fs::create_dir_all(folder.join("objects")).unwrap();
    std::fs::write(folder.join("config.yaml"), config.to_string()).unwrap();
    let place = |arg: String| {
        arg.replace("/etc/trimtab", &folder.display().to_string())
            .replace("/objects", &folder.join("objects").display().to_string())
    };
    let template = &of_kind(hooks, "Deployment")["spec"]["template"];
    let process = Process::start(Spec {
        name: "limited".to_owned(),
        program: trimtab(),
        args: args(template)
            .into_iter()
            .map(place)
            .map(Into::into)
            .collect(),
        log: folder.join("log"),
    });
    process.unwrap()
}

/// The Service of `helm test`, which leads to the pod's sidecar: an address in place of a network of pods.
async fn service(pod: &Pod) -> Forwarder {
    let (ip, through) = (pod.local(), pod.address(15006));
    let open = move || {
        let destination = std::net::SocketAddrV4::new(ip, 8080);
        original_destination([127, 44, 255, 254].into(), through, destination)
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Forwarder::start(any, open).await.unwrap()
}

/// Runs the program; its exit code and all that it prints.
async fn run(args: &[String]) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(trimtab()).args(args).output();
    let output = output.await.unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t));
    (output.status.code(), format!("{said}{failed}"))
}

/// `helm test` as far as it can be without a kubelet: its objects on a real API server, and what its two pods run as processes,
/// with a real sidecar between them.
#[tokio::test(flavor = "multi_thread")]
async fn fault_o37_helm_test_proves_that_a_limit_holds() {
    let cluster = Cluster::start().await.unwrap();
    let istiod = Istiod::start_minor(&cluster, Minor::Newest).await.unwrap();
    let namespace = Namespace::create(&cluster, "proof").await.unwrap();
    let name = namespace.name();
    let chart = chart("trimtab");
    let install = ["install", "trimtab", &chart, "--namespace", name];
    cluster.helm(&install).await.unwrap();
    let program = released(&cluster, name).await;
    program.says("/readyz", "leader: this replica").await;

    let hooks = hooks(&cluster, name).await;
    // A sidecar that takes mTLS waits for a certificate, and nobody gives one here.
    let left_out = ["Pod", "PeerAuthentication"];
    let applied = |o: &&Value| !left_out.contains(&o["kind"].as_str().unwrap());
    for hook in hooks.iter().filter(applied) {
        namespace.apply(&hook.to_string()).await.unwrap();
    }
    let labels = [("app", "trimtab-test")];
    let pod = namespace.pod("trimtab-test-0", &labels).await.unwrap();
    let _limited = limited_process(&cluster, &hooks, &pod);
    let proxy = Proxy::start(&cluster, &istiod, &pod).await.unwrap();
    let service = service(&pod).await;

    let mut command = args(of_kind(&hooks, "Pod"));
    assert_eq!(command[0], "prove-limit");
    let host = format!("http://trimtab-test.{name}.svc.cluster.local/");
    let here = format!("http://{}/", service.address());
    assert!(command[1].starts_with(&host), "{command:?}");
    command[1] = command[1].replace(&host, &here);
    let (code, said) = run(&command).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the limit holds"), "{said}");

    // Without the limiter the same command fails, and says what it saw.
    let delete = ["delete", "sml", "trimtab-test"];
    namespace.kubectl(&delete, "").await.unwrap();
    command[3] = "--within=1s".to_owned();
    wait_until("no limit", AGAIN, || async {
        let (code, said) = run(&command).await;
        let wanted = code == Some(1) && said.contains("nothing is limited");
        wanted.then_some(()).ok_or(said)
    })
    .await
    .unwrap();
    drop(proxy);
    let (code, said) = run(&command).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is its pod ready"), "{said}");
}
