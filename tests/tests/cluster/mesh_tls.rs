//! Access logs and pushed metrics by mTLS with certificates that a real istiod issues.

use std::path::{Path, PathBuf};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use kube::Api;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use trimtab::config::{Config, Mds, MeshCertificate};
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_cluster::{Cluster, Minor, Namespace, service_account_token, wait_for};
use trimtab_crds::istio::Sidecar;
use trimtab_embedded::Embedded;
use trimtab_kit::identity::{MeshCaConfig, PortSecurity, obtain};
use trimtab_kit::sources::mds_proto::metric_discovery_client::MetricDiscoveryClient;
use trimtab_kit::sources::mds_proto::{PushRequest, Series, series::Target};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{Request, send};
use trimtab_lab::ports::free_address;
use trimtab_lazyload::config::AccessLog;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;
use trimtab_metaprotocol::module::Metaprotocol;
use trimtab_xds::MeshCertificate as Pair;

use crate::fixture::{BOUND, cluster, istiod};
use crate::mesh_client::{channel, leaf};

const HOSTS: [&str; 4] = ["honest", "forged", "proxied", "later"];
const LIFE: Duration = Duration::from_secs(600);

/// What istiod needs to see of somebody, as files of a pod.
async fn asking(cluster: &Cluster, dir: &Path, namespace: &str, account: &str) -> MeshCaConfig {
    let address = istiod(Minor::Newest).await.secure().to_string();
    let dir = dir.join(format!("{namespace}-{account}"));
    std::fs::create_dir_all(&dir).unwrap();
    let get = ["-n", namespace, "get", "configmap", "istio-ca-root-cert"];
    let field = ["-o", r"jsonpath={.data.root-cert\.pem}"];
    let root = wait_for("istiod's root in the namespace", BOUND, || async {
        let root = cluster.kubectl(&[&get[..], &field[..]].concat(), "").await;
        let root = root.map_err(|error| error.to_string())?;
        Some(root)
            .filter(|root| !root.is_empty())
            .ok_or_else(|| "empty".to_owned())
    })
    .await
    .unwrap();
    let token = service_account_token(cluster, namespace, account, &["istio-ca"]).await;
    let config = MeshCaConfig {
        address,
        server_name: "istiod.istio-system.svc".to_owned(),
        root_file: dir.join("root-cert.pem"),
        token_file: dir.join("istio-token"),
        trust_domains: Vec::new(),
    };
    std::fs::write(&config.root_file, root).unwrap();
    std::fs::write(&config.token_file, token.unwrap()).unwrap();
    config
}

/// A pod `web-1` with a fence, and hosts that it may call.
fn mesh(namespace: &str) -> Embedded {
    let api = standalone::embedded().unwrap();
    api.ensure_namespace(namespace).unwrap();
    let services = HOSTS.map(|name| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}})
    });
    let others = [
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": namespace, "labels": {"app": "web"}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "c"}]},
            "status": {"phase": "Running", "podIP": "10.9.0.1", "podIPs": [{"ip": "10.9.0.1"}]}}),
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"name": "web", "namespace": namespace}, "spec": {"enable": true}}),
    ];
    for object in services.into_iter().chain(others) {
        api.load(object).unwrap();
    }
    api
}

async fn start(embedded: &Embedded, certificate: MeshCaConfig) -> Operator {
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config.mesh.certificate = Some(MeshCertificate {
        istiod: Some(certificate),
        files: None,
    });
    config.metrics.mds = Some(Mds {
        address: free_address().unwrap(),
        security: PortSecurity::Mesh,
        ..Mds::default()
    });
    config.edit::<Metaprotocol>(|c| c.enabled = false);
    config.edit::<Limiter>(|c| c.refresh = trimtab_crds::Duration::from_millis(500));
    config.edit::<Lazyload>(|c| {
        c.fallback.enabled = false;
        c.learn.access_log = Some(AccessLog {
            address: free_address().unwrap(),
            security: PortSecurity::Mesh,
            ..AccessLog::default()
        });
    });
    Operator::start(config, embedded.client(), CancellationToken::new())
        .await
        .unwrap()
}

