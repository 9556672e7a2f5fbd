//! What the tests share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_lab::envoy::{self, Envoy};
use trimtab_lab::ports::free_address;
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};
use trimtab_tests::merge::{self, ProxyFacts};
use trimtab_tests::mesh::{Listener, Proxy};

pub(crate) const BOUND: Duration = Duration::from_secs(30);
pub(crate) const TYPED_STRUCT: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";
pub(crate) const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// A fresh folder for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) async fn pod(name: &str, capacity: f64) -> Upstream {
    let spec = PodSpec {
        namespace: "default".into(),
        pod: name.into(),
        capacity,
    };
    Upstream::start(free_address().unwrap(), spec, Clock::real())
        .await
        .unwrap()
}

pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "reviews".to_owned())])
}

pub(crate) fn facts() -> ProxyFacts {
    ProxyFacts::new("default", labels())
}

pub(crate) fn proxy(listener: Listener) -> Proxy {
    Proxy::new(
        "reviews-1.default",
        "default",
        &labels(),
        free_address().unwrap(),
    )
    .listener(listener)
}

pub(crate) fn envoy_filter(patches: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "reviews.default.ratelimit", "namespace": "default"},
        "spec": {"workloadSelector": {"labels": {"app": "reviews"}}, "configPatches": patches},
    })
}

/// The filter itself, in Slime's shape.
pub(crate) fn insert_filter(context: &str) -> Value {
    json!({
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"}}}}},
        "patch": {"operation": "INSERT_BEFORE", "value": {
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": {"@type": TYPED_STRUCT, "type_url": LOCAL_RATE_LIMIT,
                "value": {"statPrefix": "http_local_rate_limiter"}}}},
    })
}

/// Actions and bucket for one place; `field` is where rate limits are (`route` in a route, none in a virtual host).
pub(crate) fn limit(
    apply_to: &str,
    matches: &Value,
    actions: &Value,
    entry: (&str, &str),
    quota: u32,
) -> [Value; 2] {
    let rate_limits = json!({"rate_limits": [{"actions": actions}]});
    let actions = if apply_to == "HTTP_ROUTE" {
        json!({"route": rate_limits})
    } else {
        rate_limits
    };
    let full = json!({"runtimeKey": "on", "defaultValue": {"numerator": 100}});
    let bucket = json!({"typed_per_filter_config": {"envoy.filters.http.local_ratelimit": {
        "@type": TYPED_STRUCT, "type_url": LOCAL_RATE_LIMIT, "value": {
            "descriptors": [{
                "entries": [{"key": entry.0, "value": entry.1}],
                "tokenBucket": {"maxTokens": quota, "tokensPerFill": quota, "fillInterval": "60s"}}],
            "tokenBucket": {"maxTokens": 100_000, "tokensPerFill": 100_000, "fillInterval": "1s"},
            "filterEnabled": full, "filterEnforced": full,
            "statPrefix": "http_local_rate_limiter"}}}});
    [actions, bucket].map(|value| {
        json!({"applyTo": apply_to, "match": matches, "patch": {"operation": "MERGE", "value": value}})
    })
}

/// Applies, checks that every patch found its place, and starts the result.
pub(crate) async fn run(proxy: &Proxy, filters: &[Value], name: &str) -> Envoy {
    let mut config = proxy.bootstrap();
    let report = merge::apply(&mut config, filters, &facts()).unwrap();
    assert_eq!(report.unmatched, Vec::<String>::new());
    assert_eq!(report.skipped, Vec::<String>::new());
    envoy::validate(&config).unwrap();
    Envoy::start(&config, &folder(name)).await.unwrap()
}

pub(crate) fn counts<const N: usize>(pairs: [(u16, usize); N]) -> BTreeMap<u16, usize> {
    BTreeMap::from(pairs)
}

pub(crate) fn generic_key() -> Value {
    json!([{"generic_key": {"descriptor_value": "v"}}])
}
