//! SmartLimiters applied with kubectl, EnvoyFilters merged by istiod, requests counted at a stock Envoy.

use trimtab_cluster::{Connection, Kind, Minor, Namespace, Proxy, ProxyOptions, wait_for};
use trimtab_lab::http::Request;

use crate::fixture::{
    BOUND, application, cluster, example, istiod, limiter_state, operator, statuses,
};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: NAMESPACE}
spec:
  selector: {app: ratings}
  ports: [{name: http, port: 80, targetPort: 9081}]
";

const EDGE: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: NAMESPACE}
spec:
  selector: {istio: NAMESPACE}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*.example.com']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: free, namespace: NAMESPACE}
spec:
  hosts: [free.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: ratings, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: NAMESPACE}
spec:
  hosts: [shop.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: ratings, port: {number: 80}}}]}]
";

/// With the delivery that a limiter asks for.
fn with_delivery(limiter: &str, delivery: &str) -> String {
    limiter.replacen("spec:\n", &format!("spec:\n  delivery: {delivery}\n"), 1)
}

/// Opens connections until one meets a limit that lets exactly `allowed` of some requests pass. A configuration comes to
/// new connections a moment after it is shown.
async fn limit_holds<F, Fut>(open: F, host: &str, request: &Request, allowed: usize)
where
    F: Fn() -> Fut,
    Fut: Future<Output = trimtab_cluster::Result<Connection>>,
{
    wait_for("the limit", BOUND, || async {
        let mut connection = open().await.map_err(|error| error.to_string())?;
        let (status, _) = connection
            .send(host, request)
            .await
            .map_err(|error| error.to_string())?;
        // Requests before the limit count too: until it is there every one passes.
        if status == 429 {
            Ok(())
        } else {
            Err(format!("answered {status}"))
        }
    })
    .await
    .unwrap();
    let mut connection = open().await.unwrap();
    let counts = statuses(&mut connection, host, request, 5).await;
    assert_eq!(
        counts.get(&429),
        Some(&5),
        "{counts:?} with a limit of {allowed}"
    );
}

/// The tokens are counted from the arrival of the limit on, so that the application's count is exact when it is asked
/// only then.
async fn inbound(minor: Minor, delivery: &str) {
    let (cluster, istiod) = (cluster().await, istiod(minor).await);
    operator().await;
    let namespace = Namespace::create(cluster, "inbound").await.unwrap();
    namespace.apply(SERVICES).await.unwrap();
    let pod = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    let free = Request::get("/").header("tier", "free");
    let mut before = proxy.inbound(9080).await.unwrap();
    assert_eq!(before.send("reviews", &free).await.unwrap().0, 200);

    namespace
        .apply(&with_delivery(&example("limiter/inbound.yaml"), delivery))
        .await
        .unwrap();
    limiter_state(&namespace, "reviews", "Limiting").await;
    proxy.wait_listener("LocalRateLimit").await.unwrap();
    limit_holds(|| proxy.inbound(9080), "reviews", &free, 10).await;
    // Others are not limited, and neither is another tier.
    let mut connection = proxy.inbound(9080).await.unwrap();
    let gold = Request::get("/").header("tier", "gold");
    let counts = statuses(&mut connection, "reviews", &gold, 20).await;
    assert_eq!(counts.get(&200), Some(&20), "{counts:?}");
    assert!(app.requests() >= 31, "{}", app.requests());

    namespace
        .kubectl(
            &["delete", "smartlimiters.microservice.slime.io", "reviews"],
            "",
        )
        .await
        .unwrap();
    lifted(|| proxy.inbound(9080), "reviews", &free).await;
}

/// A bucket for each user, and headers that tell the limit: what istiod merges for proxies that know them, in place of what all get.
async fn by_value(minor: Minor) {
    let (cluster, istiod) = (cluster().await, istiod(minor).await);
    operator().await;
    let namespace = Namespace::create(cluster, "values").await.unwrap();
    namespace.apply(SERVICES).await.unwrap();
    let pod = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let _app = application(&pod, 9080).await;
    let proxy = Proxy::start(cluster, istiod, &pod).await.unwrap();
    let limiter = example("limiter/inbound.yaml")
        .replace(
            "exact_match: free",
            "present_match_separate: true, maxValues: 9",
        )
        .replace(
            "        match:",
            "          response: {rateLimitHeaders: true}\n        match:",
        )
        .replace(
            "{quota: \"10\", fill_interval: {seconds: 60}}",
            "\n          quota: \"10\"\n          fill_interval: {seconds: 60}",
        );
    namespace
        .apply(&with_delivery(&limiter, "EnvoyFilter"))
        .await
        .unwrap();
    limiter_state(&namespace, "reviews", "Limiting").await;
    let user = |name: &str| Request::get("/").header("tier", name);
    limit_holds(|| proxy.inbound(9080), "reviews", &user("a"), 10).await;
    let mut connection = proxy.inbound(9080).await.unwrap();
    let counts = statuses(&mut connection, "reviews", &user("b"), 12).await;
    assert_eq!((counts.get(&200), counts.get(&429)), (Some(&10), Some(&2)));
    let dump = proxy.envoy().config_dump().await.unwrap().to_string();
    assert!(
        dump.contains("DRAFT_VERSION_03"),
        "the headers are asked for"
    );
}

