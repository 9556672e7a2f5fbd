//! The harness itself: a stock Envoy is a sidecar of istiod.

use trimtab_cluster::{Cluster, Istiod, Namespace, Proxy};
use trimtab_lab::http::Request;
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: NAMESPACE}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_envoy_serves_inbound_and_outbound_as_istiod_says() {
    let cluster = Cluster::shared().await.unwrap();
    let istiod = Istiod::start(cluster).await.unwrap();
    let namespace = Namespace::create(cluster, "sidecar").await.unwrap();
    namespace.apply(SERVICE).await.unwrap();
    let pod = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let app = Upstream::start(
        pod.address(9080),
        PodSpec {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            capacity: 1000.0,
        },
        Clock::real(),
    )
    .await
    .unwrap();
    let proxy = Proxy::start(cluster, &istiod, &pod).await.unwrap();
    let mut inbound = proxy.inbound(9080).await.unwrap();
    let (status, body) = inbound.send("reviews", &Request::get("/")).await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(app.requests(), 1);
}
