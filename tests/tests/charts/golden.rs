//! Renderings.

use std::path::{Path, PathBuf};

use expect_test::expect_file;
use trimtab::config::Config;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;

use crate::helm::{chart, configuration, object, render, render_from, repository, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/charts")
}

/// Names of all cases, sorted.
fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .expect("the folder of golden cases")
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert!(names.len() >= 3, "the cases are there: {names:?}");
    names
}

/// A case as helm renders it.
fn rendered(name: &str) -> String {
    let values = root().join(name).join("values.yaml");
    let values = values.to_string_lossy();
    render("trimtab", &["--values", &values]).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Dashboards are long and have a test of their own: a golden file only names them.
fn without_dashboards(text: &str) -> String {
    let mut out = text.to_owned();
    for entry in std::fs::read_dir(repository().join("dashboards")).expect("dashboards") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let file = std::fs::read_to_string(&path).expect("a dashboard");
        let lines: Vec<&str> = file.lines().collect();
        let indented = format!("    {}\n", lines.join("\n    "));
        let name = path.file_name().expect("a name").to_string_lossy();
        out = out.replace(&indented, &format!("    (dashboards/{name})\n"));
    }
    out
}

#[test]
fn every_case_gives_its_golden_output() {
    for name in names() {
        let text = without_dashboards(&rendered(&name));
        expect_file![root().join(&name).join("out.yaml")].assert_eq(&text);
    }
}

#[test]
fn the_operator_takes_every_rendered_configuration() {
    for name in names() {
        let text = configuration(&rendered(&name));
        let config: Config =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        config.check().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let config: Config = serde_saphyr::from_str(&configuration(&rendered("everything"))).unwrap();
    assert_eq!(
        config.xds.advertise,
        "trimtab.istio-system.svc.mesh.example.com:16010"
    );
    assert_eq!(
        config.of::<Limiter>().export_limiters,
        0,
        "a zero is not taken for nothing"
    );
    let mds = config.metrics.mds.clone().unwrap();
    assert_eq!(mds.address.to_string(), "0.0.0.0:8084");
    assert_eq!(mds.store.max_series, 3_000_000);
    assert!(
        config.metrics.metrics_server.is_some(),
        "an empty map switches a source on"
    );
    let lazyload = config.of::<Lazyload>();
    assert_eq!(lazyload.namespace, "istio-system");
    assert_eq!(config.mesh.domain, "mesh.example.com");
    let logs = lazyload.learn.access_log.as_ref().unwrap();
    assert_eq!(logs.address.to_string(), "0.0.0.0:18082");
    assert!(lazyload.fallback.tcp, "the value and the key are one");
    let config: Config = serde_saphyr::from_str(&configuration(&rendered("own-account"))).unwrap();
    assert_eq!(
        config.xds.advertise, "",
        "an empty text wins over the default"
    );
}

#[test]
fn a_change_of_the_configuration_rolls_the_pod() {
    let checksum = |arguments: &[&str]| {
        let text = render("trimtab", arguments).unwrap();
        object(&text, "Deployment", "trimtab")["spec"]["template"]["metadata"]["annotations"]
            ["checksum/config"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let default = checksum(&[]);
    assert_ne!(default, checksum(&["--set", "config.limiter.refresh=6s"]));
    assert_eq!(default, checksum(&["--set", "service.type=LoadBalancer"]));
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for name in ["trimtab", "trimtab-crds"] {
        let folder = chart(name);
        let output = run(["lint".as_ref(), "--strict".as_ref(), folder.as_os_str()]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }
    for case in names() {
        let (folder, values) = (chart("trimtab"), root().join(case).join("values.yaml"));
        let output = run([
            "lint".as_ref(),
            "--strict".as_ref(),
            folder.as_os_str(),
            "--values".as_ref(),
            values.as_os_str(),
        ]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }
}

/// A chart that `helm package` cannot carry whole would render otherwise from its archive.
#[test]
fn packed_charts_render_the_same() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("charts");
    for name in ["trimtab", "trimtab-crds"] {
        let whole = render(name, &[]).unwrap();
        let (folder, out) = (chart(name), out.as_os_str());
        let packed = run([
            "package".as_ref(),
            folder.as_os_str(),
            "--destination".as_ref(),
            out,
        ]);
        assert!(
            packed.status.success(),
            "{}",
            String::from_utf8_lossy(&packed.stderr)
        );
        let archive = format!("{name}-{}.tgz", env!("CARGO_PKG_VERSION"));
        let archive = Path::new(out).join(archive);
        assert_eq!(render_from(&archive, &[]), Ok(whole), "{name}");
    }
}

#[test]
fn the_examples_of_the_documents_are_accepted() {
    let pages = ["docs/install.md", "docs/migrate/aeraki.md"];
    let text = pages.map(|page| std::fs::read_to_string(repository().join(page)).unwrap());
    let text = text.concat();
    let blocks: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 3, "examples of values");
    let rendered: Vec<String> = blocks
        .iter()
        .enumerate()
        .map(|(i, block)| {
            let values = format!("install-example-{i}.yaml");
            let values = Path::new(env!("CARGO_TARGET_TMPDIR")).join(values);
            std::fs::write(&values, block).unwrap();
            render("trimtab", &["--values", &values.to_string_lossy()]).unwrap()
        })
        .collect();
    let config = |i: usize| -> Config {
        let config: Config = serde_saphyr::from_str(&configuration(&rendered[i])).unwrap();
        config.check().unwrap();
        config
    };
    assert!(config(0).metrics.prometheus.is_some());
    object(&rendered[0], "Deployment", "trimtab");
    object(&rendered[1], "NetworkPolicy", "trimtab");
    assert!(config(2).xds.tls.is_some(), "from Aeraki");
    object(&rendered[2], "Service", "aeraki");
}
