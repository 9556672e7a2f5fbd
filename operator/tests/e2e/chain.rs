//! The whole chain over ECDS: a metric changes, a real Envoy has the new limit, an open connection survives.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use trimtab::config::Config;
use trimtab_dataplane::module::Proxies;
use trimtab_dataplane::{BootstrapOptions, Listen, bootstrap};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request, send};
use trimtab_lab::ports::{free_address, free_port, loopback};
use trimtab_lab::process::wait_until;
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};

use crate::support::{BOUND, Dial, config, filters, folder, mesh, start};

/// The Service's port.
const PORT: u16 = 80;

fn request() -> Request {
    Request::get("/").header("host", "a")
}

/// Refusals among 40 requests.
async fn refusals(listen: SocketAddr) -> Result<usize, String> {
    let mut refused = 0;
    for _ in 0..40 {
        let answer = send(listen, &request()).await;
        refused += usize::from(answer.map_err(|e| e.to_string())?.status == 429);
    }
    Ok(refused)
}

#[tokio::test]
async fn a_metric_reaches_envoy_without_a_drain_and_survives_kill_9_of_envoy() {
    let dir = folder("chain");
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.5);
    let pod = PodSpec {
        namespace: "default".to_owned(),
        pod: "a-0".to_owned(),
        capacity: 1e6,
    };
    let upstream = Upstream::start(free_address().unwrap(), pod, Clock::real())
        .await
        .unwrap();
    embedded
        .load(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "a", "namespace": "default", "labels": {"kubernetes.io/service-name": "a"}},
            "ports": [{"name": "http", "port": upstream.address().port()}],
            "endpoints": [{"addresses": [upstream.address().ip()]}]}))
        .unwrap();
    let listen = loopback(free_port().unwrap());
    let config = Config {
        data_plane: Some(Proxies {
            listen: Listen::Address {
                address: Ipv4Addr::LOCALHOST.into(),
                port_offset: listen.port() - PORT,
            },
            fallback: None,
        }),
        ..config("limiter: {refresh: 100ms, delivery: ECDS}")
    };
    let operator = start(&embedded, &dial, config).await;
    wait_until("the static EnvoyFilter", BOUND, || async {
        filters(&embedded)
            .await
            .pop()
            .ok_or_else(|| "none".to_owned())
    })
    .await
    .unwrap();

    let options = BootstrapOptions {
        admin: free_address().unwrap(),
        ..BootstrapOptions::new("a-0", operator.xds.to_string().parse().unwrap())
    };
    let mut envoy = Envoy::start(&bootstrap(&options), &dir).await.unwrap();
    wait_until("the limit's filter", BOUND, || async {
        let config = envoy.config_dump().await.map_err(|e| e.to_string())?;
        let found = config.to_string().contains("config_discovery");
        Some(())
            .filter(|()| found)
            .ok_or_else(|| "not there".to_owned())
    })
    .await
    .unwrap();

    let mut held = KeepAlive::connect(listen).await.unwrap();
    for _ in 0..50 {
        assert_eq!(
            held.send(&request()).await.unwrap().status,
            200,
            "no limit while the condition does not hold"
        );
    }
    let writes = embedded.writes("envoyfilters", "patch");
    let start = Instant::now();
    dial.set(0.85);
    let mut passed = 0;
    while held.send(&request()).await.unwrap().status == 200 {
        passed += 1;
        assert!(
            start.elapsed() < BOUND,
            "no refusal after {passed} requests"
        );
    }
    println!(
        "from the metric's change to the first refusal (100 ms period, 15 tokens): {} ms",
        start.elapsed().as_millis()
    );
    assert!(held.survived().await, "the open connection was drained");
    assert_eq!(
        embedded.writes("envoyfilters", "patch"),
        writes,
        "a hot change wrote an EnvoyFilter"
    );
    assert_eq!(
        envoy
            .stat(&format!(
                "http.127.0.0.1_{}.downstream_cx_drain_close",
                listen.port()
            ))
            .await
            .unwrap_or(0),
        0
    );

    dial.set(0.5);
    wait_until("the limit is off", BOUND, || async {
        let refused = refusals(listen).await?;
        if refused == 0 {
            Ok(())
        } else {
            Err(format!("{refused} refused"))
        }
    })
    .await
    .unwrap();
    assert!(held.survived().await);

    dial.set(0.85);
    envoy.kill();
    envoy.restart().await.unwrap();
    wait_until("the limit is in force in the new Envoy", BOUND, || async {
        let refused = refusals(listen).await?;
        if refused > 0 {
            Ok(())
        } else {
            Err("no refusal".to_owned())
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
    // Without Trimtab the last limit stays.
    let mut codes = Vec::new();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until && !codes.contains(&429) {
        codes.push(send(listen, &request()).await.unwrap().status);
    }
    assert!(codes.contains(&429), "the limit went away with Trimtab");
    let _ = std::fs::remove_dir_all(dir);
}
