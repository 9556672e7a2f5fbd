//! What istiod gives a proxy, asked as a sidecar asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Node, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteKind;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use trimtab_cluster::Istiod;
use trimtab_lazyload::predict::{Action, Chain, Given, Lead, VirtualHost};

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const NAMES: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// The cluster of what nobody knows.
const PASSES: &str = "PassthroughCluster";
const MAX_MESSAGE: usize = 256 << 20;
/// How long one answer may take.
const BOUND: Duration = Duration::from_secs(60);

/// What the proxy's DNS knows (`istio.networking.nds.v1`).
#[derive(Clone, PartialEq, prost::Message)]
struct NameTable {
    #[prost(map = "string, message", tag = "1")]
    table: std::collections::HashMap<String, NameInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NameInfo {
    #[prost(string, repeated, tag = "1")]
    ips: Vec<String>,
}

/// Value of the label `app` of all pods.
pub const APP: &str = "client";

/// A proxy.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Namespace of its pod.
    pub namespace: String,
    /// Value of the pod's label `role`, by which Sidecars select it.
    pub role: &'static str,
}

/// What else a proxy gets of its Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Clusters of what comes in, by name, with their endpoints.
    pub inbound: BTreeMap<String, Vec<String>>,
    /// Whether calls to what nobody knows go out.
    pub allows_any: bool,
}

/// A connection to one istiod, for many proxies.
#[derive(Clone)]
pub struct Judge {
    channel: Channel,
    version: &'static str,
}

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

fn fields<'a>(all: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    let all = all.into_iter().map(|(key, value)| (key.to_owned(), value));
    Struct {
        fields: all.collect(),
    }
}

impl Sidecar {
    fn node(&self, version: &str) -> Node {
        let Self { namespace, role } = self;
        let labels = Kind::StructValue(fields([("app", text(APP)), ("role", text(role))]));
        let metadata = fields([
            ("NAME", text(role)),
            ("NAMESPACE", text(namespace)),
            ("LABELS", Value { kind: Some(labels) }),
            ("INSTANCE_IPS", text("198.18.255.1")),
            ("CLUSTER_ID", text("Kubernetes")),
            ("ISTIO_VERSION", text(version)),
            ("INTERCEPTION_MODE", text("REDIRECT")),
        ]);
        Node {
            id: format!("sidecar~198.18.255.1~{role}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: format!("{role}.{namespace}"),
            metadata: Some(metadata),
            ..Node::default()
        }
    }
}

impl Judge {
    pub async fn new(istiod: &Istiod) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", istiod.grpc())).unwrap();
        Self {
            channel: endpoint.connect().await.unwrap(),
            version: istiod.version(),
        }
    }

    /// Configuration of a proxy, as a new one gets it.
    pub async fn given(&self, sidecar: &Sidecar) -> (Given, Around) {
        let mut stream = Stream::open(self, sidecar).await;
        let clusters = stream.ask(CLUSTERS, Vec::new()).await;
        let listeners = stream.ask(LISTENERS, Vec::new()).await;
        let (mut given, mut around) = (Given::default(), Around::default());
        for cluster in decoded::<Cluster>(&clusters) {
            if cluster.name.starts_with("outbound|") {
                given.clusters.insert(cluster.name);
            } else if cluster.name.starts_with("inbound|") {
                let ends = endpoints(&cluster);
                around.inbound.insert(cluster.name, ends);
            }
        }
        for listener in decoded::<Listener>(&listeners) {
            let outbound = listener.traffic_direction == i32::from(TrafficDirection::Outbound);
            if listener.name == "virtualOutbound" {
                let rest = listener.default_filter_chain.iter();
                let filters = rest.chain(&listener.filter_chains).flat_map(|c| &c.filters);
                let passes =
                    |to: Lead| matches!(to, Lead::Clusters(to) if to.iter().any(|c| c.0 == PASSES));
                around.allows_any = filters.filter_map(lead).any(passes);
            } else if outbound {
                given
                    .listeners
                    .insert(listener.name.clone(), chains(&listener));
            }
        }
        let named = given
            .listeners
            .values()
            .flatten()
            .filter_map(|chain| match &chain.lead {
                Lead::Routes(name) => Some(name.clone()),
                _ => None,
            });
        let wanted: BTreeSet<String> = named.collect();
        if !wanted.is_empty() {
            let routes = stream.ask(ROUTES, wanted.into_iter().collect()).await;
            given.routes = decoded::<RouteConfiguration>(&routes)
                .into_iter()
                .map(virtual_hosts)
                .collect();
        }
        let tables = stream.ask(NAMES, Vec::new()).await;
        for table in tables
            .iter()
            .map(|any| NameTable::decode(&*any.value).unwrap())
        {
            for (host, info) in table.table {
                let addresses = info.ips.iter().filter_map(|ip| ip.parse().ok());
                given.names.insert(host, addresses.collect());
            }
        }
        (given, around)
    }
}

