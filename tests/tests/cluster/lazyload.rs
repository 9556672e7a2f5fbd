//! Lazy scoping through a real istiod: a ServiceFence makes a proxy's configuration small, the first call to what it does
//! not know arrives by the fallback, and the scope follows.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trimtab_cluster::{Cluster, Minor, Namespace, Pod, Proxy, wait_for};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_lab::ports::free_address;
use trimtab_lab::upstream::Upstream;
use trimtab_lazyload::config::GlobalSidecarMode;
use trimtab_lazyload::fallback::proxy::{ProxyOptions as FallbackOptions, bootstrap};
use trimtab_lazyload::fallback::{FallbackInput, manifests};

use crate::fixture::{BOUND, addresses, application, cluster, istiod};

/// Namespace with a fallback, as the operator of the tests is configured.
const NAMESPACE: &str = "lazy";
const PORT: u16 = 9080;
/// Services that the caller does not need.
const OTHERS: usize = 60;

fn services(namespace: &str) -> Value {
    let names = (0..OTHERS)
        .map(|i| format!("other{i}"))
        .chain(["reviews".to_owned()]);
    let service = |name: String| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": PORT}]}})
    };
    names.map(service).collect()
}

fn fence(namespace: &str) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
        "metadata": {"name": "caller", "namespace": namespace},
        "spec": {"enable": true, "workloadSelector": {"labels": {"app": "caller"}}}})
}

async fn apply(cluster: &Cluster, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    cluster
        .kubectl(&["apply", "-f", "-"], &list.to_string())
        .await
        .unwrap();
}

struct Fixture {
    namespace: Namespace<'static>,
    reviews: Pod,
    app: Upstream,
    fallback: Envoy,
    proxy: Proxy,
}

/// A namespace with many services, a fallback that is ready, and a caller that knows everything.
async fn fixture() -> Fixture {
    let (cluster, istiod) = (cluster().await, istiod(Minor::Newest).await);
    let namespace = Namespace::named(cluster, NAMESPACE).await.unwrap();
    let disabled = ["label", "namespace", NAMESPACE, "istio-injection=disabled"];
    cluster.kubectl(&disabled, "").await.unwrap();
    let mut input = FallbackInput::default();
    input.ports.insert(PORT);
    input.config.fallback.tcp = true;
    input.config.fallback.global_sidecar_mode = GlobalSidecarMode::Namespace;
    input.config.fallback.namespace = vec![NAMESPACE.to_owned()];
    let Value::Array(mut objects) = services(NAMESPACE) else {
        unreachable!("a list");
    };
    objects.extend(manifests(&input));
    apply(cluster, &objects).await;
    let reviews = namespace
        .pod("reviews-0", &[("app", "reviews")])
        .await
        .unwrap();
    let fallback_pod = namespace
        .pod("global-sidecar-0", &[("app", "global-sidecar")])
        .await
        .unwrap();
    let options = FallbackOptions {
        http: fallback_pod.address(15080),
        tcp: Some(fallback_pod.address(15081)),
        probe: fallback_pod.address(18181),
        admin: free_address().unwrap(),
        access_log: addresses().await.access_logs.to_string(),
        refuse: Vec::new(),
        ..FallbackOptions::default()
    };
    let fallback = Envoy::start(&bootstrap(&options), &cluster.dir().join("fallback.lazy"))
        .await
        .unwrap();
    let caller = namespace
        .pod("caller-0", &[("app", "caller")])
        .await
        .unwrap();
    Fixture {
        app: application(&reviews, PORT).await,
        namespace,
        reviews,
        fallback,
        proxy: Proxy::start_by_agent(cluster, istiod, &caller, &json!({}))
            .await
            .unwrap(),
    }
}

/// What istiod sent to a proxy.
struct Sent {
    /// Names of the clusters of services.
    clusters: Vec<String>,
    /// Route configurations, as JSON.
    routes: String,
    /// Bytes of clusters and endpoints. Listeners and routes have what EnvoyFilters of other tests, for the whole mesh, add.
    bytes: usize,
}

impl Sent {
    fn of(dump: &Value) -> Self {
        let sections = dump["configs"].as_array().unwrap();
        let section = |kind: &str| {
            let of_kind = move |s: &&Value| s["@type"].as_str().is_some_and(|t| t.ends_with(kind));
            sections.iter().find(of_kind).unwrap_or(&Value::Null)
        };
        let clusters = section(".ClustersConfigDump");
        let active = clusters["dynamic_active_clusters"].as_array();
        let names = active
            .into_iter()
            .flatten()
            .filter_map(|c| c["cluster"]["name"].as_str().map(str::to_owned));
        Self {
            clusters: names.filter(|n| n.starts_with("outbound|")).collect(),
            routes: section(".RoutesConfigDump").to_string(),
            bytes: [clusters, section(".EndpointsConfigDump")]
                .map(|s| s.to_string().len())
                .iter()
                .sum(),
        }
    }

    fn knows(&self, host: &str) -> bool {
        let cluster = cluster_of(host);
        self.clusters.iter().any(|c| c.contains(&cluster))
    }

