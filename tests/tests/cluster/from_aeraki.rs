//! The steps from Aeraki to Trimtab, as docs/migrate/aeraki.md has them, on a control plane of their own.

use std::path::{Path, PathBuf};

use trimtab_cluster::Cluster;

use crate::conformance::eventually;

const PAGE: &str = include_str!("../../../docs/migrate/aeraki.md");
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/trimtab");

/// What an installation of Aeraki leaves, as far as its program is not needed.
const AERAKI: &str = include_str!("../../fixtures/aeraki/objects.yaml");

const CRD: &str = include_str!("../../fixtures/aeraki/crd.yaml");

const PROTOCOL: &str = "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: own, namespace: istio-system}, spec: {protocol: own, codec: own.codec}}";
const ROUTER: &str = "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: MetaRouter, metadata: {name: a, namespace: shop}, spec: {hosts: [a.shop.svc.cluster.local], routes: [{route: [{destination: {host: a.shop.svc.cluster.local}}]}]}}";

/// The commands of the blocks of a step, with the prompt's indentation taken away.
fn commands(step: &str) -> String {
    blocks(step, "   ```sh\n")
}

/// Those that lead back from a step.
fn back(step: &str) -> String {
    let commands = blocks(step, "   ```sh back\n");
    assert!(!commands.is_empty(), "step {step} has no way back");
    commands
}

fn blocks(step: &str, fence: &str) -> String {
    let section = PAGE.split("## Steps").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let text = section
        .split(&format!("\n{step}. "))
        .nth(1)
        .expect("the step");
    let next = step.parse::<u32>().expect("a number") + 1;
    let text = text.split(&format!("\n{next}. ")).next().expect("its end");
    let blocks = text
        .split(fence)
        .skip(1)
        .filter_map(|b| b.split("   ```").next());
    let lines = blocks
        .flat_map(str::lines)
        .map(|l| l.strip_prefix("   ").unwrap_or(l));
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs a step as a user would; the program is that of this build.
async fn run(cluster: &Cluster, dir: &Path, script: &str) -> Result<String, String> {
    let output = tokio::process::Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(dir)
        .env(
            "PATH",
            format!(
                "{}:{}",
                dir.join("bin").display(),
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A folder with `kubectl` and a `trimtab` that prints what the real one prints.
fn tools(dir: &Path) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let kubectl = trimtab_cluster::tools::find("kubectl").unwrap();
    std::os::unix::fs::symlink(kubectl, bin.join("kubectl")).unwrap();
    let crds: Vec<String> = trimtab::manifests::crds()
        .unwrap()
        .into_iter()
        .map(|(_, text)| format!("---\n{text}"))
        .collect();
    std::fs::write(dir.join("crds.yaml"), crds.concat()).unwrap();
    let args = ["edge".to_owned(), "--tls".to_owned()];
    let map = trimtab::aeraki::AerakiBootstrapArgs::of(&args).unwrap();
    std::fs::write(
        dir.join("map.yaml"),
        map.text(&trimtab::config::Config::default()).unwrap(),
    )
    .unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\ncrds) cat {0}/crds.yaml;;\n'aeraki-bootstrap --tls edge') cat {0}/map.yaml;;\n*) echo \"$*\" >&2; exit 2;;\nesac\n",
        dir.display()
    );
    let program = bin.join("trimtab");
    std::fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, mode).unwrap();
}

/// As Aeraki's installation was before.
async fn aeraki(cluster: &Cluster) {
    let crd = "applicationprotocols.metaprotocol.aeraki.io";
    cluster.kubectl(&["delete", "crd", crd], "").await.unwrap();
    // The namespace is there from the start in a mesh.
    let _ = cluster
        .kubectl(&["create", "namespace", "istio-system"], "")
        .await;
    cluster.kubectl(&["create", "-f", "-"], CRD).await.unwrap();
    let wait = [
        "wait",
        "--for=condition=established",
        "--timeout=60s",
        "crd",
        crd,
    ];
    cluster.kubectl(&wait, "").await.unwrap();
    cluster
        .kubectl(&["apply", "-f", "-"], AERAKI)
        .await
        .unwrap();
    cluster
        .kubectl(&["apply", "-f", "-"], PROTOCOL)
        .await
        .unwrap();
}

/// A cluster, and a folder in which a user works.
struct Work {
    cluster: Cluster,
    dir: PathBuf,
}

impl Work {
    async fn sh(&self, script: &str) -> Result<String, String> {
        run(&self.cluster, &self.dir, script).await
    }

    /// Runs the commands of a step.
    async fn step(&self, number: &str) {
        self.sh(&commands(number))
            .await
            .unwrap_or_else(|e| panic!("step {number}: {e}"));
    }

    async fn apply(&self, text: &str) -> Result<String, String> {
        let applied = self.cluster.kubectl(&["apply", "-f", "-"], text).await;
        applied.map_err(|e| e.to_string())
    }

    /// What matters of an object: all but its identity.
    async fn state(&self, what: &str) -> String {
        format!(
            "{} {}",
            self.get(what, "{.spec}").await,
            self.get(what, "{.data}").await
        )
    }