/// Addresses of a cluster that has them itself.
fn endpoints(cluster: &Cluster) -> Vec<String> {
    let groups = cluster
        .load_assignment
        .iter()
        .flat_map(|all| &all.endpoints);
    let ends = groups.flat_map(|group| &group.lb_endpoints);
    ends.map(|end| format!("{:?}", end.host_identifier))
        .collect()
}

struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Stream {
    async fn open(judge: &Judge, sidecar: &Sidecar) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let outgoing = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut client = AggregatedDiscoveryServiceClient::new(judge.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let node = sidecar.node(judge.version);
        let first = DiscoveryRequest {
            node: Some(node.clone()),
            type_url: CLUSTERS.to_owned(),
            ..DiscoveryRequest::default()
        };
        // The head of the answer comes with the first request.
        requests.send(first).await.unwrap();
        let answers = client.stream_aggregated_resources(outgoing).await.unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    async fn ask(&mut self, type_url: &str, names: Vec<String>) -> Vec<Any> {
        if type_url != CLUSTERS {
            let request = DiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names: names,
                ..DiscoveryRequest::default()
            };
            self.requests.send(request).await.unwrap();
        }
        loop {
            let answer = tokio::time::timeout(BOUND, self.answers.message()).await;
            let answer = answer
                .expect("an answer in time")
                .unwrap()
                .expect("the stream stays open");
            if answer.type_url == type_url {
                return answer.resources;
            }
        }
    }
}

fn decoded<M: Message + Default>(resources: &[Any]) -> Vec<M> {
    let decode = |any: &Any| M::decode(&*any.value).unwrap();
    resources.iter().map(decode).collect()
}

/// Chains without the one for all other connections.
fn chains(listener: &Listener) -> BTreeSet<Chain> {
    let rest = listener.default_filter_chain.iter();
    let rest = rest.filter(|chain| chain.name != "PassthroughFilterChain");
    listener
        .filter_chains
        .iter()
        .chain(rest)
        .map(chain)
        .collect()
}

fn chain(chain: &FilterChain) -> Chain {
    let wanted = chain.filter_chain_match.clone().unwrap_or_default();
    let networks = wanted.prefix_ranges.iter().map(|range| {
        let length = range.prefix_len.as_ref().map_or(32, |length| length.value);
        format!("{}/{length}", range.address_prefix)
    });
    Chain {
        sni: wanted.server_names.into_iter().collect(),
        networks: networks.collect(),
        sniffed: !wanted.application_protocols.is_empty(),
        lead: chain.filters.iter().find_map(lead).unwrap(),
    }
}

fn lead(filter: &envoy_types::pb::envoy::config::listener::v3::Filter) -> Option<Lead> {
    let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return None;
    };
    match any.type_url.as_str() {
        HTTP => {
            let manager = HttpConnectionManager::decode(&*any.value).unwrap();
            match manager.route_specifier {
                Some(RouteSpecifier::Rds(rds)) => Some(Lead::Routes(rds.route_config_name)),
                other => panic!("{other:?}"),
            }
        }
        TCP => {
            let proxy = TcpProxy::decode(&*any.value).unwrap();
            Some(Lead::Clusters(match proxy.cluster_specifier.unwrap() {
                tcp_proxy::ClusterSpecifier::Cluster(name) => vec![(name, 0)],
                tcp_proxy::ClusterSpecifier::WeightedClusters(all) => all
                    .clusters
                    .into_iter()
                    .map(|c| (c.name, c.weight))
                    .collect(),
            }))
        }
        _ => None,
    }
}

