//! What a decided limit becomes in a proxy, and what a real Envoy makes of it.
//!
//! `golden/actuators.json` has each configuration; `UPDATE_EXPECT=1` writes it anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use expect_test::expect_file;
use futures::future::join_all;
use serde_json::{Value, json};
use trimtab_lab::envoy::{self, Envoy};
use trimtab_lab::http::{Request, send};
use trimtab_lab::load::burst;
use trimtab_lab::ports::free_address;
use trimtab_lab::workers::{Pool, PoolSpec};
use trimtab_limiter::translate::actuator::{Aim, Facilities, Filter, Kind, actuator};
use trimtab_limiter::translate::cluster_share::{Share, share};
use trimtab_tests::mesh::{Listener, LocalCluster, Proxy};

use crate::lab::{LOCAL_RATE_LIMIT, folder, nowhere};

const MODERN: Facilities = Facilities {
    ecds: true,
    adaptive_concurrency: true,
    envoy: Some((1, 40)),
};
/// Before the time of an answer could be pinned.
const OLD: Facilities = Facilities {
    envoy: Some((1, 33)),
    ..MODERN
};

fn proxy(listen: SocketAddr, upstream: SocketAddr) -> Proxy {
    Proxy::new(
        "reviews-1.default",
        "default",
        &BTreeMap::new(),
        free_address().unwrap(),
    )
    .listener(Listener::inbound(9080, listen, upstream))
}

/// The bootstrap with a filter in front of the router.
fn with_filter(proxy: &Proxy, filter: &Value) -> Value {
    let mut config = proxy.bootstrap();
    let filters = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
        ["typed_config"]["http_filters"];
    let filters = filters.as_array_mut().unwrap();
    filters.insert(0, json!({"name": "limit", "typed_config": filter}));
    config
}

async fn start(proxy: &Proxy, filter: &Value, name: &str) -> Envoy {
    Envoy::start(&with_filter(proxy, filter), &folder(name))
        .await
        .unwrap()
}

fn aim(per_pod: Option<f64>, bucket_s: f64, service_s: Option<f64>) -> Aim {
    Aim {
        per_pod,
        bucket_s,
        service_s,
        slo_s: 1.0,
    }
}

#[test]
fn golden_configurations_are_what_envoy_takes() {
    let aims = [
        aim(None, 1.0, None),
        aim(Some(80.0), 0.1, None),
        aim(Some(80.0), 0.1, Some(0.1)),
        aim(Some(0.4), 1.0, Some(2.0)),
        aim(Some(25_000.0), 0.45, Some(0.002)),
        aim(Some(0.0), 0.1, Some(0.1)),
    ];
    let kinds = [
        (Kind::EcdsBucket, MODERN),
        (Kind::EnvoyFilterBucket, MODERN),
        (Kind::ConcurrencyBounds, MODERN),
        (Kind::ConcurrencyBounds, OLD),
    ];
    let mut cases = Vec::new();
    for (kind, facilities) in kinds {
        for aim in &aims {
            let filter: Filter = actuator(kind, &facilities).filter(aim);
            let config = with_filter(&proxy(nowhere(), nowhere()), &filter.typed());
            if let Err(reason) = envoy::validate(&config) {
                panic!("{kind:?} {aim:?}: {reason}");
            }
            cases.push(json!({
                "actuator": kind.name(),
                "envoy": facilities.envoy.map(|(major, minor)| format!("{major}.{minor}")),
                "perPod": aim.per_pod, "bucketSeconds": aim.bucket_s, "serviceSeconds": aim.service_s,
                "filter": filter.typed(),
            }));
        }
    }
    let text = serde_json::to_string_pretty(&cases).unwrap() + "\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/actuators.json");
    expect_file![file].assert_eq(&text);
}

#[tokio::test]
async fn a_pod_gets_as_many_requests_at_once_as_the_lower_bound_says() {
    let (workers, service) = (2, Duration::from_millis(400));
    let spec = PoolSpec {
        pod: "reviews-1".to_owned(),
        workers,
        service,
    };
    let pool = Pool::start(free_address().unwrap(), spec).await.unwrap();
    let listen = free_address().unwrap();
    let service_s = service.as_secs_f64();
    // Two at once are four in the pod, so that no worker waits.
    let bounds = aim(Some(workers as f64 / service_s), 0.1, Some(service_s));
    let filter = actuator(Kind::ConcurrencyBounds, &MODERN).filter(&bounds);
    let _envoy = start(&proxy(listen, pool.address()), &filter.typed(), "bounds").await;
    let request = Request::get("/");
    let answers = join_all((0..10).map(|_| send(listen, &request))).await;
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.unwrap().status).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(200, 4), (429, 6)]));
    assert_eq!(pool.done(), 4);
}

/// A bucket of `tokens` that the proxies of a cluster with `members` members share by themselves.
async fn shared(tokens: u32, members: usize, name: &str) -> BTreeMap<u16, usize> {
    let spec = PoolSpec {
        pod: "reviews-1".to_owned(),
        workers: 8,
        service: Duration::from_millis(1),
    };
    let pool = Pool::start(free_address().unwrap(), spec).await.unwrap();
    let listen = free_address().unwrap();
    let mut proxy = proxy(listen, pool.address());
    let others = (1..members).map(|_| free_address().unwrap());
    proxy.local_cluster = Some(LocalCluster {
        name: "reviews".to_owned(),
        members: std::iter::once(listen).chain(others).collect(),
    });
    let full = json!({"default_value": {"numerator": 100}});
    let filter = json!({
        "@type": LOCAL_RATE_LIMIT, "stat_prefix": "shared", "filter_enabled": full, "filter_enforced": full,
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "600s"},
        "local_cluster_rate_limit": {},
    });
    let _envoy = start(&proxy, &filter, name).await;
    burst(listen, 8, &Request::get("/")).await.unwrap()
}

#[tokio::test]
async fn a_cluster_with_more_members_than_tokens_refuses_everything_and_the_guard_knows() {
    let trap = shared(3, 5, "share-trap").await;
    assert_eq!(trap, BTreeMap::from([(429, 8)]), "not even one passes");
    let Share::ByArithmetic(why) = share(Some("reviews"), 3, 5) else {
        panic!("the guard let it pass");
    };
    assert!(why.contains("3 tokens for 5 members"), "{why}");

    let fine = shared(10, 5, "share-fine").await;
    assert_eq!(share(Some("reviews"), 10, 5), Share::ByProxy);
    assert_eq!(fine, BTreeMap::from([(200, 2), (429, 6)]));
}

#[test]
fn envoy_takes_no_shared_bucket_without_a_local_cluster_and_neither_does_the_guard() {
    let filter = json!({
        "@type": LOCAL_RATE_LIMIT, "stat_prefix": "shared",
        "token_bucket": {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "60s"},
        "local_cluster_rate_limit": {},
    });
    let reason = envoy::validate(&with_filter(&proxy(nowhere(), nowhere()), &filter)).unwrap_err();
    assert!(reason.contains("no local cluster name"), "{reason}");
    let Share::ByArithmetic(why) = share(None, 10, 1) else {
        panic!("the guard let it pass");
    };
    assert!(why.contains("local_cluster_name"), "{why}");
}
