//! What the tests share: one cluster, one istiod of each minor, one operator installed by the chart.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_cluster::{
    Cluster, Connection, Istiod, Minor, Namespace, Pod, TOKEN_FILE, service_account_token, wait_for,
};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_lab::http::Request;
use trimtab_lab::upstream::{Clock, PodSpec, Upstream};
use trimtab_lazyload::config::AccessLog;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;

/// Namespace of the chart's release.
pub const RELEASE_NAMESPACE: &str = "trimtab-system";

/// How long a change may take from the object to the proxy.
pub const BOUND: Duration = Duration::from_secs(30);

static NEWEST: OnceCell<Istiod> = OnceCell::const_new();
static PREVIOUS: OnceCell<Istiod> = OnceCell::const_new();
static OPERATOR: OnceCell<Addresses> = OnceCell::const_new();

/// Where the operator listens.
#[derive(Clone)]
pub struct Addresses {
    pub http: SocketAddr,
    pub xds: XdsEndpoint,
    pub access_logs: SocketAddr,
}

pub async fn cluster() -> &'static Cluster {
    Cluster::shared().await.unwrap()
}

pub async fn istiod(minor: Minor) -> &'static Istiod {
    let cell = match minor {
        Minor::Newest => &NEWEST,
        Minor::Previous => &PREVIOUS,
    };
    let start = || async { Istiod::start_minor(cluster().await, minor).await.unwrap() };
    cell.get_or_init(start).await
}

/// Installs the chart and runs the operator with the token of its ServiceAccount and the configuration of its ConfigMap,
/// but for the addresses; the address of its HTTP endpoints.
///
/// One for all tests, as in production: two would write the same objects in turn.
pub async fn operator() -> SocketAddr {
    addresses().await.http
}

/// How proxies reach its xDS server.
pub async fn operator_xds() -> XdsEndpoint {
    addresses().await.xds
}

/// Where it listens.
pub async fn addresses() -> Addresses {
    OPERATOR.get_or_init(start_operator).await.clone()
}

/// Fallbacks of the namespaces of the tests, each for itself.
const LAZYLOAD: &str = r#"config.lazyload={"fallback": {"globalSidecarMode": "namespace", "namespace": ["lazy"], "tcp": true}}"#;

/// Stock proxies whose bootstrap knows the authority of our xDS server; each test sees its own namespace.
const METAPROTOCOL: &str = r#"config.metaprotocol={"dataPlane": "Envoy", "scope": "serviceNamespace",
    "deliveries": ["routeDiscovery", "ecds", "inline"]}"#;

async fn start_operator() -> Addresses {
    let cluster = cluster().await;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/trimtab");
    let install = [
        "install",
        "trimtab",
        chart,
        "-n",
        RELEASE_NAMESPACE,
        "--create-namespace",
        "--set-json",
        METAPROTOCOL,
        "--set-json",
        LAZYLOAD,
        // Tests start it, as no pod runs here.
        "--set",
        "fallback.external=true",
    ];
    cluster.helm(&install).await.unwrap();
    let token = service_account_token(cluster, RELEASE_NAMESPACE, "trimtab", &[])
        .await
        .unwrap();
    let mut config = chart_config(cluster, RELEASE_NAMESPACE, "trimtab").await;
    config.edit::<Limiter>(|c| c.refresh = trimtab_crds::Duration::from_millis(500));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A runtime of its own: that of a test ends with the test.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            // Made here, because a client's connections belong to the runtime in which it is made.
            let client = cluster.client_with_token(&token).await.unwrap();
            let operator = Operator::start(config, client, CancellationToken::new())
                .await
                .unwrap();
            let addresses = Addresses {
                http: operator.http,
                xds: operator.xds_endpoint.clone(),
                access_logs: operator.listeners["lazyload.learn.accessLog.address"],
            };
            sender.send(addresses).ok().unwrap();
            operator.wait().await.unwrap();
        });
    });
    receiver.await.unwrap()
}

/// The configuration of an installed chart, listening on free loopback ports.
pub async fn chart_config(cluster: &Cluster, namespace: &str, name: &str) -> Config {
    let get = [
        "-n",
        namespace,
        "get",
        "configmap",
        name,
        "-o",
        "jsonpath={.data.config\\.yaml}",
    ];
    let text = cluster.kubectl(&get, "").await.unwrap();
    let mut config: Config = serde_saphyr::from_str(&text).unwrap();
    config.check().unwrap();
    config.http.address = trimtab_lab::ports::free_address().unwrap();
    config.xds.address = trimtab_lab::ports::free_address().unwrap();
    config.xds.advertise = config.xds.address.to_string();
    if let Some(tokens) = &mut config.xds.tokens {
        TOKEN_FILE.clone_into(&mut tokens.file);
    }
    let address = trimtab_lab::ports::free_address().unwrap();
    // Its proxies have the addresses of their pods only on the way in.
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    config.edit::<Lazyload>(|c| {
        c.learn.access_log = Some(AccessLog {
            address,
            trusted,
            ..AccessLog::default()
        });
    });
    config
}

/// An application of a pod: it answers and counts.
pub async fn application(pod: &Pod, port: u16) -> Upstream {
    let spec = PodSpec {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        capacity: 1000.0,
    };
    Upstream::start(pod.address(port), spec, Clock::real())
        .await
        .unwrap()
}

/// The limiter in a file of `examples/`, which begins with it, for the Services `reviews` and `ratings` of the tests.
pub fn example(name: &str) -> String {
    let path = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let limiter = text.split("\n---\n").next().unwrap();
    let ours = ["orders", "search", "checkout"];
    let named = ours.iter().fold(limiter.to_owned(), |text, name| {
        text.replace(
            &format!("metadata: {{name: {name}}}"),
            "metadata: {name: reviews}",
        )
    });
    named.replace("payments.default.svc", "ratings.NAMESPACE.svc")
}

/// Sends `count` requests over one connection; how many got each status.
pub async fn statuses(
    connection: &mut Connection,
    host: &str,
    request: &Request,
    count: usize,
) -> std::collections::BTreeMap<u16, usize> {
    let mut all = std::collections::BTreeMap::new();
    for _ in 0..count {
        let (status, _) = connection.send(host, request).await.unwrap();
        *all.entry(status).or_default() += 1;
    }
    all
}

/// Waits until the SmartLimiter says `state` in its status.
pub async fn limiter_state(namespace: &Namespace<'_>, name: &str, state: &str) -> Value {
    wait_for(&format!("{name} to be {state}"), BOUND, || async {
        let get = [
            "get",
            "smartlimiters.microservice.slime.io",
            name,
            "-o",
            "json",
        ];
        let text = namespace
            .kubectl(&get, "")
            .await
            .map_err(|error| error.to_string())?;
        let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if object["status"]["state"] == state {
            return Ok(object);
        }
        Err(object["status"].to_string())
    })
    .await
    .unwrap()
}
