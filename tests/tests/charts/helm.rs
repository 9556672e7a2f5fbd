//! The real helm.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use trimtab_cluster::tools;

/// The release and namespace of all renderings.
const RELEASE: &str = "trimtab";
const NAMESPACE: &str = "istio-system";

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the folder of the workspace")
        .to_owned()
}

/// The folder of a chart.
pub(crate) fn chart(name: &str) -> PathBuf {
    repository().join("charts").join(name)
}

/// `HELM`, or what `make deps` installed.
fn program() -> PathBuf {
    let own = std::env::var_os("HELM").map(PathBuf::from);
    own.unwrap_or_else(|| tools::find("helm").expect("helm"))
}

/// Runs helm, apart from the configuration of the person who runs the tests.
pub(crate) fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    Command::new(program())
        .args(args)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .env_remove("KUBECONFIG")
        .output()
        .expect("helm runs")
}

/// Renders a chart; `arguments` are options of `helm template`. An error is what helm wrote.
pub(crate) fn render(name: &str, arguments: &[&str]) -> Result<String, String> {
    crate::copies::refresh();
    render_from(&chart(name), arguments)
}

/// The same of a chart's folder or archive.
pub(crate) fn render_from(path: &Path, arguments: &[&str]) -> Result<String, String> {
    let fixed = ["template", RELEASE, "--namespace", NAMESPACE].map(OsStr::new);
    let args = fixed
        .into_iter()
        .chain([path.as_os_str()])
        .chain(arguments.iter().map(OsStr::new));
    let output = run(args);
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The objects of a rendering.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    trimtab::manifests::parse(Path::new("helm template"), text)
        .expect("YAML")
        .into_iter()
        .map(|d| d.object)
        .collect()
}

/// The object of a kind and name.
pub(crate) fn object(text: &str, kind: &str, name: &str) -> Value {
    objects(text)
        .into_iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name} in {text}"))
}

/// The operator's configuration in a rendering.
pub(crate) fn configuration(text: &str) -> String {
    objects(text)
        .iter()
        .find_map(|o| {
            o.pointer("/data/config.yaml")?
                .as_str()
                .map(ToOwned::to_owned)
        })
        .expect("a ConfigMap with config.yaml")
}