    /// Routes come after clusters: until then a call of a host that lost its cluster gets 503.
    fn routes_to(&self, host: &str) -> bool {
        self.routes.contains(&cluster_of(host))
    }
}

fn cluster_of(host: &str) -> String {
    format!("||{host}.{NAMESPACE}.")
}

impl Fixture {
    async fn carried(&self) -> u64 {
        self.fallback
            .stat("http.http.downstream_rq_total")
            .await
            .unwrap()
    }

    /// Waits until a call does not go by the fallback: routes come after clusters. None is lost meanwhile.
    async fn direct(&self) {
        let direct = wait_for("a call past the fallback", BOUND, || async {
            let before = self.carried().await;
            assert_eq!(self.call().await, 200);
            if self.carried().await == before {
                Ok(())
            } else {
                Err("still by the fallback".to_owned())
            }
        });
        direct.await.unwrap();
    }

    async fn call(&self) -> u16 {
        let destination = SocketAddrV4::new(self.reviews.local(), PORT);
        let mut connection = self.proxy.outbound(destination).await.unwrap();
        connection
            .send("reviews:9080", &Request::get("/"))
            .await
            .unwrap()
            .0
    }

    /// The configuration once it is good.
    async fn config(
        &self,
        what: &str,
        good: impl Fn(&Sent) -> bool + Send + Sync,
    ) -> (usize, usize) {
        let found = self.proxy.wait_config(what, |dump| {
            let sent = Sent::of(dump);
            if good(&sent) {
                Ok((sent.clusters.len(), sent.bytes))
            } else {
                Err(format!("{} clusters", sent.clusters.len()))
            }
        });
        match found.await {
            Ok(sizes) => sizes,
            Err(error) => panic!("{error}; {:#}", self.fence().await["status"]),
        }
    }

    async fn fence(&self) -> Value {
        let get = ["get", "servicefence", "caller", "-o", "json"];
        let text = self.namespace.kubectl(&get, "").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// What the status says once the call is learned.
fn tells(fence: &Value) {
    let condition = |kind: &str| {
        let all = fence["status"]["conditions"].as_array().unwrap().iter();
        all.filter(|c| c["type"] == kind)
            .map(|c| c["status"].clone())
            .next()
    };
    for kind in ["Accepted", "FallbackReady", "Programmed"] {
        assert_eq!(condition(kind), Some(json!("True")), "{fence:#}");
    }
    let learned = &fence["status"]["dependencies"][0];
    assert_eq!(
        learned["host"],
        format!("reviews.{NAMESPACE}.svc.cluster.local")
    );
    assert_eq!(
        (&learned["caller"], &learned["evidence"]),
        (&json!("caller-0"), &json!(["AccessLog"]))
    );
}

/// Nothing that istioctl knows is wrong.
async fn analyzed() {
    let text = cluster()
        .await
        .istioctl(&["analyze", "-n", NAMESPACE, "-o", "json"])
        .await
        .unwrap();
    let found: Vec<Value> = serde_json::from_str(text.trim()).unwrap();
    // Of every EnvoyFilter it says that it exposes internals.
    let odd: Vec<&Value> = found.iter().filter(|m| m["code"] != "IST0133").collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_makes_the_configuration_small_and_the_first_call_widens_it() {
    let fixture = fixture().await;
    let wide = fixture
        .config("everything", |sent| {
            sent.knows("other0") && sent.knows("reviews")
        })
        .await;
    apply(cluster().await, &[fence(NAMESPACE)]).await;
    let narrow = fixture
        .config("the fallback alone", |sent| {
            !["reviews", "other0"]
                .map(|h| sent.knows(h) || sent.routes_to(h))
                .contains(&true)
                && sent.knows("global-sidecar")
                && sent.routes_to("global-sidecar")
        })
        .await;
    let small = narrow.0 * 4 < wide.0 && narrow.1 * 2 < wide.1;
    assert!(small, "clusters and bytes: {narrow:?} of {wide:?}");

    let begun = Instant::now();
    assert_eq!(fixture.call().await, 200);
    let first = begun.elapsed();
    assert_eq!(
        (fixture.app.requests(), fixture.carried().await),
        (1, 1),
        "the fallback carried it"
    );
    fixture
        .config("reviews", |sent| sent.knows("reviews"))
        .await;
    let known = begun.elapsed();
    fixture.direct().await;
    let after = fixture
        .config("reviews and no more", |sent| {
            sent.knows("reviews") && !sent.knows("other0")
        })
        .await;
    println!(
        "clusters and bytes: all {wide:?}, fenced {narrow:?}, learned {after:?}; first call {first:?}, in scope after {known:?}"
    );
    for _ in 0..200 {
        assert_eq!(fixture.call().await, 200);
    }

    tells(&fixture.fence().await);
    analyzed().await;
    cluster()
        .await
        .kubectl(&["-n", NAMESPACE, "delete", "servicefence", "caller"], "")
        .await
        .unwrap();
    let again = fixture.config("everything again", |sent| {
        sent.knows("other0") && sent.knows("reviews")
    });
    tokio::time::timeout(BOUND + Duration::from_secs(5), again)
        .await
        .unwrap();
}
