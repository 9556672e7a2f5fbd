//! The real kubectl against `trimtab run --standalone --serve-api`.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, examples, folder, trimtab};

struct Standalone {
    _process: Process,
    api: SocketAddr,
    dir: PathBuf,
}

impl Standalone {
    async fn start(name: &str) -> Self {
        let dir = folder(name);
        let (api, http, xds) = (
            free_address().unwrap(),
            free_address().unwrap(),
            free_address().unwrap(),
        );
        let input = dir.join("in");
        std::fs::create_dir_all(&input).unwrap();
        for file in ["service.yaml", "pods.yaml"] {
            std::fs::copy(examples().join(file), input.join(file)).unwrap();
        }
        let config = dir.join("config.yaml");
        std::fs::write(&config, format!("{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}, limiter: {{refresh: 200ms}}}}")).unwrap();
        let args: Vec<OsString> = ["run", "--config"]
            .into_iter()
            .map(OsString::from)
            .chain([config.into_os_string()])
            .chain([
                "--standalone".into(),
                input.into_os_string(),
                "--out".into(),
                dir.join("out").into_os_string(),
                "--serve-api".into(),
                api.to_string().into(),
            ])
            .collect();
        let mut process = Process::start(Spec {
            name: "trimtab".to_owned(),
            program: trimtab(),
            args,
            log: dir.join("log"),
        })
        .unwrap();
        process
            .wait_ready(BOUND, || async move {
                trimtab_lab::http::get(http, "/readyz")
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            })
            .await
            .unwrap();
        Self {
            _process: process,
            api,
            dir,
        }
    }

    fn kubectl(&self, args: &[&str], input: Option<&str>) -> (bool, String) {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let mut child = Command::new(&program)
            .args([
                "--server",
                &format!("http://{}", self.api),
                "--kubeconfig",
                "/dev/null",
            ])
            .args(args)
            .env("HOME", &self.dir)
            .env("KUBE_EDITOR", "sed -i s|30/{|60/{|")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("kubectl cannot run ({program}: {e}): run `make deps`"));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.unwrap_or_default().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    async fn until(&self, args: &[&str], want: &str) -> String {
        wait_until(&format!("kubectl {args:?} shows {want}"), BOUND, || async {
            let (_, text) = self.kubectl(args, None);
            if text.contains(want) {
                Ok(text)
            } else {
                Err(text)
            }
        })
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn apply_get_edit_delete() {
    let standalone = Standalone::start("kubectl").await;
    let always = std::fs::read_to_string(examples().join("smartlimiter.yaml"))
        .unwrap()
        .replace("{cpu}>0.8", "true");
    let (ok, text) = standalone.kubectl(&["apply", "-f", "-"], Some(&always));
    assert!(ok && text.contains("created"), "{text}");
    let table = standalone
        .until(&["get", "smartlimiters"], "15/1s per pod")
        .await;
    for want in [
        "NAME",
        "LIMIT",
        "STRATEGY",
        "STATE",
        "REASON",
        "AGE",
        "Limiting",
        "30/{pod} = 15 per pod with pod=2",
    ] {
        assert!(table.contains(want), "no {want} in {table}");
    }
    let yaml = standalone
        .until(&["get", "envoyfilters", "-o", "yaml"], "maxTokens: 7")
        .await;
    assert!(
        yaml.contains("name: a.default.ratelimit") && yaml.contains("ownerReferences"),
        "{yaml}"
    );
    let (ok, text) = standalone.kubectl(
        &["edit", "smartlimiters.microservice.netease.com", "a"],
        None,
    );
    assert!(ok && text.contains("edited"), "{text}");
    standalone
        .until(&["get", "envoyfilters", "-o", "yaml"], "maxTokens: 15")
        .await;
    let described = standalone
        .until(
            &["describe", "smartlimiters.microservice.netease.com", "a"],
            "60/{pod}",
        )
        .await;
    assert!(described.contains("MetricsAvailable"), "{described}");
    assert!(
        standalone
            .dir
            .join("out/default_a.default.ratelimit.envoyfilter.yaml")
            .exists()
    );
    let (ok, text) = standalone.kubectl(
        &["delete", "smartlimiters.microservice.netease.com", "a"],
        None,
    );
    assert!(ok, "{text}");
    standalone
        .until(&["get", "envoyfilters"], "No resources found")
        .await;
}

#[tokio::test]
async fn nonsense_is_refused_with_the_field() {
    let standalone = Standalone::start("nonsense").await;
    for (spec, want) in [
        (
            "{descriptors: [{condition: 'true', action: {quota: '1'}}]}",
            "spec.descriptors[0].action",
        ),
        ("{descriptors: []}", "spec.descriptors"),
        (
            "{descriptors: [{condition: '', action: {quota: '1', fill_interval: {seconds: 1}}}]}",
            "spec.descriptors[0].condition",
        ),
        (
            "{descriptors: [{condition: 'true', action: {quota: '1', fill_interval: {seconds: -1}}}]}",
            "fill_interval.seconds",
        ),
        (
            "{descriptors: [{condition: 'true', action: {quota: '1', strategy: magic, fill_interval: {seconds: 1}}}]}",
            "action.strategy",
        ),
        (
            "{descriptors: [{condition: 'true', action: {quota: '1', fill_interval: {seconds: 1}}}], mode: Maybe}",
            "spec.mode",
        ),
        (
            "{descriptors: [{condition: 'true', acton: {}, action: {quota: '1', fill_interval: {seconds: 1}}}]}",
            "acton",
        ),
    ] {
        let object = format!(
            "{{apiVersion: microservice.netease.com/v1alpha1, kind: SmartLimiter, metadata: {{name: x}}, spec: {spec}}}"
        );
        let (ok, text) = standalone.kubectl(&["apply", "-f", "-"], Some(&object));
        assert!(!ok && text.contains(want), "{spec}: {text}");
    }
}
