//! A proxy refuses what is made of several objects: one of them is found and left out, and the others do not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::istio::VirtualService;
use trimtab_crds::limiter::v1alpha2::SmartLimiter;
use trimtab_dataplane::bootstrap;
use trimtab_dataplane::module::Proxies;
use trimtab_embedded::Embedded;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::ports::free_port;
use trimtab_lab::upstream::Upstream;
use trimtab_xds::RDS;

use crate::http::pod;
use crate::lab::{BOUND, NODE, folder, options, until};

/// Valid, and too large for a proxy that takes small patterns only.
const LARGE: &str = "/(a|bc|def|ghij){40}";
const SERVICES: usize = 7;
const ENTRIES: usize = 3;

fn load(embedded: &Embedded, object: Value) {
    embedded.load(object).expect("a good object");
}

fn host(i: usize) -> String {
    if i < SERVICES {
        format!("s{i}.shop.svc.cluster.local")
    } else {
        format!("e{i}.example")
    }
}

fn entry(i: usize, hosts: &[&str], port: u16, at: SocketAddr) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": format!("e{i}"), "namespace": "shop"},
        "spec": {"hosts": hosts, "resolution": "STATIC", "ports": [{"name": "http", "number": port, "protocol": "HTTP"}],
            "endpoints": [{"address": "127.0.0.1", "ports": {"http": at.port()}}]}})
}

/// Ten objects on one port, with the same server behind them.
fn ten(port: u16, at: SocketAddr) -> Vec<Value> {
    let mut out = Vec::new();
    for i in 0..SERVICES {
        let name = format!("s{i}");
        out.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]}}));
        out.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": at.port()}], "endpoints": [{"addresses": ["127.0.0.1"]}]}));
    }
    out.extend((SERVICES..SERVICES + ENTRIES).map(|i| entry(i, &[&host(i)], port, at)));
    out
}

fn routes(path: &str) -> Value {
    let to = json!([{"destination": {"host": "s1"}}]);
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "s1", "namespace": "shop"},
        "spec": {"hosts": ["s1"], "http": [{"match": [{"uri": {"regex": path}}], "route": to}, {"route": to}]}})
}

fn limiter(path: &str) -> Value {
    json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": {"name": "s2", "namespace": "shop"},
        "spec": {"delivery": "ECDS", "sets": {"_base": {"descriptor": [{"condition": "true",
            "match": [{"name": ":path", "regex_match": path}],
            "action": {"quota": "1000000", "fill_interval": {"seconds": 1}}}]}}}})
}

/// The whole of it, with one proxy.
struct Whole {
    embedded: Embedded,
    operator: Operator,
    envoy: Option<Envoy>,
    upstream: Upstream,
    port: u16,
    name: &'static str,
}

impl Whole {
    async fn start(name: &'static str, more: Vec<Value>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let upstream = pod("all").await;
        let port = free_port().expect("a port");
        let embedded = standalone::embedded().expect("an API");
        embedded.ensure_namespace("shop").expect("a namespace");
        for object in ten(port, upstream.address()).into_iter().chain(more) {
            load(&embedded, object);
        }
        let mut config = Config::default();
        config.http.address.set_port(0);
        config.xds.address.set_port(0);
        config.data_plane = Some(Proxies::default());
        let operator = Operator::start(config, embedded.client(), CancellationToken::new()).await;
        let operator = operator.expect("an operator");
        until("it is ready", || operator.cache.is_ready()).await;
        let mut whole = Self {
            embedded,
            operator,
            envoy: None,
            upstream,
            port,
            name,
        };
        whole.envoy = Some(whole.proxy().await);
        whole
    }

    /// Version of the routes of the port.
    fn version(&self) -> String {
        let name = format!("127.0.0.1_{}", self.port);
        let routes = self.operator.cache.get(RDS, &name).expect("routes");
        routes.version.clone()
    }

    fn mistakes(&self) -> Vec<String> {
        let findings = self.operator.modules.iter().flat_map(|m| m.findings());
        findings.map(|f| f.message).collect()
    }

    /// A proxy that takes small patterns only.
    async fn proxy(&self) -> Envoy {
        let mut config = bootstrap(&options(self.operator.xds));
        config["layered_runtime"] = json!({"layers": [{"name": "test", "static_layer": {"re2.max_program_size.error_level": 100}}]});
        let envoy = Envoy::start(&config, &folder(self.name)).await;
        envoy.expect("a proxy")
    }

