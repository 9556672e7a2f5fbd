//! A caller's proxy as istiod configures it, as far as the fallback needs it, and the fallback beside it.
//!
//! The applier here is for the patches of the fallback only; what istiod makes of them is tested in the cluster tests.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use trimtab_cluster::{Connection, original_destination};
use trimtab_lab::envoy::{self, Envoy};
use trimtab_lab::http;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec};
use trimtab_lazyload::fallback::proxy::{ProxyOptions, bootstrap};
use trimtab_lazyload::fallback::{FallbackInput, TCP_CLUSTER, filters};
use trimtab_tests::mesh::cluster;

use crate::collector::{BOUND, Collector};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters.";

/// Address that the caller's pod has.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A destination that the tests' fallback refuses; other loopback addresses are where the tests' servers are.
pub(crate) const REFUSED: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);

/// A fresh folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lazyload-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Options of a fallback on this machine.
pub(crate) fn options(collector: Option<&Collector>) -> ProxyOptions {
    let at = || free_address().unwrap();
    ProxyOptions {
        http: at(),
        tcp: Some(at()),
        probe: at(),
        admin: at(),
        access_log: collector.map_or_else(String::new, |c| c.address.to_string()),
        refuse: vec!["127.66.0.0/16".to_owned()],
        ..ProxyOptions::default()
    }
}

/// A running fallback.
pub(crate) struct Fallback {
    pub(crate) options: ProxyOptions,
    pub(crate) envoy: Envoy,
}

impl Fallback {
    pub(crate) async fn start(name: &str, options: ProxyOptions) -> Self {
        let config = bootstrap(&options);
        let envoy = Envoy::start(&config, &folder(name)).await.unwrap();
        Self { options, envoy }
    }
}

/// Which proxy it is.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Istio's catch-all: `allow_any` or `block_all`.
    pub(crate) vhost: &'a str,
    /// Node metadata.
    pub(crate) metadata: Option<(&'a str, &'a str)>,
}

pub(crate) const ALLOW_ANY: Facts<'_> = Facts {
    vhost: "allow_any",
    metadata: None,
};

/// A running sidecar of the caller, in the pod `shop/web-1`.
pub(crate) struct Caller {
    http: SocketAddr,
    tcp: SocketAddr,
    _process: Process,
}

impl Caller {
    pub(crate) async fn start(
        name: &str,
        input: &FallbackInput,
        facts: Facts<'_>,
        fallbacks: &[&ProxyOptions],
    ) -> Self {
        let (http, tcp, admin) = (
            free_address().unwrap(),
            free_address().unwrap(),
            free_address().unwrap(),
        );
        let mut config = base(http, tcp, admin, facts.vhost);
        let filters = serde_json::to_value(filters(input)).unwrap();
        apply(&mut config, &filters, facts.metadata);
        let addresses: Vec<SocketAddr> = fallbacks.iter().map(|options| options.http).collect();
        let mut to_fallback = cluster(&cluster_name(input), &addresses, false);
        // As the DestinationRule of the manifests has it.
        to_fallback["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "use_downstream_protocol_config": {"http2_protocol_options": {}},
            },
        });
        clusters(&mut config).push(to_fallback);
        let tcp_addresses: Vec<SocketAddr> = fallbacks.iter().filter_map(|o| o.tcp).collect();
        without_discovery(&mut config, &tcp_addresses);
        let folder = folder(name);
        let file = folder.join("envoy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut args: Vec<std::ffi::OsString> = ["POD_NAMESPACE=shop", "POD_NAME=web-1"]
            .map(Into::into)
            .to_vec();
        args.push(envoy::find().unwrap().into_os_string());
        args.extend(
            [
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "-l",
                "warning",
                "-c",
            ]
            .map(Into::into),
        );
        args.push(file.into_os_string());
        let mut process = Process::start(Spec {
            name: format!("Envoy {name}"),
            program: "/usr/bin/env".into(),
            args,
            log: folder.join("envoy.log"),
        })
        .unwrap();
        process
            .wait_ready(BOUND, || async move {
                let ready = http::get(admin, "/ready").await;
                ready.map(drop).map_err(|error| error.to_string())
            })
            .await
            .unwrap();
        Self {
            http,
            tcp,
            _process: process,
        }
    }

    /// A connection of the application to an HTTP port.
    pub(crate) async fn stream(&self, destination: SocketAddr) -> TcpStream {
        original_destination(POD, self.http, v4(destination))
            .await
            .unwrap()
    }

    pub(crate) async fn connect(&self, destination: SocketAddr) -> Connection {
        Connection::http(self.stream(destination).await)
            .await
            .unwrap()
    }

    /// A connection of the application to any other port.
    pub(crate) async fn tcp(&self, destination: SocketAddr) -> TcpStream {
        original_destination(POD, self.tcp, v4(destination))
            .await
            .unwrap()
    }

    /// Where the proxy listens for HTTP.
    pub(crate) fn listener(&self) -> SocketAddr {
        self.http
    }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

