//! What istiod and a sidecar really do with the objects that Trimtab could write: each test is a fact of
//! `docs/istio-facts.md`, on which a design decision rests.

use serde_json::{Value, json};
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace, Pod, Proxy, wait_for};
use trimtab_lab::http::Request;

use crate::fixture::{BOUND, application, cluster, example, istiod, limiter_state, operator};

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
";

struct Fixture {
    namespace: Namespace<'static>,
    pod: Pod,
    proxy: Proxy,
    _app: trimtab_lab::upstream::Upstream,
}

/// A pod of the Service `reviews` with its application and sidecar, reached once.
async fn fixture(prefix: &str) -> Fixture {
    let (cluster, istiod): (&'static Cluster, &'static Istiod) =
        (cluster().await, istiod(Minor::Newest).await);
    let namespace = Namespace::create(cluster, prefix).await.unwrap();
    namespace.apply(REVIEWS).await.unwrap();
    let pod = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    let mut connection = proxy.inbound(9080).await.unwrap();
    assert_eq!(
        connection
            .send("reviews", &Request::get("/"))
            .await
            .unwrap()
            .0,
        200
    );
    Fixture {
        namespace,
        pod,
        proxy,
        _app: app,
    }
}

/// When the inbound listener was last changed.
async fn inbound_listener(proxy: &Proxy) -> String {
    proxy.listener_updated("virtualInbound").await.unwrap()
}

async fn answers(fixture: &Fixture, connection: &mut trimtab_cluster::Connection, status: u16) {
    let connection = tokio::sync::Mutex::new(connection);
    wait_for(
        &format!("{} to answer {status}", fixture.pod.name),
        BOUND,
        || async {
            let mut connection = connection.lock().await;
            match connection.send("reviews", &Request::get("/")).await {
                Ok((seen, _)) if seen == status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
    .unwrap();
}

const EXTENSION: &str = r"
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter, namespace: NAMESPACE}
spec:
  workloadSelector: {labels: {app: reviews}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: NAMESPACE.limit
        config_discovery:
          config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 5s}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit]
";

fn extension_config(tokens: u32) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: config, namespace: NAMESPACE}}
spec:
  workloadSelector: {{labels: {{app: reviews}}}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    match: {{context: SIDECAR_INBOUND}}
    patch:
      operation: ADD
      value:
        name: NAMESPACE.limit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: limit
          token_bucket: {{max_tokens: {tokens}, tokens_per_fill: {tokens}, fill_interval: 3600s}}
          filter_enabled: {{default_value: {{numerator: 100}}}}
          filter_enforced: {{default_value: {{numerator: 100}}}}
"#
    )
}

/// `applyTo: EXTENSION_CONFIG`: istiod serves the configuration as ECDS on its ADS stream; a changed one changes the
/// limit of a connection that stays open, and no listener is touched.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_config_changes_limits_without_a_listener_update() {
    let fixture = fixture("extension").await;
    fixture
        .namespace
        .apply(&extension_config(1_000_000))
        .await
        .unwrap();
    fixture.namespace.apply(EXTENSION).await.unwrap();
    fixture
        .proxy
        .wait_config("the filter", |dump| {
            let name = format!("{}.limit", fixture.namespace.name());
            let ecds = dump["configs"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|section| section["ecds_filters"].to_string().contains(&name));
            if ecds {
                Ok(())
            } else {
                Err("no extension config".to_owned())
            }
        })
        .await
        .unwrap();
    let mut connection = fixture.proxy.inbound(9080).await.unwrap();
    answers(&fixture, &mut connection, 200).await;
    let before = inbound_listener(&fixture.proxy).await;
    fixture.namespace.apply(&extension_config(1)).await.unwrap();
    answers(&fixture, &mut connection, 429).await;
    assert!(!connection.is_closed());
    assert_eq!(inbound_listener(&fixture.proxy).await, before);
}

/// The example with a quota that does not move: its bucket has all of it.
fn constant(limiter: &str, quota: u32) -> String {
    let moving = "\"20/{{._base.pod}}\"";
    assert!(limiter.contains(moving), "{limiter}");
    limiter.replace(moving, &format!("\"{quota}\""))
}