    async fn condition<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        kind: &str,
    ) -> Option<String> {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.embedded.client(),
            "shop",
            &ApiResource::erase::<K>(&()),
        );
        let object = api.get(name).await.expect("the object");
        let conditions = object.data["status"]["conditions"].as_array()?;
        let of = conditions.iter().find(|c| c["type"] == kind)?;
        let text = |field: &str| of[field].as_str().unwrap_or_default().to_owned();
        Some(format!("{} {}", text("status"), text("message")))
    }

    async fn until_condition<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        kind: &str,
        begins: &str,
    ) -> String {
        let started = Instant::now();
        loop {
            let found = self.condition::<K>(name, kind).await;
            if let Some(found) = found.as_ref().filter(|f| f.starts_with(begins)) {
                return found.clone();
            }
            assert!(
                started.elapsed() < BOUND,
                "{kind} of {name} never is {begins}: {found:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the proxy has taken all that is served now.
    async fn until_synced(&self) {
        until("the proxy has what is served", || {
            let node = self.operator.cache.node(NODE).expect("it is connected");
            let resources = node.subscriptions.into_iter().flat_map(|s| s.resources);
            resources.into_iter().all(|r| r.is_synced())
        })
        .await;
    }

    async fn call(&self, i: usize) -> u16 {
        let at = SocketAddr::from(([127, 0, 0, 1], self.port));
        let Ok(mut connection) = KeepAlive::connect(at).await else {
            return 0;
        };
        let request = Request::get("/").header("host", &host(i));
        connection.send(&request).await.map_or(0, |r| r.status)
    }

    async fn until_all_answer(&self) {
        let started = Instant::now();
        for i in 0..SERVICES + ENTRIES {
            while self.call(i).await != 200 {
                assert!(started.elapsed() < BOUND, "{} never answers", host(i));
            }
        }
    }
}

/// Calls all hosts but one, one after the other on one connection each, until it is stopped: how many calls there were,
/// and those that failed.
struct Calls {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, Vec<String>)>,
}

impl Calls {
    fn start(port: u16, but: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let mut connection = KeepAlive::connect(at).await.expect("the proxy");
            let (mut calls, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) && failed.is_empty() {
                for i in (0..SERVICES + ENTRIES).filter(|i| *i != but) {
                    let request = Request::get("/").header("host", &host(i));
                    let answer = connection.send(&request).await.map_or(0, |r| r.status);
                    calls += 1;
                    if answer != 200 {
                        failed.push(format!("{}: {answer}", host(i)));
                    }
                }
            }
            (calls, failed)
        });
        Self { stop, task }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (calls, failed) = self.task.await.expect("no panic");
        assert_eq!(failed, Vec::<String>::new(), "of {calls} calls");
        calls
    }
}

fn report(kind: &str, took: Duration, calls: u64) {
    println!("{kind}: named after {took:?}; {calls} calls of the other nine, none failed");
}

/// A bad VirtualService, and another change of the routes while it is bad.
async fn bad_routes(whole: &Whole) {
    let calls = Calls::start(whole.port, 1);
    let started = Instant::now();
    load(&whole.embedded, routes(LARGE));
    let told = whole
        .until_condition::<VirtualService>("s1", "Programmed", "False")
        .await;
    let took = started.elapsed();
    assert!(told.contains("regex"), "{told}");
    load(&whole.embedded, limiter("/b"));
    whole
        .until_condition::<SmartLimiter>("s2", "Applied", "True")
        .await;
    whole.until_synced().await;
    assert_eq!(whole.call(1).await, 200, "its last good routes stay");
    report("VirtualService", took, calls.end().await);
    load(&whole.embedded, routes("/c"));
    whole
        .until_condition::<VirtualService>("s1", "Programmed", "True")
        .await;
}

async fn bad_limit(whole: &Whole) {
    let calls = Calls::start(whole.port, 2);
    let started = Instant::now();
    load(&whole.embedded, limiter(LARGE));
    let told = whole
        .until_condition::<SmartLimiter>("s2", "Applied", "False")
        .await;
    assert!(told.contains("regex"), "{told}");
    report("SmartLimiter", started.elapsed(), calls.end().await);
    load(&whole.embedded, limiter("/d"));
    whole
        .until_condition::<SmartLimiter>("s2", "Applied", "True")
        .await;
}

fn rule(i: usize, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["host"] = json!(format!("s{i}"));
    json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": format!("s{i}"), "namespace": "shop"}, "spec": spec})
}