/// Virtual hosts without the one for all other hosts.
fn virtual_hosts(configuration: RouteConfiguration) -> (String, Vec<VirtualHost>) {
    let rest = ["allow_any", "block_all"];
    let own = configuration.virtual_hosts.into_iter();
    let own = own.filter(|host| !rest.contains(&host.name.as_str()));
    let mut hosts: Vec<VirtualHost> = own
        .map(|host| VirtualHost {
            domains: host.domains.into_iter().collect(),
            routes: host.routes.iter().map(action).collect(),
            name: host.name,
        })
        .collect();
    hosts.sort();
    (configuration.name, hosts)
}

fn action(route: &Route) -> Action {
    match route.action.as_ref().unwrap() {
        RouteKind::Route(to) => forwarded(to),
        RouteKind::Redirect(to) => Action {
            lead: Lead::Redirect(to.host_redirect.clone()),
            ..Action::default()
        },
        RouteKind::DirectResponse(_) => Action {
            lead: Lead::Response,
            ..Action::default()
        },
        other => panic!("{other:?}"),
    }
}

fn forwarded(to: &RouteAction) -> Action {
    let clusters = match to.cluster_specifier.as_ref().unwrap() {
        ClusterSpecifier::Cluster(name) => vec![(name.clone(), 0)],
        ClusterSpecifier::WeightedClusters(all) => {
            let share =
                |c: &envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight| {
                    (
                        c.name.clone(),
                        c.weight.as_ref().map_or(0, |weight| weight.value),
                    )
                };
            all.clusters.iter().map(share).collect()
        }
        other => panic!("{other:?}"),
    };
    let authority = match &to.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host.clone()),
        _ => None,
    };
    Action {
        lead: Lead::Clusters(clusters),
        mirrors: to
            .request_mirror_policies
            .iter()
            .map(|m| m.cluster.clone())
            .collect(),
        authority,
    }
}

/// What differs: the host or name that it is about, and a line.
pub type Difference = (String, String);

/// What differs from the prediction and from each of the others that istiod may give.
pub fn differences(predicted: &Given, others: &[Given], given: &Given) -> Vec<Difference> {
    let mut out = Vec::new();
    let all = || std::iter::once(predicted).chain(others);
    let names: BTreeSet<&String> = all().chain([given]).flat_map(|g| &g.clusters).collect();
    for name in names {
        let there = given.clusters.contains(name);
        if all().all(|g| g.clusters.contains(name) != there) {
            let text = if there {
                "given, not predicted"
            } else {
                "predicted, not given"
            };
            out.push((name.clone(), format!("cluster {name}: {text}")));
        }
    }
    let maps = |g: &Given| g.listeners.clone();
    differ("listener", all().map(maps), &given.listeners, &mut out);
    differ("routes", all().map(flat), &flat(given), &mut out);
    differ(
        "name",
        all().map(|g| g.names.clone()),
        &given.names,
        &mut out,
    );
    out
}

fn flat(given: &Given) -> BTreeMap<String, VirtualHost> {
    let all = given.routes.iter();
    let all = all.flat_map(|(name, hosts)| {
        hosts
            .iter()
            .map(move |host| (format!("{name} {}", host.name), host.clone()))
    });
    all.collect()
}

fn differ<V: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: impl Iterator<Item = BTreeMap<String, V>>,
    given: &BTreeMap<String, V>,
    out: &mut Vec<Difference>,
) {
    let expected: Vec<BTreeMap<String, V>> = expected.collect();
    let names = expected.iter().flat_map(BTreeMap::keys);
    let names: BTreeSet<&String> = names.chain(given.keys()).collect();
    for name in names {
        let given = given.get(name);
        if expected.iter().all(|all| all.get(name) != given) {
            let predicted = expected.first().and_then(|all| all.get(name));
            let text = format!("{what} {name}:\n  predicted {predicted:?}\n  given     {given:?}");
            out.push((format!("{name} {predicted:?} {given:?}"), text));
        }
    }
}
