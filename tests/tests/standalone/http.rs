//! HTTP services through a proxy that gets everything from Trimtab.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_types::pb::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use envoy_types::pb::google::protobuf::{Any, Duration as Span, UInt32Value};
use prost::Message;
use serde_json::{Value, json};
use trimtab_dataplane::{HttpLimit, limits};
use trimtab_lab::http::{KeepAlive, Request, send};
use trimtab_lab::ports::{free_address, free_port, loopback};
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};
use trimtab_limiter::decide::decide;
use trimtab_limiter::input::LimiterInput;
use trimtab_limiter::translate::translate;
use trimtab_limiter::validate::validate_for;
use trimtab_xds::{ECDS, EDS, Resource, content_version};

use crate::cases::Case;
use crate::lab::{Fixture, until};

const HOST: &str = "reviews.shop.svc.cluster.local";

/// A server of HTTP that answers with its name.
pub(crate) async fn pod(name: &str) -> Upstream {
    let spec = PodSpec {
        namespace: "shop".into(),
        pod: name.into(),
        capacity: 1000.0,
    };
    let at = free_address().expect("a port");
    Upstream::start(at, spec, Clock::real())
        .await
        .expect("a pod")
}

fn service(port: u16) -> Value {
    json!({"kind": "Service", "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": port}]}})
}

/// The endpoints of a version.
fn slice(version: &str, pods: &[&Upstream]) -> Value {
    let at: Vec<SocketAddr> = pods.iter().map(|p| p.address()).collect();
    endpoints("reviews", "http", version, &at)
}

/// An EndpointSlice for each address, as each has a port of its own.
pub(crate) fn endpoints(service: &str, port: &str, version: &str, at: &[SocketAddr]) -> Value {
    let one = |a: &SocketAddr| {
        json!({"kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-{version}-{}", a.port()), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": service, "version": version}},
            "ports": [{"name": port, "port": a.port()}],
            "endpoints": [{"addresses": [a.ip().to_string()]}]})
    };
    at.iter().map(one).collect()
}

/// Objects, where lists of them are taken apart.
pub(crate) fn case(objects: Vec<Value>) -> Case {
    let flat = objects.into_iter().flat_map(|o| match o {
        Value::Array(list) => list,
        one => vec![one],
    });
    Case {
        objects: flat.collect(),
        ..Case::default()
    }
}

fn rule() -> Value {
    json!({"kind": "DestinationRule", "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"host": HOST, "subsets": [
            {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}})
}

fn split(v1: u32, v2: u32) -> Value {
    let to = |subset: &str, weight| json!({"destination": {"host": HOST, "subset": subset}, "weight": weight});
    json!({"kind": "VirtualService", "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": [HOST], "http": [{"route": [to("v1", v1), to("v2", v2)]}]}})
}

/// How often each answer came.
async fn tally(connection: &mut KeepAlive, n: usize) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for _ in 0..n {
        let answer = connection
            .send(&Request::get("/"))
            .await
            .expect("an answer");
        let key = if answer.status == 200 {
            answer.body.trim().to_owned()
        } else {
            answer.status.to_string()
        };
        *out.entry(key).or_default() += 1;
    }
    out
}

fn all_of(name: &str, n: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(name.to_owned(), n)])
}

