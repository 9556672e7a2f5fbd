//! Requests through a caller's proxy and the fallback.

use std::net::SocketAddr;

use serde_json::json;
use trimtab_lab::http::{self, Request};
use trimtab_lab::ports::{free_address, loopback};
use trimtab_lazyload::config::Dispatch;
use trimtab_lazyload::fallback::proxy::ProxyOptions;
use trimtab_lazyload::fallback::{FallbackInput, PROXY_METADATA};

use crate::caller::{ALLOW_ANY, Caller, Facts, Fallback, REFUSED, options};
use crate::collector::{Collector, metadata, path};
use crate::servers::Http;

/// Headers that no server may see.
pub(crate) const OURS: [&str; 6] = [
    "slime-orig-dest",
    "slime-source-ns",
    "trimtab-source",
    "x-envoy-original-path",
    "x-envoy-expected-rq-timeout-ms",
    "via",
];

const HOST: &str = "reviews.books.svc.cluster.local";

struct Fixture {
    collector: Collector,
    fallback: Fallback,
    caller: Caller,
    server: Http,
}

async fn fixture(name: &str, input: &FallbackInput, facts: Facts<'_>) -> Fixture {
    let collector = Collector::start();
    let fallback = Fallback::start(&format!("{name}-fallback"), options(Some(&collector))).await;
    let caller = Caller::start(name, input, facts, &[&fallback.options]).await;
    Fixture {
        collector,
        fallback,
        caller,
        server: Http::start().await,
    }
}

