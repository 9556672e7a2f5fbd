//! `EnvoyFilter` objects, merged and obeyed.

use serde_json::{Value, json};
use trimtab_lab::envoy::{self, Envoy};
use trimtab_lab::http::{self, Request};
use trimtab_lab::load::burst;
use trimtab_lab::ports::free_address;
use trimtab_tests::merge;
use trimtab_tests::mesh::{Listener, LocalCluster, Route, Telemetry, VirtualHost};

use crate::support::{
    LOCAL_RATE_LIMIT, counts, envoy_filter, facts, folder, generic_key, insert_filter, limit, pod,
    proxy, run,
};

#[test]
fn a_bootstrap_with_everything_validates() {
    let at = || free_address().unwrap();
    let host = VirtualHost::service("ratings.default.svc.cluster.local", 9080, vec![at()]);
    let telemetry = Telemetry {
        reporter: "destination".into(),
        destination_service: "reviews.default.svc.cluster.local".into(),
        namespace: "default".into(),
        pod: "100%-reviews".into(),
    };
    let mut all = proxy(Listener::inbound(9080, at(), at()).counting(telemetry))
        .listener(Listener::outbound(9080, at(), vec![host.clone()]))
        .listener(Listener::gateway(80, at(), vec![host]).trusting(1));
    all.xds = Some(at());
    all.local_cluster = Some(LocalCluster {
        name: "reviews".into(),
        members: vec![at(), at()],
    });
    let config = all.bootstrap();
    envoy::validate(&config).unwrap();
    assert_eq!(config, all.bootstrap());
}

#[test]
fn validation_tells_envoys_reason_and_the_field() {
    let at = || free_address().unwrap();
    let mut config = proxy(Listener::inbound(9080, at(), at())).bootstrap();
    config["static_resources"]["clusters"][0]["no_such_field"] = json!(1);
    let reason = envoy::validate(&config).unwrap_err();
    assert!(reason.contains("no_such_field"), "{reason}");
}

#[tokio::test]
async fn an_inbound_route_limit_holds_for_its_port_only() {
    let (pod, at) = (pod("reviews-1", 100.0).await, || free_address().unwrap());
    let (limited, free) = (
        Listener::inbound(9080, at(), pod.address()),
        Listener::inbound(9090, at(), pod.address()),
    );
    let place = json!({"context": "SIDECAR_INBOUND", "proxy": {"proxyVersion": "^1.*"},
        "routeConfiguration": {"vhost": {"name": "inbound|http|9080", "route": {"name": "default"}}}});
    let [actions, bucket] = limit(
        "HTTP_ROUTE",
        &place,
        &generic_key(),
        ("generic_key", "v"),
        3,
    );
    let filter = envoy_filter(&[actions, insert_filter("SIDECAR_INBOUND"), bucket]);
    let (limited_at, free_at) = (limited.listen, free.listen);
    let envoy = run(&proxy(limited).listener(free), &[filter], "inbound").await;

    let request = Request::get("/");
    assert_eq!(
        burst(limited_at, 8, &request).await.unwrap(),
        counts([(200, 3), (429, 5)])
    );
    assert_eq!(
        burst(free_at, 8, &request).await.unwrap(),
        counts([(200, 8)])
    );
    assert_eq!(pod.requests(), 11);
    let limited = envoy
        .stat("http_local_rate_limiter.http_local_rate_limit.rate_limited")
        .await
        .unwrap();
    assert_eq!(limited, 5);
    assert_eq!(
        envoy.listener_address("inbound_9080").await.unwrap(),
        limited_at
    );
    assert!(
        envoy
            .config_dump()
            .await
            .unwrap()
            .to_string()
            .contains("inbound|http|9080")
    );
}

