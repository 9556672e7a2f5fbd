//! Hot values over the real xDS server to a running Envoy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trimtab_crds::limiter::Delivery;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_limiter::input::{LimiterInput, Reading};
use trimtab_xds::{ECDS, ResourceCache};

use crate::cases::{self, Case};
use crate::lab::{BOUND, Driven, Mesh, Xds, acked, drive, folder, pod, resources, tally};

/// One limiter at the given load: `{cpu}>0.8` and a quota.
fn at_load(quota: &str, cpu: f64) -> LimiterInput {
    let mut input = cases::input("ecds-limiting");
    for descriptor in input.spec.sets.values_mut().flatten() {
        quota.clone_into(&mut descriptor.action.quota);
    }
    input
        .metrics
        .insert("_base.cpu".to_owned(), Reading::fresh(cpu));
    input
}

fn translated(input: LimiterInput, xds: &str) -> Case {
    Case::delivered_by(input, Delivery::Ecds, xds)
}

/// Publishes a changed input; the number of changes is what the cache says.
fn publish(cache: &ResourceCache, input: LimiterInput, xds: &str) -> usize {
    cache.update(ECDS, resources(&translated(input, xds).translation), &[])
}

fn server(driven: &Driven) -> (&ResourceCache, String) {
    let xds = driven.xds.as_ref().expect("ECDS");
    (&xds.cache, xds.address.to_string())
}