/// Deleting a limiter takes its limit away, by the garbage collector of Kubernetes.
async fn lifted<F, Fut>(open: F, host: &str, request: &Request)
where
    F: Fn() -> Fut,
    Fut: Future<Output = trimtab_cluster::Result<Connection>>,
{
    wait_for("the limit to go", BOUND, || async {
        let mut connection = open().await.map_err(|error| error.to_string())?;
        let counts = statuses(&mut connection, host, request, 12).await;
        if counts.contains_key(&429) {
            Err(format!("{counts:?}"))
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
}

async fn outbound(minor: Minor, delivery: &str) {
    let (cluster, istiod) = (cluster().await, istiod(minor).await);
    operator().await;
    let namespace = Namespace::create(cluster, "outbound").await.unwrap();
    namespace.apply(SERVICES).await.unwrap();
    let caller = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let server = namespace
        .pod("ratings-0", &[("app", "ratings")])
        .await
        .unwrap();
    let app = application(&server, 9081).await;
    let proxy = Proxy::start(cluster, istiod, &caller).await.unwrap();
    let host = format!("ratings.{}.svc.cluster.local", namespace.name());
    let vip = format!("{}:80", service_ip(&namespace, "ratings").await)
        .parse()
        .unwrap();
    let request = Request::get("/");
    reached(|| proxy.outbound(vip), &host, &request).await;
    assert!(app.requests() >= 1);

    let limiter = example("limiter/outbound.yaml");
    namespace
        .apply(&with_delivery(&limiter, delivery))
        .await
        .unwrap();
    limiter_state(&namespace, "reviews", "Limiting").await;
    proxy.wait_listener("LocalRateLimit").await.unwrap();
    limit_holds(|| proxy.outbound(vip), &host, &request, 4).await;
    namespace
        .kubectl(
            &["delete", "smartlimiters.microservice.slime.io", "reviews"],
            "",
        )
        .await
        .unwrap();
    lifted(|| proxy.outbound(vip), &host, &request).await;
}

async fn gateway(minor: Minor, delivery: &str) {
    let (cluster, istiod) = (cluster().await, istiod(minor).await);
    operator().await;
    let namespace = Namespace::create(cluster, "gateway").await.unwrap();
    namespace.apply(SERVICES).await.unwrap();
    namespace.apply(EDGE).await.unwrap();
    let edge = namespace
        .pod("edge-0", &[("istio", namespace.name())])
        .await
        .unwrap();
    let server = namespace
        .pod("ratings-0", &[("app", "ratings")])
        .await
        .unwrap();
    let _app = application(&server, 9081).await;
    let options = ProxyOptions {
        kind: Kind::Gateway,
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start_with(cluster, istiod, &edge, &options)
        .await
        .unwrap();
    let request = Request::get("/");
    reached(|| proxy.gateway(8080), "shop.example.com", &request).await;

    // Gateways of all namespaces select by label, so the label is of this namespace.
    let limiter = example("limiter/gateway.yaml").replace("istio: edge", "istio: NAMESPACE");
    namespace
        .apply(&with_delivery(&limiter, delivery))
        .await
        .unwrap();
    limiter_state(&namespace, "edge", "Limiting").await;
    proxy.wait_listener("LocalRateLimit").await.unwrap();
    limit_holds(|| proxy.gateway(8080), "shop.example.com", &request, 3).await;
    let mut connection = proxy.gateway(8080).await.unwrap();
    let counts = statuses(&mut connection, "free.example.com", &request, 10).await;
    assert_eq!(
        counts.get(&200),
        Some(&10),
        "the other host is not limited: {counts:?}"
    );
    namespace
        .kubectl(
            &["delete", "smartlimiters.microservice.slime.io", "edge"],
            "",
        )
        .await
        .unwrap();
    lifted(|| proxy.gateway(8080), "shop.example.com", &request).await;
}

async fn reached<F, Fut>(open: F, host: &str, request: &Request)
where
    F: Fn() -> Fut,
    Fut: Future<Output = trimtab_cluster::Result<Connection>>,
{
    wait_for("an answer through the proxy", BOUND, || async {
        let mut connection = open().await.map_err(|error| error.to_string())?;
        match connection.send(host, request).await {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap();
}

async fn service_ip(namespace: &Namespace<'_>, name: &str) -> String {
    let get = ["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"];
    namespace.kubectl(&get, "").await.unwrap()
}

macro_rules! limits {
    ($($module:ident: $minor:expr;)+) => {
        $(mod $module {
            use trimtab_cluster::Minor;

            #[tokio::test(flavor = "multi_thread")]
            async fn inbound_by_envoyfilter() {
                super::inbound($minor, "EnvoyFilter").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn inbound_by_ecds() {
                super::inbound($minor, "ECDS").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn fault_l16_by_value() {
                super::by_value($minor).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn outbound_by_envoyfilter() {
                super::outbound($minor, "EnvoyFilter").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn outbound_by_ecds() {
                super::outbound($minor, "ECDS").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn gateway_by_envoyfilter() {
                super::gateway($minor, "EnvoyFilter").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn gateway_by_ecds() {
                super::gateway($minor, "ECDS").await;
            }
        })+
    };
}

limits! {
    newest_istio: Minor::Newest;
    previous_istio: Minor::Previous;
}