#[tokio::test]
async fn an_outbound_limit_holds_for_its_named_route_and_header_only() {
    let (pod, listen) = (pod("ratings-1", 100.0).await, free_address().unwrap());
    let host = "ratings.default.svc.cluster.local";
    let route = |name: &str, prefix: &str| Route {
        name: name.into(),
        prefix: prefix.into(),
        cluster: format!("outbound|9080||{host}"),
        endpoints: vec![pod.address()],
    };
    let host =
        VirtualHost::with_routes(host, 9080, vec![route("slow", "/slow"), route("fast", "/")]);
    let place = json!({"context": "SIDECAR_OUTBOUND", "routeConfiguration": {"portNumber": 9080,
        "vhost": {"name": host.name, "route": {"name": "slow"}}}});
    let actions = json!([{"header_value_match": {"descriptor_value": "v",
        "headers": [{"name": "tier", "string_match": {"exact": "free"}}]}}]);
    let [actions, bucket] = limit("HTTP_ROUTE", &place, &actions, ("header_match", "v"), 2);
    let filter = envoy_filter(&[actions, insert_filter("SIDECAR_OUTBOUND"), bucket]);
    let base = proxy(Listener::outbound(9080, listen, vec![host]));
    let _envoy = run(&base, &[filter], "outbound").await;

    let to =
        |path: &str| Request::get(path).header("host", "ratings.default.svc.cluster.local:9080");
    let free = to("/slow").method("POST").header("tier", "free");
    assert_eq!(
        burst(listen, 5, &free).await.unwrap(),
        counts([(200, 2), (429, 3)])
    );
    assert_eq!(
        burst(listen, 5, &to("/slow")).await.unwrap(),
        counts([(200, 5)])
    );
    assert_eq!(
        burst(listen, 5, &to("/").header("tier", "free"))
            .await
            .unwrap(),
        counts([(200, 5)])
    );
}

#[tokio::test]
async fn a_gateway_host_limit_counts_each_client_address_apart() {
    let (pod, listen) = (pod("web-1", 100.0).await, free_address().unwrap());
    let host = |name: &str| VirtualHost::service(name, 80, vec![pod.address()]);
    let place = json!({"context": "GATEWAY", "routeConfiguration": {"name": "http.80",
        "vhost": {"name": "a.example.com:80"}}});
    let actions = json!([{"remote_address": {}}]);
    let [actions, bucket] = limit(
        "VIRTUAL_HOST",
        &place,
        &actions,
        ("remote_address", "10.9.8.7"),
        2,
    );
    let filter = envoy_filter(&[actions, insert_filter("GATEWAY"), bucket]);
    let gateway = Listener::gateway(
        80,
        listen,
        vec![host("a.example.com"), host("b.example.com")],
    )
    .trusting(1);
    let _envoy = run(&proxy(gateway), &[filter], "gateway").await;

    let from = |host: &str, ip: &str| {
        Request::get("/")
            .header("host", host)
            .header("x-forwarded-for", ip)
    };
    let limited = counts([(200, 2), (429, 3)]);
    assert_eq!(
        burst(listen, 5, &from("a.example.com", "10.9.8.7"))
            .await
            .unwrap(),
        limited
    );
    assert_eq!(
        burst(listen, 5, &from("a.example.com", "10.9.8.6"))
            .await
            .unwrap(),
        counts([(200, 5)])
    );
    assert_eq!(
        burst(listen, 5, &from("b.example.com", "10.9.8.7"))
            .await
            .unwrap(),
        counts([(200, 5)])
    );
}

#[tokio::test]
async fn discovered_filters_clusters_and_bootstrap_are_merged() {
    let (pod, listen) = (pod("reviews-1", 100.0).await, free_address().unwrap());
    let listener = json!({"portNumber": 9080, "filterChain": {"filter": {"name": "envoy.http_connection_manager"}}});
    let discovered = json!({"name": "limit", "configDiscovery": {
        "configSource": {"ads": {}, "resourceApiVersion": "V3"}, "typeUrls": [LOCAL_RATE_LIMIT]}});
    let full = json!({"default_value": {"numerator": 100}});
    let resource = json!({"name": "limit", "typed_config": {"@type": LOCAL_RATE_LIMIT, "statPrefix": "limit",
        "tokenBucket": {"maxTokens": 4, "tokensPerFill": 4, "fillInterval": "60s"},
        "filter_enabled": full, "filterEnforced": full}});
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let patch = |apply_to: &str, operation: &str, matches: Value, value: Value| json!({"applyTo": apply_to, "match": matches, "patch": {"operation": operation, "value": value}});
    let inbound = json!({"context": "SIDECAR_INBOUND", "listener": listener});
    let filter = envoy_filter(&[
        patch("HTTP_FILTER", "INSERT_FIRST", inbound.clone(), discovered),
        patch("EXTENSION_CONFIG", "ADD", json!({}), resource),
        patch(
            "NETWORK_FILTER",
            "MERGE",
            inbound,
            json!({"typed_config": {"@type": manager, "serverName": "patched"}}),
        ),
        patch(
            "CLUSTER",
            "ADD",
            json!({}),
            json!({"name": "added", "connectTimeout": "1s"}),
        ),
        patch(
            "BOOTSTRAP",
            "MERGE",
            json!({}),
            json!({"layered_runtime": {"layers": [
            {"name": "patched", "static_layer": {"a.b": 7}}]}}),
        ),
    ]);
    let mut config = proxy(Listener::inbound(9080, listen, pod.address())).bootstrap();
    let report = merge::apply(&mut config, &[filter], &facts()).unwrap();
    assert_eq!((report.applied, report.unmatched.len()), (5, 0));
    assert_eq!(
        merge::inline_extension_configs(&mut config, &report.extension_configs),
        ["limit"]
    );
    let envoy = Envoy::start(&config, &folder("merged")).await.unwrap();

    assert_eq!(
        http::send(listen, &Request::get("/"))
            .await
            .unwrap()
            .headers["server"],
        "patched"
    );
    assert_eq!(
        burst(listen, 5, &Request::get("/")).await.unwrap(),
        counts([(200, 3), (429, 2)])
    );
    assert_eq!(
        envoy.stat("cluster.added.membership_total").await.unwrap(),
        0
    );
    let dump = envoy.config_dump().await.unwrap().to_string();
    assert!(dump.contains("\"added\"") && dump.contains("a.b"), "{dump}");
}

