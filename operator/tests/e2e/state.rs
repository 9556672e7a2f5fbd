//! `run --standalone`: what is in force survives a restart, and metrics of the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trimtab::state::Statuses;
use trimtab_crds::limiter::LimiterStatus;
use trimtab_lab::http::get;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, Dial, bucket, folder, mesh, operator, status, status_where};

#[tokio::test]
async fn fault_o7_the_last_decision_is_there_after_a_restart_without_metrics() {
    let file = folder("state-decision").join("kept.json");
    let settings = "limiter: {refresh: 100ms, holdFor: 1s}";
    let (before, dial) = (mesh(true), Dial::default());
    dial.set(0.85);
    let running = operator(&before, &dial, settings).await;
    bucket(&before, Some(15)).await;
    let limiting = |s: &LimiterStatus| s.state.as_deref() == Some("Limiting");
    let settled = status_where(&before, "limiting", limiting).await;
    let mut statuses = Statuses::new(file.clone(), before.clone());
    statuses.save().await.unwrap();
    running.stop().await.unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let after = mesh(true);
    assert_eq!(status(&after).await, LimiterStatus::default());
    Statuses::new(file.clone(), after.clone())
        .restore()
        .await
        .unwrap();
    assert_eq!(status(&after).await.limit, settled.limit);
    dial.set(None);
    let running = operator(&after, &dial, settings).await;
    bucket(&after, Some(15)).await;
    let kept = status_where(&after, "fallback", |s| {
        s.state.as_deref() == Some("Fallback")
    })
    .await;
    assert_eq!(kept.limit, settled.limit);
    bucket(&after, Some(15)).await;
    dial.set(0.2);
    bucket(&after, None).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn fault_o7_what_a_fence_has_learned_is_kept_and_what_is_gone_is_not() {
    let file = folder("state-fence").join("kept.json");
    let fence = |name: &str, learned: bool| {
        let mut fence = serde_json::json!({
            "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"enable": true},
        });
        if learned {
            fence["status"] = serde_json::json!({"dependencies": [{"host": "b.default.svc.cluster.local", "caller": name, "evidence": ["AccessLog"]}]});
        }
        fence
    };
    let before = mesh(false);
    for name in ["a", "gone"] {
        before.load(fence(name, true)).unwrap();
    }
    let mut statuses = Statuses::new(file.clone(), before.clone());
    statuses.save().await.unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    statuses.save().await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        written,
        "written again"
    );

    let after = mesh(false);
    after.load(fence("a", false)).unwrap();
    Statuses::new(file.clone(), after.clone())
        .restore()
        .await
        .unwrap();
    let stored = after.load(fence("a", false)).unwrap();
    assert_eq!(stored["status"]["dependencies"][0]["caller"], "a");
    std::fs::write(&file, "{}").unwrap();
    let error = Statuses::new(file, after).restore().await.unwrap_err();
    assert!(format!("{error:#}").contains("remove it, or choose another with --state"));
}

/// `run --standalone` on a folder with the quickstart's objects.
struct Run {
    http: SocketAddr,
    dir: PathBuf,
    process: Process,
}