/// ECDS from Trimtab's own server: the sidecar reaches it by `google_grpc`, which needs no cluster in the bootstrap and so
/// no restart; a changed limit touches no listener and neither istiod nor the API server.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_server_changes_limits_without_a_restart_or_a_listener_update() {
    operator().await;
    let fixture = fixture("own").await;
    let limiter =
        example("limiter/average.yaml").replacen("spec:\n", "spec:\n  delivery: ECDS\n", 1);
    fixture
        .namespace
        .apply(&constant(&limiter, 1_000_000))
        .await
        .unwrap();
    limiter_state(&fixture.namespace, "reviews", "Limiting").await;
    let mut connection = fixture.proxy.inbound(9080).await.unwrap();
    fixture
        .proxy
        .wait_config("the limit", |dump| {
            if dump.to_string().contains("\"max_tokens\":1000000") {
                Ok(())
            } else {
                Err("not there".to_owned())
            }
        })
        .await
        .unwrap();
    let mut fresh = fixture.proxy.inbound(9080).await.unwrap();
    answers(&fixture, &mut fresh, 200).await;
    answers(&fixture, &mut connection, 200).await;
    let before = inbound_listener(&fixture.proxy).await;
    fixture
        .namespace
        .apply(&constant(&limiter, 1))
        .await
        .unwrap();
    answers(&fixture, &mut fresh, 429).await;
    assert!(!fresh.is_closed());
    assert_eq!(inbound_listener(&fixture.proxy).await, before);
    let filters = fixture
        .namespace
        .kubectl(&["get", "envoyfilters", "-o", "json"], "")
        .await
        .unwrap();
    let filters: Value = serde_json::from_str(&filters).unwrap();
    let generations: Vec<_> = filters["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["metadata"]["generation"])
        .collect();
    assert_eq!(
        generations,
        [&json!(1)],
        "the change did not go through the API server"
    );
}

/// The same change by EnvoyFilter alone modifies the listener: inbound routes are inline in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoyfilter_with_another_quota_updates_the_listener() {
    operator().await;
    let fixture = fixture("inline").await;
    let limiter = example("limiter/average.yaml");
    fixture
        .namespace
        .apply(&constant(&limiter, 1_000_000))
        .await
        .unwrap();
    limiter_state(&fixture.namespace, "reviews", "Limiting").await;
    let has = |text: &'static str| {
        move |dump: &Value| {
            if dump.to_string().contains(text) {
                Ok(())
            } else {
                Err(format!("no {text}"))
            }
        }
    };
    fixture
        .proxy
        .wait_config("the limit", has("\"max_tokens\":1000000"))
        .await
        .unwrap();
    let before = inbound_listener(&fixture.proxy).await;
    fixture
        .namespace
        .apply(&constant(&limiter, 1))
        .await
        .unwrap();
    fixture
        .proxy
        .wait_config("the new limit", has("\"max_tokens\":1,"))
        .await
        .unwrap();
    assert_ne!(inbound_listener(&fixture.proxy).await, before);
}

fn authority_override() -> Value {
    json!({
        "config_sources": [{
            "authorities": [{"name": "trimtab"}],
            "api_config_source": {"api_type": "AGGREGATED_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"google_grpc": {"target_uri": "127.0.0.1:9", "stat_prefix": "trimtab"}}]},
            "resource_api_version": "V3",
        }],
        "layered_runtime": {"layers": [{"name": "trimtab", "static_layer":
            {"envoy.reloadable_features.xdstp_based_config_singleton_subscriptions": true}}]},
    })
}

const BOOTSTRAP_PATCH: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: bootstrap, namespace: NAMESPACE}
spec:
  configPatches:
  - applyTo: BOOTSTRAP
    match: {context: ANY}
    patch:
      operation: MERGE
      value: {layered_runtime: {layers: [{name: by-envoyfilter, static_layer: {a: b}}]}}
";

/// An authority for `xdstp` names has to be in the bootstrap. `applyTo: BOOTSTRAP` does not put it there: the API server
/// and istiod take the object, but pilot-agent does not ask for it. The annotation `sidecar.istio.io/bootstrapOverride`
/// does, at the next start of the pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_is_changed_by_the_override_and_not_by_an_envoyfilter() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    let namespace = Namespace::create(cluster, "bootstrap").await.unwrap();
    namespace.apply(REVIEWS).await.unwrap();
    namespace.apply(BOOTSTRAP_PATCH).await.unwrap();
    let pod = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let app = application(&pod, 9080).await;
    let proxy = Proxy::start_by_agent(cluster, istiod, &pod, &authority_override())
        .await
        .unwrap();
    let dump = proxy.envoy().config_dump().await.unwrap();
    let bootstrap = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|s| s.get("bootstrap"))
        .unwrap();
    assert_eq!(
        bootstrap["config_sources"][0]["authorities"][0]["name"],
        "trimtab"
    );
    let layers = bootstrap["layered_runtime"]["layers"].to_string();
    assert!(
        layers.contains("\"trimtab\"") && !layers.contains("by-envoyfilter"),
        "{layers}"
    );
    // It is a sidecar like any other.
    let mut connection = proxy.inbound(9080).await.unwrap();
    assert_eq!(
        connection
            .send("reviews", &Request::get("/"))
            .await
            .unwrap()
            .0,
        200
    );
    assert_eq!(app.requests(), 1);
}