/// Requests that came by the fallback so far.
async fn carried(fallback: &Fallback) -> u64 {
    fallback
        .envoy
        .stat("http.http.downstream_rq_total")
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_arrive_as_they_were_sent() {
    let fixture = fixture("as-sent", &FallbackInput::default(), ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    for n in 0..20 {
        let request = Request {
            body: format!("body {n}"),
            ..Request::get("/echo?a=%2F")
        }
        .method("POST")
        // What an application sends under our names counts for nothing.
        .header("trimtab-source", "other/pod")
        .header("slime-orig-dest", "127.0.0.1:1");
        let (status, body) = connection.send(HOST, &request).await.unwrap();
        assert_eq!((status, body), (200, format!("body {n}")));
    }
    assert_eq!(
        fixture.server.connections(),
        1,
        "connections are used again"
    );
    assert_eq!(carried(&fixture.fallback).await, 20);
    for seen in fixture.server.seen() {
        for name in OURS {
            assert_eq!(seen.header(name), None, "{seen:?}");
        }
        assert_eq!(seen.header("host"), Some(HOST));
    }
    assert_eq!(fixture.server.last().body, "body 19");
    let (status, _) = connection
        .send(HOST, &Request::get("/redirect"))
        .await
        .unwrap();
    assert_eq!(status, 302, "passed on, not followed");
    assert_eq!(fixture.server.last().path, "/redirect");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_says_who_called_what() {
    let fixture = fixture("log", &FallbackInput::default(), ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    let (status, _) = connection
        .send("reviews:8080", &Request::get("/short"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    // The namespace of the caller completes it, as its resolver would.
    assert_eq!(
        fixture.server.last().header("host"),
        Some("reviews.shop:8080")
    );
    let entry = fixture
        .collector
        .http("the entry", |e| path(e) == "/short")
        .await;
    let common = entry.common_properties.as_ref();
    assert_eq!(metadata(common, "source").as_deref(), Some("shop/web-1"));
    assert_eq!(
        metadata(common, "source_namespace").as_deref(),
        Some("shop")
    );
    assert_eq!(
        metadata(common, "destination"),
        Some(fixture.server.address.to_string())
    );
    assert_eq!(entry.request.unwrap().authority, "reviews.shop:8080");
    assert_eq!(
        fixture.collector.count_http(|e| path(e) == "/short"),
        1,
        "one entry a request"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_a_dot_and_addresses_stay_as_they_are() {
    let fixture = fixture("hosts", &FallbackInput::default(), ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    let address = fixture.server.address.to_string();
    for host in [
        "a.b",
        "localhost",
        "localhost:80",
        "[::1]:80",
        &address,
        HOST,
    ] {
        let (status, _) = connection.send(host, &Request::get("/")).await.unwrap();
        assert_eq!(status, 200, "{host}");
        assert_eq!(fixture.server.last().header("host"), Some(host));
    }
    let (_, _) = connection.send("a", &Request::get("/")).await.unwrap();
    assert_eq!(fixture.server.last().header("host"), Some("a.shop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_answers_for_proxies_that_may_call_nothing_unknown() {
    let block = Facts {
        vhost: "block_all",
        metadata: None,
    };
    let fixture = fixture("registry-only", &FallbackInput::default(), block).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    let (status, _) = connection.send(HOST, &Request::get("/")).await.unwrap();
    assert_eq!((status, carried(&fixture.fallback).await), (200, 1));
    let (status, _) = connection
        .send("169.254.169.254", &Request::get("/"))
        .await
        .unwrap();
    assert_eq!(
        (status, carried(&fixture.fallback).await),
        (502, 1),
        "as without the fallback"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_is_never_sent_to_itself() {
    for (vhost, expected) in [("allow_any", 200), ("block_all", 502)] {
        let facts = Facts {
            vhost,
            metadata: Some(PROXY_METADATA),
        };
        let mut input = FallbackInput::default();
        input.config.fallback.tcp = true;
        let fixture = fixture(&format!("itself-{vhost}"), &input, facts).await;
        let mut connection = fixture.caller.connect(fixture.server.address).await;
        let (status, _) = connection.send(HOST, &Request::get("/")).await.unwrap();
        assert_eq!(
            (status, carried(&fixture.fallback).await),
            (expected, 0),
            "{vhost}"
        );
        assert_eq!(fixture.server.connections(), u64::from(expected == 200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_the_machine_are_not_asked_of_another() {
    let fixture = fixture("link-local", &FallbackInput::default(), ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    for host in [
        "169.254.169.254",
        "169.254.169.254:80",
        "metadata.google.internal",
    ] {
        let (status, _) = connection.send(host, &Request::get("/")).await.unwrap();
        assert_eq!(
            (status, carried(&fixture.fallback).await),
            (200, 0),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatches_go_where_they_say() {
    let mut input = FallbackInput::default();
    let dispatch = |name: &str, domains: &[&str], regex: &str, cluster: &str| Dispatch {
        name: name.to_owned(),
        domains: domains.iter().map(|&d| d.to_owned()).collect(),
        domain_regex: regex.to_owned(),
        cluster: cluster.to_owned(),
    };
    input.config.fallback.dispatches = vec![
        dispatch(
            "numbers",
            &[],
            r"n[0-9]+\.com(:[0-9]+)?",
            "PassthroughCluster",
        ),
        dispatch("out", &["*.out.com", "exact.com"], "", "PassthroughCluster"),
        dispatch("in", &["in.out.com"], "", "_GLOBAL_SIDECAR"),
    ];
    let fixture = fixture("dispatches", &input, ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    let mut expected = 0;
    for (host, by_fallback) in [
        ("a.out.com", false),
        ("exact.com:9090", false),
        ("n12.com", false),
        ("in.out.com", true),
        ("out.com", true),
        ("other.com", true),
    ] {
        let (status, _) = connection.send(host, &Request::get("/")).await.unwrap();
        expected += u64::from(by_fallback);
        assert_eq!(
            (status, carried(&fixture.fallback).await),
            (200, expected),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passthrough_by_default_keeps_the_dispatches() {
    let mut input = FallbackInput::default();
    input.config.fallback.passthrough_by_default = true;
    input.config.fallback.dispatches = vec![Dispatch {
        name: "in".to_owned(),
        domains: vec!["in.com".to_owned()],
        cluster: "_GLOBAL_SIDECAR".to_owned(),
        ..Dispatch::default()
    }];
    let fixture = fixture("passthrough", &input, ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    for (host, expected) in [("other.com", 0), ("in.com", 1)] {
        let (status, _) = connection.send(host, &Request::get("/")).await.unwrap();
        assert_eq!(
            (status, carried(&fixture.fallback).await),
            (200, expected),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lua_sets_the_source_for_old_proxies() {
    let mut input = FallbackInput::default();
    input.config.fallback.add_env_header_via_lua = true;
    let fixture = fixture("lua", &input, ALLOW_ANY).await;
    let mut connection = fixture.caller.connect(fixture.server.address).await;
    let (status, _) = connection
        .send("reviews", &Request::get("/lua"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    assert_eq!(fixture.server.last().header("host"), Some("reviews.shop"));
    let entry = fixture
        .collector
        .http("the entry", |e| path(e) == "/lua")
        .await;
    let common = entry.common_properties.as_ref();
    assert_eq!(metadata(common, "source").as_deref(), Some("shop/web-1"));
    assert_eq!(
        metadata(common, "source_namespace").as_deref(),
        Some("shop")
    );
}

/// A request sent to the fallback itself, with a destination.
async fn straight(at: SocketAddr, host: &str, destination: Option<&str>) -> (u16, String) {
    let mut request = Request::get("/").header("host", host);
    if let Some(destination) = destination {
        request = request.header("slime-orig-dest", destination);
    }
    let response = http::send(at, &request).await.unwrap();
    (response.status, response.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_is_no_way_to_its_own_machine_and_no_loop() {
    let fallback = Fallback::start("refusals", options(None)).await;
    let at = fallback.options.http;
    let server = Http::start().await;
    let (to, port) = (server.address.to_string(), server.address.port());
    assert_eq!(straight(at, HOST, Some(&to)).await.0, 200);
    let refused = format!("{REFUSED}:{port}");
    assert_eq!(straight(at, HOST, Some(&refused)).await.0, 403);
    assert_eq!(straight(at, &refused, None).await.0, 403, "by name");
    for nonsense in ["here", "a.b:80", "1.2.3.4", "1.2.3.4:80, 5.6.7.8:90", "-"] {
        assert_eq!(
            straight(at, HOST, Some(nonsense)).await.0,
            400,
            "{nonsense}"
        );
    }
    assert_eq!(straight(at, HOST, Some("999.1.1.1:80")).await.0, 503);
    // Without a destination it is found by name: proxies without our EnvoyFilter may use it so.
    assert_eq!(
        straight(at, &format!("localhost:{port}"), None).await.0,
        200
    );
    assert_eq!(server.last().header("via"), Some("1.1 trimtab-fallback"));
    let itself = format!("localhost:{}", at.port());
    assert_eq!(straight(at, &itself, None).await.0, 508, "a name of itself");
    assert_eq!(
        straight(at, &itself, Some(&at.to_string())).await.0,
        508,
        "its own address"
    );
    let seen = server.seen().len();
    assert_eq!(seen, 2, "nothing else arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_loopback_is_refused() {
    let defaults = ProxyOptions {
        refuse: ProxyOptions::default().refuse,
        ..options(None)
    };
    let fallback = Fallback::start("defaults", defaults).await;
    let admin = fallback.options.admin;
    for destination in [
        admin.to_string(),
        format!("127.9.9.9:{}", admin.port()),
        format!("0.0.0.0:{}", admin.port()),
        format!("[::1]:{}", admin.port()),
        format!("[::ffff:127.0.0.1]:{}", admin.port()),
        format!("[::]:{}", admin.port()),
        "169.254.169.254:80".to_owned(),
    ] {
        let (status, body) = straight(fallback.options.http, HOST, Some(&destination)).await;
        assert_eq!(status, 403, "{destination}: {body}");
    }
    for host in [format!("localhost:{}", admin.port()), admin.to_string()] {
        let (status, body) = straight(fallback.options.http, &host, None).await;
        assert_eq!(status, 403, "{host}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_pod_may_go_at_any_time() {
    let mut first = Fallback::start("restart-a", options(None)).await;
    let second = Fallback::start("restart-b", options(None)).await;
    let members = [&first.options.clone(), &second.options.clone()];
    let caller = Caller::start("restart", &FallbackInput::default(), ALLOW_ANY, &members).await;
    let server = Http::start().await;
    let mut connection = caller.connect(server.address).await;
    for round in 0..60 {
        match round {
            20 => first.envoy.kill(),
            40 => first.envoy.restart().await.unwrap(),
            _ => {}
        }
        let (status, body) = connection.send(HOST, &Request::get("/")).await.unwrap();
        assert_eq!(status, 200, "call {round}: {body}");
    }
    assert!(carried(&second).await >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_when_nobody_takes_the_log() {
    let deaf = ProxyOptions {
        access_log: free_address().unwrap().to_string(),
        ..options(None)
    };
    let fallback = Fallback::start("deaf", deaf).await;
    let server = Http::start().await;
    for _ in 0..100 {
        let to = server.address.to_string();
        assert_eq!(
            straight(fallback.options.http, HOST, Some(&to)).await.0,
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_follow_the_proxy() {
    let fallback = Fallback::start("probes", options(None)).await;
    let probe = fallback.options.probe;
    for (path, status) in [
        ("/healthz/live", 200),
        ("/healthz/ready", 200),
        ("/metrics", 200),
        ("/quitquitquit", 404),
    ] {
        assert_eq!(
            http::send(probe, &Request::get(path)).await.unwrap().status,
            status,
            "{path}"
        );
    }
    let fail = Request::get("/healthcheck/fail").method("POST");
    http::send(fallback.options.admin, &fail).await.unwrap();
    let ready = http::send(probe, &Request::get("/healthz/ready"))
        .await
        .unwrap();
    let live = http::send(probe, &Request::get("/healthz/live"))
        .await
        .unwrap();
    assert_eq!((ready.status, live.status), (503, 200));
}

#[test]
fn options_are_strict_and_have_defaults() {
    let text = json!({"http": "127.0.0.1:1"}).to_string();
    let options: ProxyOptions = serde_json::from_str(&text).unwrap();
    assert_eq!((options.http, options.tcp), (loopback(1), None));
    let unknown = json!({"htpp": free_address().unwrap()}).to_string();
    assert!(serde_json::from_str::<ProxyOptions>(&unknown).is_err());
}

#[test]
fn nonsense_is_refused_with_the_key() {
    FallbackInput::default().check().unwrap();
    for (text, key) in [
        (
            json!({"proxy": {"refuse": ["10.0.0.0/8", "here"]}}),
            "proxy.refuse",
        ),
        (
            json!({"proxy": {"accessLog": "trimtab"}}),
            "proxy.accessLog",
        ),
        (
            json!({"proxy": {"accessLogFlush": "0s"}}),
            "proxy.accessLogFlush",
        ),
        (json!({"proxy": {"admin": "0.0.0.0:15082"}}), "proxy.admin"),
        (
            json!({"config": {"fallback": {"wormholePort": ["15081"]}}}),
            "wormholePort",
        ),
        (json!({"port": 0}), "port"),
    ] {
        let input: FallbackInput = serde_json::from_value(text.clone()).unwrap();
        let message = input.check().unwrap_err();
        assert!(message.contains(key), "{text}: {message}");
    }
}
