//! One default in all places: the program, the charts, the image and the documents.

use std::collections::BTreeSet;

use serde_json::Value;
use trimtab::config::Config;
use trimtab_lazyload::fallback::Deploy;

use crate::helm::{chart, configuration, object, render, repository};

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap()
}

fn effective(text: &str) -> Value {
    let config: Config = serde_saphyr::from_str(text).unwrap();
    serde_json::to_value(config.effective()).unwrap()
}

/// The program's own, with what is off by default switched on.
fn program() -> Value {
    effective("{lazyload: {learn: {accessLog: {}}}, metrics: {mds: {}}, xds: {tokens: {}}}")
}

/// The chart's, with pushed metrics switched on.
fn rendered() -> String {
    render(
        "trimtab",
        &["--set-json", r#"config={"metrics": {"mds": {}}}"#],
    )
    .unwrap()
}

const PORTS: [(&str, &str, &str); 4] = [
    ("http", "http", "/http/address"),
    ("xds", "grpc-xds", "/xds/address"),
    (
        "accessLogs",
        "grpc-logs",
        "/lazyload/learn/accessLog/address",
    ),
    ("mds", "grpc-mds", "/metrics/mds/address"),
];

fn port(address: &Value) -> i64 {
    let address = address.as_str().unwrap();
    address.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn ports_are_the_same_in_the_program_the_chart_and_the_documents() {
    let (program, rendered) = (program(), rendered());
    let values = yaml("charts/trimtab/values.yaml");
    let chart = effective(&configuration(&rendered));
    let deployment = object(&rendered, "Deployment", "trimtab");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let security = text("SECURITY.md");
    for (key, name, path) in PORTS {
        let wanted = port(program.pointer(path).unwrap());
        assert_eq!(port(chart.pointer(path).unwrap()), wanted, "{path}");
        assert_eq!(
            values["service"]["ports"][key], wanted,
            "service.ports.{key}"
        );
        let ports = container["ports"].as_array().unwrap();
        let open = ports.iter().find(|p| p["name"] == name).unwrap();
        assert_eq!(open["containerPort"], wanted, "{name}");
        assert!(
            security.contains(&format!("port {wanted}")),
            "SECURITY.md: {wanted}"
        );
    }
    let status = format!("http://127.0.0.1:{}", port(&program["http"]["address"]));
    for page in ["README.md", "docs/install.md", "operator/src/reach.rs"] {
        assert!(text(page).contains(&status), "{page}: {status}");
    }
    let logs = "trimtab-leader.istio-system.svc.cluster.local, port: 8082";
    assert!(text("docs/install.md").contains(logs));
}

/// Namespaces that commands for a cluster name.
fn namespaces(page: &str) -> BTreeSet<String> {
    let text = text(page);
    let lines = text.lines().filter(|l| l.trim_start().starts_with("helm "));
    let names = lines.filter_map(|l| l.split("--namespace ").nth(1)?.split_whitespace().next());
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn the_namespace_is_istio_system_everywhere() {
    let program = program();
    for path in [
        "/lazyload/namespace",
        "/leaderElection/namespace",
        "/xds/tokens/authority/namespace",
    ] {
        assert_eq!(program.pointer(path).unwrap(), "istio-system", "{path}");
    }
    let pages = [
        "README.md",
        "docs/install.md",
        "charts/trimtab/README.md",
        "charts/trimtab-crds/README.md",
    ];
    for page in pages {
        let wanted = BTreeSet::from(["istio-system".to_owned()]);
        assert_eq!(namespaces(page), wanted, "{page}");
    }
    // What the chart makes of it is the same, so that objects of one find the other.
    let chart = effective(&configuration(&rendered()));
    for path in [
        "/lazyload/namespace",
        "/leaderElection/namespace",
        "/leaderElection/name",
        "/xds/tokens/authority",
        "/mesh/domain",
        "/mesh/configMap",
    ] {
        assert_eq!(chart.pointer(path), program.pointer(path), "{path}");
    }
}

/// What `make image` loads into nodes is what the chart asks for, so that it needs no value in kind, minikube or k3s.
#[test]
fn the_image_is_what_make_image_builds() {
    let version = env!("CARGO_PKG_VERSION");
    let deployment = object(&rendered(), "Deployment", "trimtab");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], format!("trimtab:{version}"));
    let script = text("scripts/image.sh");
    assert!(script.contains("\"docker.io/library/trimtab:$VERSION\""));
    let user = pod["securityContext"]["runAsUser"].as_i64().unwrap();
    assert!(script.contains(&format!("USER_ID={user}\n")));
    assert!(text("Dockerfile").contains(&format!("USER {user}")));
    assert!(script.contains("--config.entrypoint /usr/local/bin/trimtab"));
    assert!(text("Dockerfile").contains("ENTRYPOINT [\"/usr/local/bin/trimtab\"]"));
    assert!(text("scripts/release.sh").contains("/trimtab:$VERSION\""));
    let page = text("docs/install.md");
    assert!(page.contains(&format!("registry.example.com/trimtab:{version}")));
    for tool in [
        "kind load",
        "minikube image load",
        "k3s ctr images import",
        "docker load",
    ] {
        let row = page.lines().find(|l| l.contains(tool)).expect(tool);
        assert!(row.contains(&format!("trimtab-{version}.tar")), "{row}");
    }
    assert_eq!(pod["containers"][0]["args"][0], "run");
}

#[test]
fn the_fallback_has_the_envoy_of_the_program() {
    let image = Deploy::default().image;
    let values = yaml("charts/trimtab/values.yaml");
    assert_eq!(values["fallback"]["image"], image);
    let about = std::fs::read_to_string(chart("trimtab").join("Chart.yaml")).unwrap();
    assert!(about.contains(&format!("image: {image}\n")), "{about}");
}

/// A reader gets to the image before the first command that needs it.
#[test]
fn fault_o17_the_readme_says_where_the_image_comes_from_before_it_installs() {
    for page in ["README.md", "docs/install.md"] {
        let text = text(page);
        let install = text.find("helm install trimtab charts/trimtab").unwrap();
        let image = text.find("make image").unwrap_or(usize::MAX);
        assert!(image < install, "{page}");
    }
}

#[test]
fn artifact_hub_is_told_what_there_is() {
    for name in ["trimtab", "trimtab-crds"] {
        let about = yaml(&format!("charts/{name}/Chart.yaml"));
        for key in ["home", "icon", "maintainers", "keywords", "kubeVersion"] {
            assert!(!about[key].is_null(), "{name}: {key}");
        }
        let notes = &about["annotations"];
        assert_eq!(notes["artifacthub.io/license"], "Apache-2.0", "{name}");
        assert_eq!(notes["artifacthub.io/category"], "networking", "{name}");
    }
    let about = yaml("charts/trimtab-crds/Chart.yaml");
    let told = about["annotations"]["artifacthub.io/crds"]
        .as_str()
        .unwrap();
    let told: Vec<Value> = serde_saphyr::from_str(told).unwrap();
    let wanted: Vec<(String, String, String, String)> = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .filter(|(file, _)| !trimtab::manifests::is_first_form(file))
        .map(|(_, crd)| {
            let version = &crd.spec.versions[0];
            let schema = version.schema.as_ref().unwrap();
            let root = schema.open_api_v3_schema.as_ref().unwrap();
            (
                crd.spec.names.kind,
                version.name.clone(),
                crd.metadata.name.unwrap_or_default(),
                root.description.clone().unwrap_or_default(),
            )
        })
        .collect();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let told: Vec<(String, String, String, String)> = told
        .iter()
        .map(|row| {
            let [kind, version, name, about] =
                ["kind", "version", "name", "description"].map(|key| text(row, key));
            (kind, version, name, about)
        })
        .collect();
    assert_eq!(told, wanted);
}