#[tokio::test]
async fn an_endpoint_comes_and_another_goes_without_a_failed_call() {
    let (a, b) = (pod("a").await, pod("b").await);
    let port = free_port().expect("a port");
    let only = |pods: &[&Upstream]| case(vec![service(port), slice("v1", pods)]);
    let mut fixture = Fixture::start("endpoints", &only(&[&a]).served(None)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut connection = KeepAlive::connect(loopback(port)).await.expect("the proxy");
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match connection.send(&Request::get("/")).await {
                        Ok(answer) if answer.status == 200 => good += 1,
                        other => bad.push(format!("{other:?}")),
                    }
                }
                (good, bad)
            })
        })
        .collect();
    until("calls reach the first", || a.requests() > 100).await;
    let next = only(&[&a, &b]).served(Some(fixture.served()));
    fixture.publish(next).await;
    until("calls reach the second", || b.requests() > 100).await;
    let next = only(&[&b]).served(Some(fixture.served()));
    fixture.publish(next).await;
    // What is under way is finished; then nothing comes any more.
    let own = format!("outbound|{port}||{HOST}");
    fixture.until_held(EDS, &own).await;
    let more = b.requests() + 100;
    until("the second has all", || b.requests() > more).await;
    let (last, more) = (a.requests(), b.requests() + 200);
    drop(a);
    until("and goes on", || b.requests() > more).await;
    stop.store(true, Ordering::Relaxed);
    assert!(last > 100);
    for caller in callers {
        let (good, bad) = caller.await.expect("no panic");
        assert!(bad.is_empty(), "{bad:?}");
        assert!(good > 50, "{good} calls");
    }
}

#[tokio::test]
async fn a_changed_weight_moves_calls_on_an_open_connection() {
    let (a, b) = (pod("a").await, pod("b").await);
    let port = free_port().expect("a port");
    let at = |v1, v2| {
        case(vec![
            service(port),
            slice("v1", &[&a]),
            slice("v2", &[&b]),
            rule(),
            split(v1, v2),
        ])
    };
    let mut fixture = Fixture::start("weights", &at(100, 0).served(None)).await;
    let mut held = KeepAlive::connect(loopback(port)).await.expect("the proxy");
    assert_eq!(tally(&mut held, 50).await, all_of("a", 50));
    let next = at(0, 100).served(Some(fixture.served()));
    fixture.publish(next).await;
    assert_eq!(tally(&mut held, 50).await, all_of("b", 50));
    let next = at(50, 50).served(Some(fixture.served()));
    fixture.publish(next).await;
    let both = tally(&mut held, 400).await;
    // Six standard deviations.
    assert!(both["a"] > 140 && both["b"] > 140, "{both:?}");
    assert!(held.survived().await);
    let envoy = &fixture.envoy;
    let changed = envoy
        .stat("listener_manager.listener_modified")
        .await
        .expect("a number");
    let stats = envoy.stats("http.").await.expect("numbers");
    let opened: u64 = stats
        .iter()
        .filter(|(name, _)| {
            name.contains(&port.to_string()) && name.ends_with(".downstream_cx_total")
        })
        .map(|(_, n)| n)
        .sum();
    assert_eq!((changed, opened), (0, 1));
}

#[tokio::test]
async fn two_services_share_a_port_and_a_service_that_goes_is_not_found() {
    let (a, b) = (pod("a").await, pod("b").await);
    let port = free_port().expect("a port");
    let mut other = service(port);
    other["metadata"]["name"] = json!("ratings");
    let first = vec![service(port), slice("v1", &[&a])];
    let second = vec![other, endpoints("ratings", "http", "v1", &[b.address()])];
    let two = case([first.clone(), second].concat());
    let mut fixture = Fixture::start("shared", &two.served(None)).await;
    let call = |host: &str| {
        let request = Request::get("/").header("host", host);
        async move { send(loopback(port), &request).await.expect("an answer") }
    };
    for (host, expected) in [
        (HOST, "a"),
        ("reviews", "a"),
        ("reviews.shop:1", "a"),
        ("ratings.shop", "b"),
    ] {
        assert_eq!(call(host).await.body.trim(), expected, "{host}");
    }
    assert_eq!(call("other").await.status, 404);
    let next = case(first).served(Some(fixture.served()));
    fixture.publish(next).await;
    assert_eq!(
        call("other").await.body.trim(),
        "a",
        "alone it takes every call"
    );
    let next = case(vec![]).served(Some(fixture.served()));
    fixture.publish(next).await;
    let started = std::time::Instant::now();
    while KeepAlive::connect(loopback(port)).await.is_ok() {
        assert!(started.elapsed() < crate::lab::BOUND, "the listener stays");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// An extension config as a SmartLimiter gives it: so many calls a minute.
pub(crate) fn bucket(name: &str, tokens: u32) -> Resource {
    let full = || {
        Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: 0,
            }),
            runtime_key: "limit".into(),
        })
    };
    let limit = LocalRateLimit {
        stat_prefix: "limit".into(),
        token_bucket: Some(TokenBucket {
            max_tokens: tokens,
            tokens_per_fill: Some(UInt32Value { value: tokens }),
            fill_interval: Some(Span {
                seconds: 60,
                nanos: 0,
            }),
        }),
        filter_enabled: full(),
        filter_enforced: full(),
        ..LocalRateLimit::default()
    };
    let config = TypedExtensionConfig {
        name: name.into(),
        typed_config: Some(Any {
            type_url: "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit".into(),
            value: limit.encode_to_vec(),
        }),
    };
    let body = config.encode_to_vec();
    Resource {
        name: name.into(),
        version: content_version(&body),
        body: body.into(),
        origin: String::new(),
    }
}

