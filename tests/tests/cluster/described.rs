//! `trimtab describe smartlimiter` where a real istiod or Envoy decides: what proxies accept and refuse, which of two
//! EnvoyFilters counts, hosts that no proxy has, proxies of another revision. Each time requests are counted too.

use serde_json::{Value, json};
use trimtab_cluster::{Minor, Namespace, Proxy, wait_for};
use trimtab_lab::http::Request;

use crate::fixture::{BOUND, application, cluster, istiod, operator, operator_xds, statuses};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
";

/// Two requests an hour, so that a limit that is there refuses the third.
const LIMITER: &str = "
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: reviews, namespace: NAMESPACE, labels: LABELS}
spec:
  delivery: DELIVERY
  sets: {_base: {descriptor: [{condition: 'true', action: {quota: '2', fill_interval: {seconds: 3600}}}]}}
";

/// Gives each route a configuration of the filter that limits nothing.
const OVERRIDE: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: other, namespace: NAMESPACE}
spec:
  priority: PRIORITY
  workloadSelector: {labels: {app: reviews}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
            '@type': type.googleapis.com/udpa.type.v1.TypedStruct
            type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            value: {stat_prefix: other, token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}}
";

fn limiter(delivery: &str, labels: &str) -> String {
    LIMITER
        .replace("DELIVERY", delivery)
        .replace("LABELS", labels)
}

/// Waits until the description of `reviews` begins with words.
async fn says(namespace: &Namespace<'_>, begin: &str) -> String {
    let path = format!("/api/v1/describe/smartlimiter/{}/reviews", namespace.name());
    let begin = format!("SmartLimiter {}/reviews: {begin}", namespace.name());
    let operator = operator().await;
    wait_for(&begin, BOUND, || async {
        let text = trimtab_lab::http::get(operator, &path).await;
        let text = text.map_err(|error| error.to_string())?;
        if text.starts_with(&begin) {
            return Ok(text);
        }
        Err(text)
    })
    .await
    .unwrap()
}

/// Waits until ten requests over a new connection are all let pass, or not.
async fn limits(proxy: &Proxy, wanted: bool) {
    let what = if wanted { "a limit" } else { "no limit" };
    wait_for(what, BOUND, || async {
        let mut connection = proxy.inbound(9080).await.map_err(|e| e.to_string())?;
        let counts = statuses(&mut connection, "reviews", &Request::get("/"), 10).await;
        if counts.contains_key(&429) == wanted {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_envoy_filter_that_counts_in_place_of_the_limit_is_named() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    operator().await;
    let namespace = Namespace::create(cluster, "described").await.unwrap();
    namespace.apply(SERVICE).await.unwrap();
    let pod = namespace.pod("reviews-0", &[("app", "reviews")]).await;
    let pod = pod.unwrap();
    let _app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    namespace
        .apply(&limiter("EnvoyFilter", "{}"))
        .await
        .unwrap();
    let text = says(&namespace, "LIMITING: 2/3600s for each proxy").await;
    assert!(text.contains("reviews-0  BY ISTIOD"), "{text}");
    limits(&proxy, true).await;

    let later = OVERRIDE.replace("PRIORITY", "20");
    namespace.apply(&later).await.unwrap();
    let text = says(&namespace, "NOT LIMITING: Overridden: ").await;
    let first = text.lines().next().unwrap();
    let name = format!("EnvoyFilter {}/other (configPatches[0])", namespace.name());
    assert!(
        first.contains(&name) && first.contains("lower spec.priority"),
        "{first}"
    );
    limits(&proxy, false).await;
    // kubectl sees it too.
    let get = [
        "get",
        "smartlimiters.microservice.slime.io",
        "reviews",
        "-o",
        "json",
    ];
    let object = namespace.kubectl(&get, "").await.unwrap();
    let object: Value = serde_json::from_str(&object).unwrap();
    let conditions = object["status"]["conditions"].as_array().cloned();
    let programmed = conditions
        .iter()
        .flatten()
        .find(|c| c["type"] == "Programmed");
    assert_eq!(programmed.unwrap()["reason"], "Overridden");

    // What the message says to do.
    let earlier = OVERRIDE.replace("PRIORITY", "5");
    namespace.apply(&earlier).await.unwrap();
    let text = says(&namespace, "LIMITING: 2/3600s").await;
    assert!(text.contains("others on the same pods:"), "{text}");
    limits(&proxy, true).await;
}

#[tokio::test]
async fn what_a_proxy_has_accepted_and_what_it_refuses_is_told() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    operator().await;
    let namespace = Namespace::create(cluster, "refusing").await.unwrap();
    namespace.apply(SERVICE).await.unwrap();
    let pod = namespace.pod("reviews-0", &[("app", "reviews")]).await;
    let pod = pod.unwrap();
    let _app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    // In place of ours a filter that takes a configuration of another type, so that the proxy refuses what Trimtab serves.
    let name = format!("trimtab.{}.reviews._base", namespace.name());
    let manager = "envoy.filters.network.http_connection_manager";
    let filter = json!({"name": name, "config_discovery": {
        "config_source": {"resource_api_version": "V3", "initial_fetch_timeout": "1s", "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [operator_xds().await.grpc_service()]}},
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"]}});
    let replace = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "other", "namespace": namespace.name()},
        "spec": {"priority": 20, "configPatches": [{"applyTo": "HTTP_FILTER",
            "match": {"context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": {"name": manager, "subFilter": {"name": name}}}}},
            "patch": {"operation": "REPLACE", "value": filter}}]}});
    namespace.apply(&replace.to_string()).await.unwrap();
    namespace.apply(&limiter("ECDS", "{}")).await.unwrap();
    let text = says(
        &namespace,
        "NOT LIMITING: Rejected: 1 of 1 proxies refuse it",
    )
    .await;
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(
        first.contains("says: ") && first.contains("buffer"),
        "{first}"
    );
    assert!(lines.next().unwrap().starts_with("  fix: "), "{text}");
    assert!(text.contains("/reviews-0  REFUSES  trimtab."), "{text}");
    limits(&proxy, false).await;

    let delete = ["delete", "envoyfilters.networking.istio.io", "other"];
    namespace.kubectl(&delete, "").await.unwrap();
    limits(&proxy, true).await;
    // The old listener drains with its own connection to the xDS server.
    let path = format!("/api/v1/limiters/{}/reviews/description", namespace.name());
    let answer = trimtab_lab::http::get(operator().await, &path)
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["rules"][0]["eachProxy"], "2/3600s");
    assert_ne!(answer["verdict"]["answer"], "No", "{answer}");
}