fn cluster_name(input: &FallbackInput) -> String {
    let config = &input.config;
    format!(
        "outbound|{}||global-sidecar.{}.svc.{}",
        input.port,
        config.fallback_namespace(),
        config.domain
    )
}

fn network_filter(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{EXTENSIONS}network.{kind}"));
    json!({"name": format!("envoy.filters.network.{name}"), "typed_config": config})
}

fn tcp_proxy(cluster: &str) -> Value {
    let config = json!({"stat_prefix": cluster, "cluster": cluster});
    network_filter("tcp_proxy", "tcp_proxy.v3.TcpProxy", config)
}

fn listener(name: &str, at: SocketAddr) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}},
        "listener_filters": [{
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": format!("{EXTENSIONS}listener.proxy_protocol.v3.ProxyProtocol")},
        }],
    })
}

/// Istio's listeners `0.0.0.0_80` and `virtualOutbound`, its catch-alls, and nothing in scope.
pub(crate) fn base(http: SocketAddr, tcp: SocketAddr, admin: SocketAddr, vhost: &str) -> Value {
    let (route, unknown) = if vhost == "allow_any" {
        (
            json!({"route": {"cluster": "PassthroughCluster", "timeout": "0s"}}),
            "PassthroughCluster",
        )
    } else {
        (
            json!({"direct_response": {"status": 502}}),
            "BlackHoleCluster",
        )
    };
    let mut route = route;
    route["match"] = json!({"prefix": "/"});
    route["name"] = json!(vhost);
    let manager = json!({
        "stat_prefix": "outbound_0.0.0.0_80",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "name": "80",
            "ignore_port_in_host_matching": true,
            "virtual_hosts": [{"name": vhost, "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{EXTENSIONS}http.router.v3.Router")},
        }],
    });
    let mut web = listener("0.0.0.0_80", http);
    web["filter_chains"] = json!([{"filters": [network_filter(
        "http_connection_manager",
        "http_connection_manager.v3.HttpConnectionManager",
        manager,
    )], "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]}}]);
    web["listener_filters"].as_array_mut().unwrap().push(json!({
        "name": "envoy.filters.listener.http_inspector",
        "typed_config": {"@type": format!("{EXTENSIONS}listener.http_inspector.v3.HttpInspector")},
    }));
    web["default_filter_chain"] =
        json!({"name": "PassthroughFilterChain", "filters": [tcp_proxy(unknown)]});
    let mut all = listener("virtualOutbound", tcp);
    all["filter_chains"] =
        json!([{"name": "virtualOutbound-catchall-tcp", "filters": [tcp_proxy(unknown)]}]);
    json!({
        "node": {"id": "caller", "cluster": "caller"},
        "admin": {"address": {"socket_address": {"address": admin.ip().to_string(), "port_value": admin.port()}}},
        "layered_runtime": envoy::istio_runtime(),
        "static_resources": {"listeners": [web, all], "clusters": [
            {"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s"},
            cluster("BlackHoleCluster", &[], false),
        ]},
    })
}

pub(crate) fn clusters(config: &mut Value) -> &mut Vec<Value> {
    config["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap()
}

/// There is no istiod here that would answer EDS.
pub(crate) fn without_discovery(config: &mut Value, members: &[SocketAddr]) {
    for added in clusters(config)
        .iter_mut()
        .filter(|c| c["name"] == TCP_CLUSTER)
    {
        let fixed = cluster(TCP_CLUSTER, members, false);
        added["type"] = json!("STATIC");
        added["load_assignment"] = fixed["load_assignment"].clone();
        added.as_object_mut().unwrap().remove("eds_cluster_config");
    }
}

/// Applies the objects; every patch must find its place, but for those of the other catch-all.
pub(crate) fn apply(config: &mut Value, filters: &Value, metadata: Option<(&str, &str)>) {
    for filter in filters.as_array().unwrap() {
        for patch in filter["spec"]["configPatches"].as_array().unwrap() {
            let wanted = patch["match"]["proxy"]["metadata"].as_object();
            let mut wanted = wanted.into_iter().flatten();
            if wanted.any(|(key, value)| metadata.is_none_or(|(k, v)| k != key || value != v)) {
                continue;
            }
            apply_one(config, patch);
        }
    }
}

fn apply_one(config: &mut Value, patch: &Value) {
    let (place, value) = (&patch["match"], &patch["patch"]["value"]);
    let kind = (
        patch["applyTo"].as_str().unwrap(),
        patch["patch"]["operation"].as_str().unwrap(),
    );
    match kind {
        ("CLUSTER", "ADD") => clusters(config).push(value.clone()),
        ("HTTP_ROUTE", "INSERT_FIRST") => {
            let place = &place["routeConfiguration"];
            if place["name"] == "80" {
                let hosts = manager(config)["route_config"]["virtual_hosts"].as_array_mut();
                for host in hosts
                    .unwrap()
                    .iter_mut()
                    .filter(|h| h["name"] == place["vhost"]["name"])
                {
                    host["routes"]
                        .as_array_mut()
                        .unwrap()
                        .insert(0, value.clone());
                }
            }
        }
        ("HTTP_FILTER", "INSERT_BEFORE") => {
            if place["listener"]["portNumber"] == 80 {
                let filters = manager(config)["http_filters"].as_array_mut().unwrap();
                filters.insert(filters.len() - 1, value.clone());
            }
        }
        ("FILTER_CHAIN", "ADD") => {
            let listener = &mut config["static_resources"]["listeners"][1];
            assert_eq!(listener["name"], place["listener"]["name"]);
            listener["filter_chains"]
                .as_array_mut()
                .unwrap()
                .push(value.clone());
        }
        ("NETWORK_FILTER", "MERGE") => {
            let chain = &place["listener"]["filterChain"]["name"];
            let listeners = config["static_resources"]["listeners"]
                .as_array_mut()
                .unwrap();
            let (web, all) = listeners.split_at_mut(1);
            let target = if place["listener"]["portNumber"] == 80 {
                &mut web[0]["default_filter_chain"]
            } else if place["listener"]["name"] == "virtualOutbound" {
                &mut all[0]["filter_chains"][0]
            } else {
                return;
            };
            assert_eq!(&target["name"], chain);
            let fields: Map<String, Value> = value["typed_config"].as_object().unwrap().clone();
            let config = target["filters"][0]["typed_config"]
                .as_object_mut()
                .unwrap();
            config.extend(fields);
        }
        other => panic!("{other:?} is not known here"),
    }
}

fn manager(config: &mut Value) -> &mut Value {
    &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}