    /// What `kubectl get` prints of a field.
    async fn get(&self, what: &str, path: &str) -> String {
        let script = format!("kubectl get {what} -o jsonpath='{path}'");
        self.sh(&script).await.unwrap().trim().to_owned()
    }
}

/// Steps 1 and 2: before them nobody can change a MetaRouter, after them everybody can.
async fn aeraki_stops(work: &Work) {
    eventually("the webhook is asked", || async {
        let refused = work.apply(ROUTER).await.err()?;
        refused.contains("validation.aeraki.io").then_some(())
    })
    .await;
    work.step("1").await;
    work.step("2").await;
    eventually("nobody is asked", || async {
        work.apply(ROUTER).await.ok()
    })
    .await;
}

/// Step 3: the CRD of another scope.
async fn crds_are_replaced(work: &Work) {
    let apply = "trimtab crds | kubectl apply --server-side --force-conflicts -f -";
    let refused = work.sh(apply).await.unwrap_err();
    assert!(
        refused.contains("spec.scope") && refused.contains("field is immutable"),
        "{refused}"
    );
    work.step("3").await;
    let path = "{.spec.protocol} {.spec.codec} {.metadata.namespace}";
    assert_eq!(
        work.get("applicationprotocols own", path).await,
        "own own.codec"
    );
}

/// Steps 4 to 6: what proxies dial and start with.
async fn proxies_find_it(work: &Work) {
    for (file, text) in [("tls.crt", "c"), ("tls.key", "k"), ("ca.crt", "a")] {
        std::fs::write(work.dir.join(file), text).unwrap();
    }
    work.step("4").await;
    work.sh("kubectl delete configmap aeraki-bootstrap-config --namespace shop")
        .await
        .unwrap();
    let values = "aeraki.enabled=true,aeraki.namespaces={shop},tls.secretName=trimtab-xds,config.metaprotocol.dataPlane=Aeraki,config.metaprotocol.ports=all";
    let install = [
        "install",
        "trimtab",
        CHART,
        "-n",
        "istio-system",
        "--set",
        values,
    ];
    work.cluster.helm(&install).await.unwrap();
    let service = "service aeraki --namespace istio-system";
    assert_eq!(work.get(service, "{.spec.ports[*].port}").await, "15010");

    work.sh("kubectl create namespace edge").await.unwrap();
    work.sh(&commands("6").replace("NAMESPACE", "edge"))
        .await
        .unwrap();
    for namespace in ["shop", "edge"] {
        let map = format!("configmap aeraki-bootstrap-config --namespace {namespace}");
        let data = work.get(&map, "{.data}").await;
        assert!(
            data.contains("aeraki.istio-system") && data.contains("ROOTCA"),
            "{namespace}: {data}"
        );
    }
}

/// The steps 5 to 2 back: what was there before is there again.
async fn the_way_back(work: &Work, before: &[(String, String)]) {
    let bin = work.dir.join("bin/helm");
    std::os::unix::fs::symlink(trimtab_cluster::tools::find("helm").unwrap(), bin).unwrap();
    for step in ["5", "4", "3", "2"] {
        work.sh(&back(step))
            .await
            .unwrap_or_else(|e| panic!("back from step {step}: {e}"));
    }
    for (what, wanted) in before {
        assert_eq!(work.state(what).await, *wanted, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_page_lead_back_to_aeraki() {
    if std::env::var_os("TRIMTAB_USE_KUBECONFIG").is_some() {
        return;
    }
    let cluster = Cluster::start().await.unwrap();
    let dir = cluster.dir().join("back");
    let work = Work { cluster, dir };
    tools(&work.dir);
    aeraki(&work.cluster).await;
    let mut before = Vec::new();
    for what in [
        "service aeraki --namespace istio-system",
        "deployment aeraki --namespace istio-system",
        "configmap aeraki-bootstrap-config --namespace shop",
        "crd applicationprotocols.metaprotocol.aeraki.io",
        "applicationprotocols own --namespace istio-system",
        "envoyfilter taken-over --namespace istio-system",
    ] {
        before.push((what.to_owned(), work.state(what).await));
    }
    aeraki_stops(&work).await;
    crds_are_replaced(&work).await;
    proxies_find_it(&work).await;
    the_way_back(&work, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m19_the_steps_of_the_page_lead_from_aeraki_to_trimtab() {
    if std::env::var_os("TRIMTAB_USE_KUBECONFIG").is_some() {
        // CRDs of all are replaced: that is nothing to do to somebody's cluster.
        return;
    }
    let cluster = Cluster::start().await.unwrap();
    let dir = cluster.dir().join("steps");
    let work = Work { cluster, dir };
    tools(&work.dir);
    aeraki(&work.cluster).await;
    aeraki_stops(&work).await;
    crds_are_replaced(&work).await;
    proxies_find_it(&work).await;
    work.step("8").await;
    let left = work
        .get("envoyfilters --all-namespaces", "{.items[*].metadata.name}")
        .await;
    assert_eq!(left, "taken-over");
}