const TWO_LIMITERS: &str = r#"
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: first, namespace: NAMESPACE}
spec:
  workloadSelector: {app: reviews}
  sets:
    _base:
      descriptor:
      - {condition: "true", action: {quota: "3", fill_interval: {seconds: 3600}}, match: [{name: who, exact_match: a}]}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  sets:
    _base:
      descriptor:
      - {condition: "true", action: {quota: "2", fill_interval: {seconds: 3600}}, match: [{name: who, exact_match: b}]}
"#;

/// istiod merges the patches of several limiters of one workload in order of creation; each keeps its own limit, because
/// those after the first have a filter of their own name.
#[tokio::test(flavor = "multi_thread")]
async fn several_limiters_on_one_workload_all_hold() {
    operator().await;
    let fixture = fixture("merge").await;
    fixture.namespace.apply(TWO_LIMITERS).await.unwrap();
    for name in ["first", "reviews"] {
        limiter_state(&fixture.namespace, name, "Limiting").await;
    }
    for who in ["a", "b"] {
        let request = Request::get("/").header("who", who);
        wait_for(&format!("the limit of {who}"), BOUND, || async {
            let mut connection = fixture
                .proxy
                .inbound(9080)
                .await
                .map_err(|e| e.to_string())?;
            let (status, _) = connection
                .send("reviews", &request)
                .await
                .map_err(|e| e.to_string())?;
            if status == 429 {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await
        .unwrap();
    }
    let mut connection = fixture.proxy.inbound(9080).await.unwrap();
    let free = connection
        .send("reviews", &Request::get("/").header("who", "c"))
        .await
        .unwrap();
    assert_eq!(free.0, 200, "others are not limited");
}

/// `istioctl analyze` says of every EnvoyFilter that it exposes internals (IST0133), and nothing else about ours.
#[tokio::test(flavor = "multi_thread")]
async fn istioctl_analyze_warns_of_nothing_but_the_kind_itself() {
    operator().await;
    let fixture = fixture("analyze").await;
    for delivery in ["EnvoyFilter", "ECDS"] {
        let limiter = example("limiter/inbound.yaml").replacen(
            "spec:\n",
            &format!("spec:\n  delivery: {delivery}\n"),
            1,
        );
        fixture.namespace.apply(&limiter).await.unwrap();
        limiter_state(&fixture.namespace, "reviews", "Limiting").await;
        let name = fixture.namespace.name();
        let analyze = ["analyze", "-n", name, "-o", "json"];
        let text = cluster().await.istioctl(&analyze).await.unwrap();
        let found: Vec<Value> = serde_json::from_str(text.trim()).unwrap_or_default();
        let ours: Vec<_> = found
            .iter()
            .filter(|m| m.to_string().contains("EnvoyFilter") && m["code"] != "IST0133")
            .collect();
        assert!(ours.is_empty(), "{delivery}: {ours:#?}");
        assert!(text.contains("IST0133"), "the object was analyzed: {text}");
    }
}

/// A hand edit of a generated object is repaired, and a deleted one written again.
#[tokio::test(flavor = "multi_thread")]
async fn hand_edits_are_repaired() {
    operator().await;
    let fixture = fixture("repair").await;
    fixture
        .namespace
        .apply(&example("limiter/inbound.yaml"))
        .await
        .unwrap();
    limiter_state(&fixture.namespace, "reviews", "Limiting").await;
    let spec = || async {
        let text = fixture
            .namespace
            .kubectl(&["get", "envoyfilters", "-o", "json"], "")
            .await
            .unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"][0]["spec"].clone()
    };
    let name = format!("reviews.{}.ratelimit", fixture.namespace.name());
    let wanted = spec().await;
    assert!(
        wanted["configPatches"]
            .as_array()
            .is_some_and(|p| !p.is_empty())
    );
    let patch = r#"{"spec": {"configPatches": []}}"#;
    fixture
        .namespace
        .kubectl(
            &["patch", "envoyfilter", &name, "--type=merge", "-p", patch],
            "",
        )
        .await
        .unwrap();
    wait_for("the repair", BOUND, || async {
        let now = spec().await;
        if now == wanted {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await
    .unwrap();
    fixture
        .namespace
        .kubectl(&["delete", "envoyfilter", &name], "")
        .await
        .unwrap();
    wait_for("the object to come back", BOUND, || async {
        let now = spec().await;
        if now == wanted {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await
    .unwrap();
}
