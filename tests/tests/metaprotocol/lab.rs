//! A proxy as Istio would have configured it, with what Trimtab makes of an input, and programs that speak its protocol.
//!
//! istiod's place is taken by [`Fixture`]: it merges EnvoyFilters into a bootstrap with one listener for each address, each
//! with a TCP proxy, and clusters with Istio's names. Everything else is real: Envoy, the xDS server, clients, servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::ports::free_address;
use trimtab_metaprotocol::input::{Delivery, ServicePortInput, Settings};
use trimtab_metaprotocol::output::Translation;
use trimtab_metaprotocol::translate::translate;
use trimtab_xds::{Delivery as Answer, Resource, ResourceCache, serve};

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// The address of every service under test.
pub(crate) const VIP: &str = "10.96.0.7";
const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A bootstrap.
#[derive(Clone, Default)]
pub(crate) struct Mesh {
    spots: Vec<Spot>,
    clusters: BTreeMap<String, (SocketAddr, Value)>,
}

#[derive(Clone)]
struct Spot {
    name: String,
    inbound: Option<u16>,
    cluster: String,
    address: SocketAddr,
}

impl Mesh {
    /// The caller's listener for a port of [`VIP`], which leads to `cluster`; where it is.
    pub(crate) fn outbound(&mut self, port: u16, cluster: &str) -> SocketAddr {
        self.listener(format!("{VIP}_{port}"), None, cluster)
    }

    /// The service's own listener for a port of its pod.
    pub(crate) fn inbound(&mut self, port: u16) -> SocketAddr {
        let cluster = format!("inbound|{port}||");
        self.listener("virtualInbound".to_owned(), Some(port), &cluster)
    }

    fn listener(&mut self, name: String, inbound: Option<u16>, cluster: &str) -> SocketAddr {
        let address = free_address().expect("a port");
        self.spots.push(Spot {
            name,
            inbound,
            cluster: cluster.to_owned(),
            address,
        });
        address
    }

    /// A cluster with one endpoint.
    pub(crate) fn cluster(&mut self, name: &str, at: SocketAddr) {
        self.cluster_with(name, at, json!({}));
    }

    /// A cluster with one endpoint and more fields.
    pub(crate) fn cluster_with(&mut self, name: &str, at: SocketAddr, more: Value) {
        self.clusters.insert(name.to_owned(), (at, more));
    }

    /// The bootstrap with the objects merged in. Patches for listeners that it does not have are left out.
    pub(crate) fn bootstrap(&self, filters: &[Value], xds: Option<SocketAddr>) -> Value {
        let mut listeners: Vec<Value> = self.spots.iter().map(Spot::emit).collect();
        let mut clusters: Vec<Value> = self
            .clusters
            .iter()
            .map(|(name, (at, more))| cluster(name, *at, more))
            .collect();
        for patch in filters
            .iter()
            .flat_map(|f| f["spec"]["configPatches"].as_array().expect("patches"))
        {
            match patch["applyTo"].as_str() {
                Some("NETWORK_FILTER") => self.patch_filter(&mut listeners, patch),
                Some("CLUSTER") => patch_cluster(&mut clusters, patch),
                other => panic!("{other:?}"),
            }
        }
        let mut out = json!({
            "node": {"id": "proxy-1", "cluster": "test"},
            "admin": {"address": socket(free_address().expect("a port"))},
            "static_resources": {"listeners": listeners},
        });
        if let Some(at) = xds {
            let http2 = json!({"typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": HTTP_OPTIONS,
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            }});
            clusters.push(cluster("trimtab", at, &http2));
            out["config_sources"] = json!([{
                "authorities": [{"name": "trimtab"}],
                "api_config_source": {
                    "api_type": "AGGREGATED_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "trimtab"}}],
                },
                "resource_api_version": "V3",
            }]);
            out["layered_runtime"] = json!({"layers": [{"name": "static", "static_layer": {
                "envoy.reloadable_features.xdstp_based_config_singleton_subscriptions": true,
            }}]});
        }
        out["static_resources"]["clusters"] = json!(clusters);
        out
    }

    fn patch_filter(&self, listeners: &mut [Value], patch: &Value) {
        let wanted = &patch["match"]["listener"];
        let port = wanted["filterChain"]["destinationPort"].as_u64();
        let name = &wanted["filterChain"]["filter"]["name"];
        for (spot, listener) in self.spots.iter().zip(listeners) {
            if wanted["name"] != spot.name || port != spot.inbound.map(u64::from) {
                continue;
            }
            let filters = listener["filter_chains"][0]["filters"]
                .as_array_mut()
                .expect("filters");
            let at = filters
                .iter()
                .position(|f| f["name"] == *name)
                .expect("the filter is there");
            let value = patch["patch"]["value"].clone();
            match patch["patch"]["operation"].as_str() {
                Some("REPLACE") => filters[at] = value,
                Some("INSERT_BEFORE") => filters.insert(at, value),
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Spot {
    fn emit(&self) -> Value {
        let tcp = json!({"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": self.cluster});
        let suffix = self.inbound.map_or(String::new(), |p| format!("_{p}"));
        json!({
            "name": format!("{}{suffix}", self.name),
            "address": socket(self.address),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp}]}],
        })
    }
}