#[tokio::test]
async fn a_host_that_no_proxy_has_is_told_and_the_one_to_write() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    operator().await;
    let namespace = Namespace::create(cluster, "hosts").await.unwrap();
    namespace.apply(SERVICE).await.unwrap();
    let pod = namespace.pod("caller-0", &[("app", "caller")]).await;
    let _proxy = Proxy::start(cluster, istiod, &pod.unwrap()).await.unwrap();
    let to = |host: &str| {
        let target = json!({"direction": "outbound", "host": [host]});
        json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
            "metadata": {"name": "reviews", "namespace": namespace.name()},
            "spec": {"delivery": "ECDS", "workloadSelector": {"app": "caller"}, "sets": {"_base": {"descriptor": [
                {"condition": "true", "target": target, "action": {"quota": "2", "fill_interval": {"seconds": 3600}}}]}}}})
        .to_string()
    };
    namespace.apply(&to("reviews:80")).await.unwrap();
    let text = says(&namespace, "NOT LIMITING: NoSuchVirtualHost: ").await;
    let first = text.lines().next().unwrap();
    let (_, rest) = first.split_once("write \"").unwrap();
    let (meant, _) = rest.split_once('"').unwrap();
    namespace.apply(&to(meant)).await.unwrap();
    let text = says(&namespace, "LIMITING: 2/3600s").await;
    let text = if text.contains("caller-0  ACCEPTED") {
        text
    } else {
        wait_for("the proxy to have it", BOUND, || async {
            let text = says(&namespace, "LIMITING").await;
            text.contains("caller-0  ACCEPTED")
                .then_some(text)
                .ok_or("not yet".to_owned())
        })
        .await
        .unwrap()
    };
    assert!(text.contains("proxies: 1 of 1 have it"), "{text}");
}

#[tokio::test]
async fn proxies_of_another_revision_are_told() {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    operator().await;
    let namespace = Namespace::create(cluster, "revisions").await.unwrap();
    namespace.apply(SERVICE).await.unwrap();
    let pod = namespace.pod("reviews-0", &[("app", "reviews")]).await;
    let pod = pod.unwrap();
    // As its injector does.
    let note = r#"sidecar.istio.io/status={"revision":"default"}"#;
    let annotate = ["annotate", "pod", "reviews-0", note];
    namespace.kubectl(&annotate, "").await.unwrap();
    let _app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    let canary = limiter("EnvoyFilter", "{istio.io/rev: canary}");
    namespace.apply(&canary).await.unwrap();
    let text = says(&namespace, "NOT LIMITING: NoProxy: ").await;
    assert!(text.contains("of revision default of Istio"), "{text}");
    limits(&proxy, false).await;
    let own = limiter("EnvoyFilter", "{istio.io/rev: default}");
    namespace.apply(&own).await.unwrap();
    says(&namespace, "LIMITING: 2/3600s").await;
    limits(&proxy, true).await;
}
