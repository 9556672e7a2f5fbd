//! Two istiods of different revisions and versions, and one Trimtab for the proxies of both.

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace, Proxy, wait_for};
use trimtab_lab::http::Request;
use trimtab_metaprotocol::module::Metaprotocol;

use crate::fixture::{BOUND, application, statuses};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: unneeded}
spec: {selector: {app: unneeded}, ports: [{name: http, port: 9080}]}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: reviews}
spec:
  sets:
    _base:
      descriptor:
      - condition: \"true\"
        action: {quota: \"2\", fill_interval: {seconds: 3600}}
        target: {direction: inbound, port: 9080}
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: reviews}
spec: {enable: true, workloadSelector: {labels: {app: reviews}}}
";

/// Without a fallback, so that a first Sidecar waits for nothing.
async fn operator(cluster: &Cluster) -> Operator {
    let mut config = Config::default();
    let text = "{fallback: {enabled: false}, exclusions: {istiod: ''}}";
    let lazyload = serde_saphyr::from_str(text).unwrap();
    config.modules.insert("lazyload".to_owned(), lazyload);
    config.check().unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.edit::<Metaprotocol>(|c| c.enabled = false);
    let client = cluster.client().await.unwrap();
    Operator::start(config, client, CancellationToken::new())
        .await
        .unwrap()
}

/// Waits until a proxy refuses what is above the limit.
async fn limited(proxy: &Proxy) {
    let request = Request::get("/");
    wait_for("the limit", BOUND, || async {
        let connection = proxy.inbound(9080).await;
        let mut connection = connection.map_err(|error| error.to_string())?;
        let counts = statuses(&mut connection, "reviews", &request, 3).await;
        let refused = counts.contains_key(&429);
        refused.then_some(()).ok_or_else(|| format!("{counts:?}"))
    })
    .await
    .unwrap();
}

/// Waits until a proxy has the Service that nobody needs, or has it no more.
async fn has_unneeded(proxy: &Proxy, wanted: bool) {
    let check = |dump: &Value| {
        let has = dump["configs"].to_string().contains("||unneeded.");
        (has == wanted)
            .then_some(())
            .ok_or_else(|| format!("has it: {has}"))
    };
    proxy.wait_config("the scope", check).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trimtab_serves_two_revisions() {
    let cluster = Cluster::start().await.unwrap();
    let stable = Istiod::start_revision(&cluster, Minor::Previous, "stable").await;
    let canary = Istiod::start_revision(&cluster, Minor::Newest, "canary").await;
    let istiods = [stable.unwrap(), canary.unwrap()];
    let namespace = Namespace::create(&cluster, "revisions").await.unwrap();
    let (mut proxies, mut apps) = (Vec::new(), Vec::new());
    for (number, istiod) in istiods.iter().enumerate() {
        let name = format!("reviews-{number}");
        let pod = namespace.pod(&name, &[("app", "reviews")]).await.unwrap();
        apps.push(application(&pod, 9080).await);
        proxies.push(Proxy::start(&cluster, istiod, &pod).await.unwrap());
    }
    let _operator = operator(&cluster).await;
    namespace.apply(OBJECTS).await.unwrap();
    for proxy in &proxies {
        limited(proxy).await;
        has_unneeded(proxy, false).await;
    }
    // A label leaves it to one of them.
    let label = ["label", "servicefence", "reviews", "istio.io/rev=canary"];
    namespace.kubectl(&label, "").await.unwrap();
    has_unneeded(&proxies[0], true).await;
    has_unneeded(&proxies[1], false).await;
}