impl Run {
    fn start(name: &str, more: &[&str]) -> Self {
        let dir = folder(name);
        std::fs::create_dir(dir.join("in")).unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
        for entry in std::fs::read_dir(examples).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, dir.join("in").join(from.file_name().unwrap())).unwrap();
        }
        let (http, xds) = (free_address().unwrap(), free_address().unwrap());
        let text = format!(
            "{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}, limiter: {{refresh: 200ms}}, lazyload: {{enabled: false}}, metrics: {{prometheus: {{address: 'http://127.0.0.1:9', handlers: {{cpu: {{query: up}}}}}}}}}}"
        );
        std::fs::write(dir.join("config.yaml"), text).unwrap();
        let process = Self::process(&dir, more);
        Self { http, dir, process }
    }

    fn process(dir: &Path, more: &[&str]) -> Process {
        let mut args: Vec<OsString> = vec!["run".into()];
        for (option, file) in [
            ("--config", "config.yaml"),
            ("--standalone", "in"),
            ("--out", "out"),
        ] {
            args.extend([option.into(), dir.join(file).into_os_string()]);
        }
        args.extend(more.iter().map(Into::into));
        Process::start(Spec {
            name: "trimtab".to_owned(),
            program: crate::support::trimtab(),
            args,
            log: dir.join("log"),
        })
        .unwrap()
    }

    async fn limiter(&self) -> Result<Value, String> {
        let text = get(self.http, "/api/v1/limiters").await;
        let text = text.map_err(|e| e.to_string())?;
        let mut json: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let first = json["items"].get_mut(0);
        Ok(first.map(Value::take).unwrap_or_default())
    }

    async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) {
        wait_until(what, BOUND, || async {
            let limiter = self.limiter().await?;
            if good(&limiter) {
                Ok(())
            } else {
                Err(limiter.to_string())
            }
        })
        .await
        .unwrap();
    }

    async fn until_out(&self, files: usize) {
        wait_until("the outputs", BOUND, || async {
            let found = std::fs::read_dir(self.dir.join("out")).map_err(|e| e.to_string())?;
            let names: Vec<_> = found.map(|e| e.unwrap().file_name()).collect();
            if names.len() == files {
                Ok(())
            } else {
                Err(format!("{names:?}"))
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn fault_o15_a_metric_of_the_command_line_and_fault_o7_kill_9() {
    let mut run = Run::start("state-run", &["--metric", "cpu=0.95"]);
    run.until("limiting", |l| l["state"] == "Limiting").await;
    run.until_out(1).await;
    let kept = run.dir.join("out.state.json");
    wait_until("the state file", BOUND, || async {
        let text = std::fs::read_to_string(&kept).map_err(|e| e.to_string())?;
        if text.contains("Limiting") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await
    .unwrap();
    run.process.kill();
    // The limit is in force again although Prometheus does not answer; its file was never away.
    run.process = Run::process(&run.dir, &[]);
    run.until("the last decision", |l| {
        ["Held", "Fallback"].iter().any(|s| l["state"] == *s)
    })
    .await;
    run.until_out(1).await;
    run.process.kill();
    std::fs::remove_dir_all(&run.dir).unwrap();
}

#[tokio::test]
async fn fault_o4_the_process_answers_whatever_is_in_the_folder() {
    let mut run = Run::start("state-fifo", &["--metric", "cpu=0.95"]);
    run.until("limiting", |l| l["state"] == "Limiting").await;
    let input = run.dir.join("in");
    let fifo = Command::new("mkfifo").arg(input.join("f.yaml")).status();
    assert!(fifo.unwrap().success());
    for name in ["a", "b"] {
        std::os::unix::fs::symlink(".", input.join(name)).unwrap();
    }
    let fifo = input.join("f.yaml").display().to_string();
    wait_until("the warning", BOUND, || async {
        let log = std::fs::read_to_string(run.dir.join("log")).map_err(|e| e.to_string())?;
        if log.contains(&fifo) && log.contains("leads to a folder") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await
    .unwrap();
    // Edits count, and mistakes are at /readyz.
    for entry in std::fs::read_dir(&input).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file()
            && std::fs::read_to_string(&path)
                .unwrap()
                .contains("SmartLimiter")
        {
            std::fs::copy(&path, input.join("copy.yaml")).unwrap();
        }
    }
    wait_until("the copy is refused", BOUND, || async {
        let text = get(run.http, "/readyz").await.map_err(|e| e.to_string())?;
        let told = text.contains("degraded: folder: ") && text.contains("remove one of them");
        if told { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
    std::fs::remove_file(input.join("copy.yaml")).unwrap();
    wait_until("nothing is wrong", BOUND, || async {
        let text = get(run.http, "/readyz").await.map_err(|e| e.to_string())?;
        if text == "ok\n" { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
    run.process.kill();
    std::fs::remove_dir_all(&run.dir).unwrap();
}
