//! A plain Envoy from `trimtab bootstrap` at `trimtab run --standalone` with the example's folder.

use std::path::Path;
use std::process::Command;

use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request, get, send};
use trimtab_lab::ports::{free_address, loopback};
use trimtab_lab::process::{Process, Spec, wait_until};
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};

use crate::support::{BOUND, folder, trimtab};

async fn version(name: &str) -> Upstream {
    let spec = PodSpec {
        namespace: "default".to_owned(),
        pod: name.to_owned(),
        capacity: 1e6,
    };
    Upstream::start(free_address().unwrap(), spec, Clock::real())
        .await
        .unwrap()
}

/// Sends until an answer is as wanted.
async fn until(held: &mut KeepAlive, what: &str, wanted: impl Fn(u16, &str) -> bool) {
    let held = tokio::sync::Mutex::new(held);
    wait_until(what, BOUND, || async {
        let answer = held.lock().await.send(&Request::get("/")).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if wanted(answer.status, answer.body.trim()) {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.body))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_plain_envoy_follows_the_files_of_a_folder() {
    let dir = folder("standalone-envoy");
    let input = dir.join("in");
    std::fs::create_dir_all(&input).unwrap();
    let (v1, v2) = (version("v1").await, version("v2").await);
    let [http, xds, listen, thrift, admin] = std::array::from_fn(|_| free_address().unwrap());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/standalone");
    let put = |file: &str, edit: (&str, &str)| {
        let mut text = std::fs::read_to_string(examples.join(file)).unwrap();
        for (example, here) in [
            ("10080", listen.port()),
            ("10090", thrift.port()),
            ("9081", v1.address().port()),
            ("9082", v2.address().port()),
        ] {
            text = text.replace(&format!(": {example}}}"), &format!(": {here}}}"));
            text = text.replace(&format!(": {example},"), &format!(": {here},"));
        }
        std::fs::write(input.join(file), text.replace(edit.0, edit.1)).unwrap();
    };
    for file in ["reviews.yaml", "routes.yaml", "thrift.yaml"] {
        put(file, ("", ""));
    }
    let config = dir.join("config.yaml");
    let text = format!(
        "{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}, limiter: {{refresh: 200ms}}}}"
    );
    std::fs::write(&config, text).unwrap();
    let mut server = Process::start(Spec {
        name: "trimtab".to_owned(),
        program: trimtab(),
        args: vec![
            "run".into(),
            "--config".into(),
            config.into(),
            "--standalone".into(),
            input.clone().into(),
        ],
        log: dir.join("log"),
    })
    .unwrap();
    let ready = || async move {
        get(http, "/readyz")
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    };
    server.wait_ready(BOUND, ready).await.unwrap();

    let (xds, admin) = (xds.to_string(), admin.to_string());
    let output = Command::new(trimtab())
        .args(["bootstrap", "--node", "p", "--xds", &xds, "--admin", &admin])
        .output()
        .unwrap();
    let bootstrap = serde_json::from_slice(&output.stdout).unwrap();
    let envoy = Envoy::start(&bootstrap, &dir).await.unwrap();
    let mut held = wait_until("the listener", BOUND, || async {
        let connected = KeepAlive::connect(loopback(listen.port())).await;
        connected.map_err(|e| e.to_string())
    })
    .await
    .unwrap();
    until(&mut held, "version 1", |s, body| s == 200 && body == "v1").await;
    KeepAlive::connect(thrift)
        .await
        .expect("the Thrift listener");

    put("routes.yaml", ("subset: v1", "subset: v2"));
    until(&mut held, "version 2", |s, body| s == 200 && body == "v2").await;

    assert!(held.survived().await, "the open connection was drained");

    put("limiter.yaml", ("", ""));
    wait_until("the limit", BOUND, || async {
        let answer = send(listen, &Request::get("/")).await;
        match answer.map_err(|e| e.to_string())?.status {
            429 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await
    .unwrap();
    drop(envoy);
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn files_of_tls_come_together() {
    let args = ["bootstrap", "--node", "p", "--xds", "h:1", "--ca", "ca.pem"];
    let output = Command::new(trimtab()).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("--cert") && text.contains("--key"), "{text}");
}