#[tokio::test]
async fn a_limit_comes_over_the_same_stream_and_changes_on_an_open_connection() {
    let a = pod("a").await;
    let port = free_port().expect("a port");
    let name = "trimtab.shop.reviews._base";
    let mut limited = case(vec![service(port), slice("v1", &[&a])]);
    limited.limits = vec![HttpLimit {
        host: HOST.into(),
        filter: name.into(),
        ..HttpLimit::default()
    }];
    let fixture = Fixture::start("limit", &limited.served(None)).await;
    let mut held = KeepAlive::connect(loopback(port)).await.expect("the proxy");
    assert_eq!(
        tally(&mut held, 20).await,
        all_of("a", 20),
        "without buckets all pass"
    );
    for tokens in [3, 5] {
        fixture.cache.update(ECDS, vec![bucket(name, tokens)], &[]);
        fixture.until_held(ECDS, name).await;
        let expected = [("a".to_owned(), tokens as usize), ("429".to_owned(), 10)];
        let seen = tally(&mut held, tokens as usize + 10).await;
        assert_eq!(seen, BTreeMap::from(expected));
    }
    assert!(held.survived().await);
}

/// The whole way of a SmartLimiter: its decision, its object and its buckets.
#[tokio::test]
async fn a_smart_limiter_delivered_by_ecds_limits_calls() {
    let a = pod("a").await;
    let port = free_port().expect("a port");
    let text = include_str!("../../golden/limiter/ecds-limiting/in.yaml");
    let limiter: LimiterInput = serde_saphyr::from_str(text).expect("an input");
    let validated = validate_for(&limiter.owner, &limiter.spec, &limiter.target.ports);
    let decisions = decide(&limiter, &validated);
    let made = translate(&limiter, &validated, &decisions);
    let mut mesh = case(vec![service(port), slice("v1", &[&a])]);
    for filter in &made.envoy_filters {
        let (limits, problems) = limits(HOST, filter);
        assert_eq!(problems, []);
        mesh.limits.extend(limits);
    }
    let fixture = Fixture::start("limiter", &mesh.served(None)).await;
    for config in made.extension_configs {
        let resource = Resource {
            version: content_version(config.canonical.as_bytes()),
            name: config.name.clone(),
            body: config.body.into(),
            origin: String::new(),
        };
        fixture.cache.update(ECDS, vec![resource], &[]);
        fixture.until_held(ECDS, &config.name).await;
    }
    let mut held = KeepAlive::connect(loopback(port)).await.expect("the proxy");
    let expected = [("a".to_owned(), 2), ("429".to_owned(), 8)];
    assert_eq!(tally(&mut held, 10).await, BTreeMap::from(expected));
}