fn cluster_of(host: &str, namespace: &str) -> String {
    format!("outbound|80||{host}.{namespace}.svc.cluster.local")
}

fn node_id(namespace: &str) -> String {
    format!("sidecar~10.9.0.1~web-1.{namespace}~{namespace}.svc.cluster.local")
}

/// A call of `web-1` to a host, told by whoever has the certificate; `None`: in plain text.
async fn tell(
    at: std::net::SocketAddr,
    pair: Option<&Pair>,
    namespace: &str,
    host: &str,
) -> Result<(), Status> {
    let mut client = AccessLogServiceClient::new(channel(at, pair).await?);
    let entry = HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: cluster_of(host, namespace),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            authority: format!("{host}.{namespace}"),
            ..HttpRequestProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    let message = StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(Node {
                id: node_id(namespace),
                ..Node::default()
            }),
            log_name: "trimtab".to_owned(),
        }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: vec![entry],
        })),
    };
    let told = client.stream_access_logs(futures::stream::iter([message]));
    told.await.map(drop)
}

/// Hosts of [`HOSTS`] in the scope, when it has `wanted`.
async fn learned(sidecars: &Api<Sidecar>, namespace: &str, wanted: &str) -> Vec<String> {
    let name = |host: &str| format!("{namespace}/{host}.{namespace}.svc.cluster.local");
    wait_for(&format!("{wanted} in scope"), BOUND, || async {
        let sidecar = sidecars.get_opt("web").await.map_err(|e| e.to_string())?;
        let egress = sidecar.ok_or("no Sidecar")?.spec.egress;
        let all: Vec<String> = egress.into_iter().flat_map(|e| e.hosts).collect();
        let known = HOSTS.into_iter().filter(|host| all.contains(&name(host)));
        let known: Vec<String> = known.map(str::to_owned).collect();
        if known.iter().any(|host| host == wanted) {
            Ok(known)
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await
    .unwrap()
}

async fn push(at: std::net::SocketAddr, pair: Option<&Pair>, of: &str) -> Result<u32, Status> {
    let mut client = MetricDiscoveryClient::new(channel(at, pair).await?);
    let series = Series {
        name: "load".into(),
        namespace: of.into(),
        target: Some(Target::Service("web".into())),
        value: 1.0,
        ..Series::default()
    };
    let request = PushRequest {
        series: vec![series],
    };
    Ok(client.put(request).await?.into_inner().accepted)
}

/// A sidecar's Envoy as istiod configures it with ISTIO_MUTUAL: it sends its logs to `logs`, and calls hosts by path.
fn sidecar(
    logs: std::net::SocketAddr,
    server: &str,
    pair: &Pair,
    namespace: &str,
) -> (Value, std::net::SocketAddr) {
    let at = free_address().unwrap();
    let socket = |at: std::net::SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let endpoints = |name: &str, at| json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(at)}}]}]});
    let routes = HOSTS.map(|host| {
        json!({"match": {"prefix": format!("/{host}")}, "route": {"cluster": cluster_of(host, namespace)}})
    });
    let mut clusters: Vec<Value> = HOSTS
        .iter()
        .map(|host| {
            let name = cluster_of(host, namespace);
            json!({"name": name, "type": "STATIC", "load_assignment": endpoints(&name, at)})
        })
        .collect();
    let tls = json!({
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "sni": format!("outbound_.8082_._.trimtab.{namespace}.svc.cluster.local"),
    "common_tls_context": {
        "alpn_protocols": ["istio-peer-exchange", "istio", "h2"],
        "tls_certificates": [{"certificate_chain": {"inline_string": pair.chain},
            "private_key": {"inline_string": pair.key}}],
        "validation_context": {"trusted_ca": {"inline_string": pair.roots},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": server}}]},
    }});
    clusters.push(json!({"name": "logs", "type": "STATIC", "load_assignment": endpoints("logs", logs),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}},
        "transport_socket": {"name": "tls", "typed_config": tls}}));
    let log = json!({"name": "grpc", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": {"log_name": "trimtab", "transport_api_version": "V3", "buffer_flush_interval": "0.1s",
            "grpc_service": {"envoy_grpc": {"cluster_name": "logs"}}}}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls", "access_log": [log],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    let listener = json!({"name": "calls", "address": socket(at),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]});
    // The clusters of the hosts lead to nobody: a call that fails is a call.
    for cluster in clusters.iter_mut().take(HOSTS.len()) {
        let nobody = free_address().unwrap();
        let name = cluster["name"].as_str().unwrap().to_owned();
        cluster["load_assignment"] = endpoints(&name, nobody);
    }
    let admin = free_address().unwrap();
    let config = json!({"node": {"id": node_id(namespace), "cluster": "web"},
        "admin": {"address": socket(admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters}});
    (config, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_t7_access_logs_and_pushed_metrics_by_mtls_of_the_mesh() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = cluster().await;
    let dir: PathBuf = cluster.dir().join("mesh-tls");
    let shop = Namespace::create(cluster, "shop").await.unwrap();
    let evil = Namespace::create(cluster, "evil").await.unwrap();
    let own = Namespace::create(cluster, "own").await.unwrap();
    shop.kubectl(&["create", "serviceaccount", "other"], "")
        .await
        .unwrap();
    let embedded = mesh(shop.name());
    let files = asking(cluster, &dir, own.name(), "default").await;
    let operator = start(&embedded, files.clone()).await;
    let logs = operator.listeners["lazyload.learn.accessLog.address"];
    let mds = operator.mds.unwrap();
    let sidecars: Api<Sidecar> = Api::namespaced(embedded.client(), shop.name());

    let pair = async |namespace: &Namespace<'_>, account: &str| {
        let files = asking(cluster, &dir, namespace.name(), account).await;
        obtain(&files, LIFE).await.unwrap().0
    };
    let web = pair(&shop, "default").await;
    let first = wait_for("the operator's certificate", BOUND, || leaf(logs, &web))
        .await
        .unwrap();
    // Whoever is not the pod, by namespace or account, and whoever shows nothing.
    for liar in [pair(&evil, "default").await, pair(&shop, "other").await] {
        tell(logs, Some(&liar), shop.name(), "forged")
            .await
            .unwrap();
    }
    tell(logs, None, shop.name(), "forged").await.unwrap_err();
    tell(logs, Some(&web), shop.name(), "honest").await.unwrap();
    let known = learned(&sidecars, shop.name(), "honest").await;
    assert_eq!(known, ["honest"]);

    // Metrics: for the own namespace.
    assert_eq!(push(mds, Some(&web), shop.name()).await.unwrap(), 1);
    let thief = pair(&evil, "default").await;
    assert_eq!(push(mds, Some(&thief), shop.name()).await.unwrap(), 0);
    push(mds, None, shop.name()).await.unwrap_err();

    // A real proxy, which checks whose certificate the operator shows; then a new certificate under its stream.
    let server = format!("spiffe://cluster.local/ns/{}/sa/default", own.name());
    let (config, at) = sidecar(logs, &server, &web, shop.name());
    let envoy = Envoy::start(&config, &dir.join("envoy")).await.unwrap();
    send(at, &Request::get("/proxied")).await.unwrap();
    learned(&sidecars, shop.name(), "proxied").await;
    let root = std::fs::read_to_string(&files.root_file).unwrap();
    std::fs::write(&files.root_file, format!("{root}\n")).unwrap();
    wait_for("a new certificate", BOUND, || async {
        match leaf(logs, &web).await? {
            same if same == first => Err("the first one".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    send(at, &Request::get("/later")).await.unwrap();
    let known = learned(&sidecars, shop.name(), "later").await;
    assert!(!known.contains(&"forged".to_owned()), "{known:?}");
    let stat = "cluster.logs.upstream_cx_total";
    assert_eq!(envoy.stat(stat).await.unwrap(), 1, "the stream stayed");
    operator.stop().await.unwrap();
}