async fn burst(connection: &mut KeepAlive, n: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let status = connection
            .send(&Request::get("/"))
            .await
            .expect("the connection is kept")
            .status;
        *counts.entry(status).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_changed_quota_holds_on_an_open_connection_without_a_drain() {
    let driven = drive("ecds-change", at_load("3", 0.9), Delivery::Ecds).await;
    let (cache, address) = server(&driven);
    let mut deliveries = cache.deliveries();
    let mut held = KeepAlive::connect(driven.mesh.inbound).await.unwrap();
    assert_eq!(
        burst(&mut held, 5).await,
        BTreeMap::from([(200, 3), (429, 2)])
    );

    assert_eq!(publish(cache, at_load("6", 0.9), &address), 1);
    acked(&mut deliveries, 1).await;
    assert_eq!(
        burst(&mut held, 8).await,
        BTreeMap::from([(200, 6), (429, 2)])
    );

    assert_eq!(
        publish(cache, at_load("6", 0.95), &address),
        0,
        "another metric value, the same limit: nothing is sent"
    );
    assert_eq!(
        burst(&mut held, 2).await,
        BTreeMap::from([(429, 2)]),
        "and the bucket is not filled anew"
    );

    assert_eq!(
        publish(cache, at_load("6", 0.5), &address),
        1,
        "the condition does not hold any more"
    );
    acked(&mut deliveries, 1).await;
    assert_eq!(burst(&mut held, 50).await, BTreeMap::from([(200, 50)]));

    assert_eq!(publish(cache, at_load("2", 0.9), &address), 1);
    acked(&mut deliveries, 1).await;
    assert_eq!(
        burst(&mut held, 4).await,
        BTreeMap::from([(200, 2), (429, 2)])
    );

    assert!(held.survived().await, "the connection was never closed");
    let listener = "listener_manager";
    let drained = driven
        .envoy
        .stat(&format!("{listener}.total_listeners_draining"))
        .await
        .unwrap();
    let modified = driven
        .envoy
        .stat(&format!("{listener}.listener_modified"))
        .await
        .unwrap();
    assert_eq!((drained, modified), (0, 0));
    let connections = driven
        .envoy
        .stat("http.inbound_9080.downstream_cx_total")
        .await
        .unwrap();
    assert_eq!(connections, 1);
}

/// From the change in the cache to the first request that the new limit refuses, with requests on one connection.
#[tokio::test]
async fn the_time_from_a_change_to_its_effect_is_small() {
    let driven = drive("ecds-latency", at_load("1000000", 0.9), Delivery::Ecds).await;
    let (cache, address) = server(&driven);
    let mut held = KeepAlive::connect(driven.mesh.inbound).await.unwrap();
    let mut times = Vec::new();
    for round in 0..20 {
        assert_eq!(
            burst(&mut held, 5).await,
            BTreeMap::from([(200, 5)]),
            "round {round}"
        );
        let begin = Instant::now();
        assert_eq!(publish(cache, at_load("0", 0.9), &address), 1);
        while held.send(&Request::get("/")).await.unwrap().status == 200 {
            assert!(
                begin.elapsed() < BOUND,
                "round {round}: the limit never came"
            );
        }
        times.push(begin.elapsed());
        assert_eq!(publish(cache, at_load("1000000", 0.9), &address), 1);
        let begin = Instant::now();
        while held.send(&Request::get("/")).await.unwrap().status == 429 {
            assert!(
                begin.elapsed() < BOUND,
                "round {round}: the limit never went"
            );
        }
    }
    assert!(held.survived().await);
    times.sort();
    println!(
        "ECDS: from the change to the first refused request: median {:?}, worst {:?} of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
}

#[tokio::test]
async fn the_last_limit_stays_while_the_server_is_away() {
    let mut driven = drive("ecds-away", at_load("3", 0.9), Delivery::Ecds).await;
    let xds = driven.xds.take().expect("ECDS");
    let (cache, address) = (xds.cache.clone(), xds.address);
    assert_eq!(
        tally(driven.mesh.inbound, 5, &Request::get("/"), 429).await,
        (3, 2)
    );
    xds.stop().await;
    let connected = "control_plane.connected_state";
    wait_for("the proxy notices", || async {
        driven.envoy.stat(connected).await.unwrap() == 0
    })
    .await;
    assert_eq!(
        tally(driven.mesh.inbound, 2, &Request::get("/"), 429).await,
        (0, 2),
        "the last limit stays"
    );

    // Changed while away; the proxy gets it when the server is back.
    publish(&cache, at_load("5", 0.9), &address.to_string());
    let mut deliveries = cache.deliveries();
    let xds = Xds::start_at(cache, address).await;
    acked(&mut deliveries, 1).await;
    assert_eq!(
        tally(driven.mesh.inbound, 7, &Request::get("/"), 429).await,
        (5, 2)
    );
    xds.stop().await;
}

#[tokio::test]
async fn a_proxy_that_starts_while_trimtab_is_away_is_limited() {
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let address = trimtab_lab::ports::free_address().unwrap();
    let at = |quota, cpu| translated(at_load(quota, cpu), &address.to_string());
    let envoy = Envoy::start(
        &mesh.merged(&at("3", 0.9).envoy_filters()),
        &folder("ecds-late"),
    )
    .await
    .unwrap();
    assert_eq!(
        tally(mesh.inbound, 20, &Request::get("/"), 429).await,
        (3, 17),
        "by the default"
    );

    // Trimtab comes back, and has decided something else meanwhile.
    let cache = ResourceCache::new();
    cache.mark_ready();
    cache.update(ECDS, resources(&at("5", 0.9).translation), &[]);
    let mut deliveries = cache.deliveries();
    let xds = Xds::start_at(cache.clone(), address).await;
    acked(&mut deliveries, 1).await;
    assert_eq!(
        tally(mesh.inbound, 8, &Request::get("/"), 429).await,
        (5, 3),
        "by what is served"
    );
    cache.update(ECDS, resources(&at("5", 0.1).translation), &[]);
    acked(&mut deliveries, 1).await;
    assert_eq!(
        tally(mesh.inbound, 20, &Request::get("/"), 429).await,
        (20, 0),
        "no limit is served: the default does not come back"
    );
    xds.stop().await;
    let connected = "control_plane.connected_state";
    wait_for("the proxy notices", || async {
        envoy.stat(connected).await.unwrap() == 0
    })
    .await;
    assert_eq!(
        tally(mesh.inbound, 20, &Request::get("/"), 429).await,
        (20, 0),
        "nor when Trimtab is away again"
    );
}

#[tokio::test]
async fn a_proxy_without_a_decided_limit_serves_while_trimtab_is_away() {
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let case = translated(at_load("3", 0.1), &crate::lab::nowhere().to_string());
    let dir = folder("ecds-late-idle");
    let envoy = Envoy::start(&mesh.merged(&case.envoy_filters()), &dir).await;
    let _envoy = envoy.unwrap();
    assert_eq!(
        tally(mesh.inbound, 20, &Request::get("/"), 429).await,
        (20, 0)
    );
}

#[tokio::test]
async fn a_limiter_that_is_switched_on_and_off_never_touches_the_static_part() {
    let idle = cases::load("ecds-idle");
    let mut input = cases::input("ecds-limiting");
    // Defaults follow seldom: the engine keeps what the objects have.
    input.defaults = Some(BTreeMap::new());
    let limiting = Case::of(input);
    assert_eq!(idle.envoy_filters(), limiting.envoy_filters());
    let live = |case: &Case| {
        case.translation
            .extension_configs
            .iter()
            .map(|c| c.live)
            .sum::<usize>()
    };
    assert_eq!((live(&idle), live(&limiting)), (0, 1));
}

async fn wait_for<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < BOUND, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
