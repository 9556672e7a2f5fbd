//! kill -9 of Trimtab: after a restart the state is the same and nothing is written.

use std::ffi::OsString;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};
use trimtab_lab::prometheus::{Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};

use crate::support::{BOUND, bucket, filters, folder, mesh, status_where, trimtab};

#[tokio::test]
async fn state_survives_kill_9_of_trimtab_and_of_prometheus() {
    let dir = folder("crash");
    let pod = PodSpec {
        namespace: "default".to_owned(),
        pod: "a-0".to_owned(),
        capacity: 1.0,
    };
    let upstream = Upstream::start(free_address().unwrap(), pod, Clock::real())
        .await
        .unwrap();
    let mut prometheus = Prometheus::start(
        &dir.join("prometheus"),
        Duration::from_secs(1),
        &[Target::new(upstream.address(), METRICS_PATH)],
    )
    .await
    .unwrap();
    let embedded = mesh(true);
    let shutdown = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    tokio::spawn({
        let (embedded, shutdown) = (embedded.clone(), shutdown.clone());
        async move { embedded.serve(listener, shutdown).await }
    });
    let http = free_address().unwrap();
    let xds = free_address().unwrap();
    let config = dir.join("config.yaml");
    let text = format!(
        "{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}, limiter: {{refresh: 200ms, holdFor: 1h}}, metrics: {{prometheus: {{address: '{}', timeout: 1s, handlers: {{cpu: {{query: 'max(workload_cpu_ratio) * 0 + 0.9'}}}}}}}}}}",
        prometheus.url()
    );
    std::fs::write(&config, text).unwrap();
    let kubeconfig = dir.join("kubeconfig");
    let cluster = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}]}}"
    );
    std::fs::write(&kubeconfig, cluster).unwrap();
    let args: Vec<OsString> = vec![
        format!("KUBECONFIG={}", kubeconfig.display()).into(),
        trimtab().into_os_string(),
        "run".into(),
        "--config".into(),
        config.into_os_string(),
    ];
    let mut process = Process::start(Spec {
        name: "trimtab".to_owned(),
        program: "/usr/bin/env".into(),
        args,
        log: dir.join("log"),
    })
    .unwrap();
    bucket(&embedded, Some(15)).await;
    let settled = status_where(&embedded, "limiting", |s| {
        s.state.as_deref() == Some("Limiting")
    })
    .await;
    let filter = filters(&embedded).await.remove(0);

    // Trimtab alone: nothing changes, nothing is written.
    let writes = embedded.write_count();
    process.kill();
    process.restart().unwrap();
    let ready = || async {
        trimtab_lab::http::get(http, "/readyz")
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    };
    process.wait_ready(BOUND, ready).await.unwrap();
    wait_until("a decision on a fresh metric", BOUND, || async {
        let text = trimtab_lab::http::get(http, "/api/v1/limiters")
            .await
            .map_err(|e| e.to_string())?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let (state, cpu) = (
            &json["items"][0]["state"],
            &json["items"][0]["metrics"]["_base.cpu"]["value"],
        );
        if state == "Limiting" && cpu == 0.9 {
            Ok(())
        } else {
            Err(format!("{state} {cpu}"))
        }
    })
    .await
    .unwrap();
    assert_eq!(embedded.write_count(), writes, "a restart wrote objects");
    assert_eq!(filters(&embedded).await.remove(0), filter);

    // Trimtab and Prometheus: the last decision holds, the limit in force is not taken away for a moment.
    prometheus.kill();
    process.kill();
    process.restart().unwrap();
    process.wait_ready(BOUND, ready).await.unwrap();
    let held = status_where(&embedded, "held", |s| s.state.as_deref() == Some("Held")).await;
    assert_eq!(held.limit, settled.limit);
    assert_eq!(filters(&embedded).await.remove(0), filter);
    prometheus.restart().await.unwrap();
    status_where(&embedded, "limiting again", |s| {
        s.state.as_deref() == Some("Limiting")
    })
    .await;
    assert_eq!(
        filters(&embedded).await.remove(0),
        filter,
        "the EnvoyFilter was never touched"
    );
    shutdown.cancel();
    process.kill();
    let _ = std::fs::remove_dir_all(dir);
}