/// Objects that describe services, each bad in turn. Returns them with the number
/// of the host that each is for.
fn bad_services(port: u16, at: SocketAddr) -> Vec<(usize, Value)> {
    let (e7, e8) = (SERVICES, SERVICES + 1);
    let at_address = |i: usize, address: &str| {
        let mut bad = entry(i, &[&host(i)], port, at);
        bad["spec"]["endpoints"][0]["address"] = json!(address);
        bad
    };
    let mut other_transport = ten(port, at).swap_remove(2 * 4);
    other_transport["spec"]["ports"][0]["protocol"] = json!("SCTP");
    let hash = json!({"loadBalancer": {"consistentHash": {"httpHeaderName": "a\nb"}}});
    let timeout = json!({"connectionPool": {"tcp": {"connectTimeout": "soon"}}});
    vec![
        (e7, at_address(e7, "999.0.0.1")),
        (e7, at_address(e7, "unix:///run/e7")),
        (e8, entry(e8, &[&host(e8), "two words.example"], port, at)),
        (4, other_transport),
        (6, rule(6, &json!({"trafficPolicy": hash}))),
        (3, rule(3, &json!({"trafficPolicy": timeout}))),
    ]
}

async fn each_bad_service(whole: &Whole) {
    let at = whole.upstream.address();
    for (i, bad) in bad_services(whole.port, at) {
        let text = |field: &str| bad[field].as_str().unwrap_or_default().to_owned();
        let name = bad["metadata"]["name"].as_str().unwrap_or_default();
        let title = format!("{} shop/{name}", text("kind"));
        let calls = Calls::start(whole.port, i);
        let started = Instant::now();
        load(&whole.embedded, bad.clone());
        until(&format!("{bad} is named"), || {
            whole.mistakes().iter().any(|m| m.contains(&title))
        })
        .await;
        let took = started.elapsed();
        whole.until_synced().await;
        report(&title, took, calls.end().await);
        for object in ten(whole.port, at) {
            load(&whole.embedded, object);
        }
        whole.until_all_answer().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_of_ten_on_a_port_hurts_only_itself() {
    let whole = Whole::start("isolated", vec![routes("/a"), limiter("/a")]).await;
    whole.until_all_answer().await;
    bad_routes(&whole).await;
    bad_limit(&whole).await;
    whole.until_all_answer().await;
    each_bad_service(&whole).await;
    whole.operator.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_t10_a_limit_that_no_proxy_takes_at_its_start_says_so_and_the_rest_works() {
    let whole = Whole::start("isolated-cold", vec![limiter(LARGE)]).await;
    let started = Instant::now();
    whole.until_all_answer().await;
    println!(
        "all ten answer {:?} after the start of the proxy",
        started.elapsed()
    );
    let told = whole
        .until_condition::<SmartLimiter>("s2", "Applied", "False")
        .await;
    assert!(told.contains("regex") && told.contains(NODE), "{told}");
    let ready = whole
        .until_condition::<SmartLimiter>("s2", "Ready", "False")
        .await;
    assert!(ready.contains("Applied"), "{ready}");
    whole.operator.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_m14_the_last_good_routes_stay_while_a_newer_version_has_a_mistake() {
    let to = |host: &str| json!([{"destination": {"host": host}}]);
    let rare = |rule: Value| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "s1", "namespace": "shop"},
            "spec": {"hosts": ["s1"], "http": [rule, {"route": to("s1")}]}})
    };
    let good = rare(json!({"match": [{"uri": {"regex": "/rare/"}}], "route": to("s3")}));
    let whole = Whole::start("last-good", vec![good.clone()]).await;
    let before = whole.version();
    for bad in [
        json!({"match": [{"uri": {"regex": "/rare/("}}], "route": to("s3")}),
        json!({"match": [{"headers": {"a": {"regex": "("}}}], "route": to("s3")}),
        json!({"match": [{"queryParams": {"a": {"regex": "("}}}], "route": to("s3")}),
        json!({"match": [{"uri": {"prefix": "/rare/"}}], "redirect": {"uri": "/"}}),
        json!({"match": [{"uri": {"prefix": "/rare/"}}], "route": to("nowhere")}),
        json!({"match": [{"uri": {"prefix": "/rare/"}}], "route": to("s3"), "timeout": "soon"}),
    ] {
        load(&whole.embedded, rare(bad.clone()));
        let stays = |m: &String| {
            m.contains("VirtualService shop/s1: spec.http[0]")
                && m.contains("the last good routes stay in force")
        };
        until(&format!("it is told of {bad}"), || {
            whole.mistakes().iter().any(stays)
        })
        .await;
        assert_eq!(whole.version(), before, "{bad}");
        load(&whole.embedded, good.clone());
        until("it is good again", || !whole.mistakes().iter().any(stays)).await;
        assert_eq!(whole.version(), before, "{bad}");
    }
    whole.operator.stop().await.expect("it stops");
}