fn patch_cluster(clusters: &mut Vec<Value>, patch: &Value) {
    let value = &patch["patch"]["value"];
    match patch["patch"]["operation"].as_str() {
        Some("ADD") => clusters.push(value.clone()),
        Some("MERGE") => {
            let name = &patch["match"]["cluster"]["name"];
            for cluster in clusters.iter_mut().filter(|c| c["name"] == *name) {
                merge(cluster, value);
            }
        }
        other => panic!("{other:?}"),
    }
}

fn merge(base: &mut Value, with: &Value) {
    match (base, with) {
        (Value::Object(base), Value::Object(with)) => {
            for (key, value) in with {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, with) => base.clone_from(with),
    }
}

fn cluster(name: &str, at: SocketAddr, more: &Value) -> Value {
    let mut out = json!({
        "name": name,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(at)}},
        ]}]},
    });
    merge(&mut out, more);
    out
}

fn socket(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// The xDS server and a proxy.
pub(crate) struct Fixture {
    pub envoy: Envoy,
    pub cache: ResourceCache,
    answers: Receiver<Answer>,
    settings: Settings,
    _stop: tokio_util::sync::DropGuard,
}

impl Fixture {
    /// Starts the server with what is made of `input`, and a proxy that runs it.
    pub(crate) async fn start(
        name: &str,
        mesh: &Mesh,
        delivery: Delivery,
        input: &ServicePortInput,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let cache = ResourceCache::new();
        cache.mark_ready();
        let stop = CancellationToken::new();
        tokio::spawn(serve(cache.clone(), listener, stop.clone()));
        let mut settings = Settings::clone(&input.settings);
        settings.xds_address = address.to_string();
        settings.capabilities.deliveries = [delivery].into();
        let made = translate(&with(input, &settings));
        let answers = cache.deliveries();
        put(&cache, &made);
        let config = mesh.bootstrap(&filters(&made), Some(address));
        let envoy = Envoy::start(&config, &folder(name))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut fixture = Self {
            envoy,
            cache,
            answers,
            settings,
            _stop: stop.drop_guard(),
        };
        for _ in &made.resources {
            fixture.accepted().await;
        }
        fixture
    }

    /// What is made of an input here.
    pub(crate) fn translated(&self, input: &ServicePortInput) -> Translation {
        translate(&with(input, &self.settings))
    }

    /// Publishes what is made of `input` and waits until the proxy has it.
    pub(crate) async fn publish(&mut self, input: &ServicePortInput) {
        let made = self.translated(input);
        assert_eq!(made.refusals, Vec::new());
        let changed = put(&self.cache, &made);
        assert!(changed > 0, "nothing changed");
        for _ in 0..changed {
            self.accepted().await;
        }
    }

    async fn answer(&mut self) -> Answer {
        tokio::time::timeout(BOUND, self.answers.recv())
            .await
            .expect("the proxy answers")
            .expect("a report")
    }

    async fn accepted(&mut self) {
        let answer = self.answer().await;
        assert!(matches!(answer, Answer::Acked { .. }), "{answer:?}");
    }

    /// Publishes a resource as it is; the proxy's reason to refuse it.
    pub(crate) async fn refused(&mut self, type_url: &str, resource: Resource) -> String {
        self.cache.update(type_url, vec![resource], &[]);
        match self.answer().await {
            Answer::Nacked { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    /// Connections that the proxy has taken so far.
    pub(crate) async fn connections(&self) -> u64 {
        let all = self.envoy.stats("listener.127").await.expect("stats");
        // Each worker counts them again under its own name.
        let whole = |name: &str| name.ends_with(".downstream_cx_total") && !name.contains("worker");
        all.iter()
            .filter(|(name, _)| whole(name))
            .map(|(_, value)| value)
            .sum()
    }

    /// A counter whose name has all of `parts`.
    pub(crate) async fn counter(&self, parts: &[&str]) -> u64 {
        let all = self.envoy.stats("").await.expect("stats");
        all.iter()
            .filter(|(name, _)| parts.iter().all(|p| name.contains(p)))
            .map(|(_, value)| value)
            .sum()
    }
}

fn with(input: &ServicePortInput, settings: &Settings) -> ServicePortInput {
    let mut input = input.clone();
    input.settings = settings.clone().into();
    input
}

fn put(cache: &ResourceCache, made: &Translation) -> usize {
    let mut changed = 0;
    for one in &made.resources {
        let resource = Resource {
            name: one.name.clone(),
            version: one.version(),
            body: one.body.clone().into(),
            origin: one.origin.clone(),
        };
        changed += cache.update(&one.type_url, vec![resource], &[]);
    }
    changed
}

/// The objects as JSON.
pub(crate) fn filters(made: &Translation) -> Vec<Value> {
    let json = |f| serde_json::to_value(f).expect("JSON");
    made.envoy_filters.iter().map(json).collect()
}

/// A fresh folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("metaprotocol-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// An input from its JSON form.
pub(crate) fn read(value: Value) -> ServicePortInput {
    serde_json::from_value(value).expect("an input")
}