#[test]
fn a_patch_that_finds_nothing_or_is_not_understood_is_reported() {
    let at = || free_address().unwrap();
    let base = proxy(Listener::inbound(9080, at(), at())).bootstrap();
    let elsewhere = json!({"context": "SIDECAR_INBOUND", "routeConfiguration": {"vhost": {"name": "inbound|http|1"}}});
    let patches = limit(
        "HTTP_ROUTE",
        &elsewhere,
        &generic_key(),
        ("generic_key", "v"),
        1,
    );
    let mut config = base.clone();
    let report = merge::apply(&mut config, &[envoy_filter(&patches)], &facts()).unwrap();
    assert_eq!(
        report.unmatched,
        [
            "EnvoyFilter default/reviews.default.ratelimit configPatches[0] (HTTP_ROUTE MERGE)",
            "EnvoyFilter default/reviews.default.ratelimit configPatches[1] (HTTP_ROUTE MERGE)",
        ]
    );
    assert_eq!(config, base, "nothing matched, so nothing may change");

    let mut other = envoy_filter(&patches);
    other["spec"]["workloadSelector"]["labels"] = json!({"app": "ratings"});
    let mut foreign = envoy_filter(&patches);
    foreign["metadata"]["namespace"] = json!("shop");
    let report = merge::apply(&mut config, &[other, foreign], &facts()).unwrap();
    assert_eq!(
        report.skipped,
        [
            "default/reviews.default.ratelimit",
            "shop/reviews.default.ratelimit"
        ]
    );

    let unknown = json!({"context": "ANY", "routeConfiguration": {"virtualHost": {"name": "x"}}});
    let patches = limit(
        "HTTP_ROUTE",
        &unknown,
        &generic_key(),
        ("generic_key", "v"),
        1,
    );
    let error = merge::apply(&mut config, &[envoy_filter(&patches)], &facts()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("field virtualHost is not one of name, portNumber, vhost"),
        "{error}"
    );
    let error = merge::apply(
        &mut config,
        &[envoy_filter(&[json!({"applyTo": "LISTENER"})])],
        &facts(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("LISTENER"), "{error}");
}

#[tokio::test]
async fn a_local_cluster_shares_the_limit_among_its_members() {
    let (pod, listen) = (pod("reviews-1", 100.0).await, free_address().unwrap());
    let mut base = proxy(Listener::inbound(9080, listen, pod.address()));
    base.local_cluster = Some(LocalCluster {
        name: "reviews".into(),
        members: vec![listen, free_address().unwrap()],
    });
    let full = json!({"default_value": {"numerator": 100}});
    let mut filter = insert_filter("SIDECAR_INBOUND");
    filter["patch"]["value"]["typed_config"] = json!({
        "@type": LOCAL_RATE_LIMIT, "stat_prefix": "shared", "filter_enabled": full, "filter_enforced": full,
        "token_bucket": {"max_tokens": 8, "tokens_per_fill": 8, "fill_interval": "60s"},
        "local_cluster_rate_limit": {}});
    let _envoy = run(&base, &[envoy_filter(&[filter])], "shared").await;
    assert_eq!(
        burst(listen, 8, &Request::get("/")).await.unwrap(),
        counts([(200, 4), (429, 4)])
    );
}
