//! What the operator makes of the entries that the fallback's Envoy sends.

use kube::Api;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::istio::Sidecar;
use trimtab_embedded::Embedded;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;
use trimtab_lazyload::config::AccessLog;
use trimtab_lazyload::fallback::FallbackInput;
use trimtab_lazyload::module::Lazyload;
use trimtab_metaprotocol::module::Metaprotocol;

use crate::caller::{ALLOW_ANY, Caller, Fallback, POD, options};
use crate::collector::BOUND;
use crate::servers::Echo;
use crate::streams::hello;

/// A pod with the caller's address, its fence, and an external host that nothing knows by address.
fn mesh() -> Embedded {
    let api = standalone::embedded().unwrap();
    api.ensure_namespace("shop").unwrap();
    for object in [
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
            "status": {"phase": "Running", "podIP": POD.to_string(), "podIPs": [{"ip": POD.to_string()}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"hosts": ["db.example.com"], "resolution": "DNS", "location": "MESH_EXTERNAL",
                "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]}}),
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"enable": true}}),
    ] {
        api.load(object).unwrap();
    }
    api
}

async fn hosts(api: &Api<Sidecar>) -> Result<Vec<String>, String> {
    let sidecar = api.get_opt("web").await.map_err(|e| e.to_string())?;
    let egress = sidecar.ok_or("no Sidecar")?.spec.egress;
    Ok(egress.into_iter().flat_map(|e| e.hosts).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_passes_teaches_its_server_name() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let embedded = mesh();
    let logs = free_address().unwrap();
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Metaprotocol>(|c| c.enabled = false);
    config.edit::<Lazyload>(|c| {
        c.fallback.enabled = false;
        c.learn.access_log = Some(AccessLog {
            address: logs,
            trusted: vec!["127.0.0.0/8".parse().unwrap()],
            ..AccessLog::default()
        });
    });
    let operator = Operator::start(config, embedded.client(), CancellationToken::new());
    let _operator = operator.await.unwrap();
    let sidecars: Api<Sidecar> = Api::namespaced(embedded.client(), "shop");
    let name = "shop/db.example.com".to_owned();
    wait_until("a Sidecar without the host", BOUND, || async {
        let hosts = hosts(&sidecars).await?;
        assert!(!hosts.contains(&name), "nobody has called it: {hosts:?}");
        Ok(())
    })
    .await
    .unwrap();

    let mut proxy = options(None);
    proxy.access_log = logs.to_string();
    let fallback = Fallback::start("learned-fallback", proxy).await;
    let mut input = FallbackInput::default();
    input.config.fallback.tcp = true;
    let caller = Caller::start("learned", &input, ALLOW_ANY, &[&fallback.options]).await;
    let server = Echo::start().await;
    let hello = hello("db.example.com");
    let mut stream = caller.tcp(server.address).await;
    stream.write_all(&hello).await.unwrap();
    let mut back = vec![0; hello.len()];
    let read = tokio::time::timeout(BOUND, stream.read_exact(&mut back));
    read.await.unwrap().unwrap();
    assert_eq!(back, hello);
    wait_until("the host in scope", BOUND, || async {
        let hosts = hosts(&sidecars).await?;
        if hosts.contains(&name) {
            Ok(())
        } else {
            Err(format!("{hosts:?}"))
        }
    })
    .await
    .unwrap();
}
