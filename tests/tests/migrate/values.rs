//! Values that are printed are values of the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use trimtab::config::Config;
use trimtab_cluster::tools;

use crate::cases::{input, names, run};

/// `helm template` of the chart with a file of values.
fn render(values: &Path) -> Result<String, String> {
    let own = std::env::var_os("HELM").map(PathBuf::from);
    let helm = own.unwrap_or_else(|| tools::find("helm").expect("helm"));
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/trimtab");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    let output = Command::new(helm)
        .args(["template", "trimtab", "--namespace", "istio-system"])
        .arg(chart)
        .arg("--values")
        .arg(values)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .env_remove("KUBECONFIG")
        .output()
        .expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The operator's configuration in a rendering.
fn configuration(rendered: &str) -> String {
    let documents = trimtab::manifests::parse(Path::new("helm template"), rendered).expect("YAML");
    let found = documents.iter().find_map(|d| {
        let text = d.object.pointer("/data/config.yaml")?.as_str()?;
        Some(text.to_owned())
    });
    found.expect("a ConfigMap with config.yaml")
}

#[tokio::test]
async fn fault_o18_helm_and_the_operator_take_the_values() {
    let mut tried = Vec::new();
    for name in names() {
        let (file, from) = input(&name);
        if ["istio-ratelimit", "ambient"].contains(&from.as_str()) {
            continue;
        }
        let values = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("values-{name}.yaml"));
        run(&from, &file, &["--values", &values.display().to_string()]).await;
        if name == "slime-decisions" {
            // The report says that this value is a mistake.
            let error = render(&values).unwrap_err();
            assert!(error.contains("wormholePort"), "{error}");
        } else {
            let rendered = render(&values).unwrap_or_else(|e| panic!("{name}: {e}"));
            let text = configuration(&rendered);
            Config::parse(&text).unwrap_or_else(|e| panic!("{name}: {e:#}\n{text}"));
        }
        tried.push(name);
    }
    assert!(tried.len() >= 6, "{tried:?}");
}

#[tokio::test]
async fn values_are_refused_where_there_are_none() {
    let (file, _) = input("ambient");
    let file = file.display().to_string();
    let values = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-values.yaml");
    let args = [
        "ambient",
        "-f",
        &file,
        "--values",
        &values.display().to_string(),
    ];
    let args = trimtab::migrate::MigrateArgs::of(&args).unwrap();
    let error = trimtab::migrate::migrate(&args)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("--values"), "{error}");
    assert!(!values.exists());
}
