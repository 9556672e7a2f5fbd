//! Many proxies of one istiod that only take what it sends, and count it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter::ConfigType};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use trimtab_cluster::{Istiod, Pod};

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Types that a proxy asks for.
const TYPES: [&str; 4] = [CLUSTERS, ENDPOINTS, LISTENERS, ROUTES];
const MAX_MESSAGE: usize = 256 << 20;
/// Streams on one connection.
const SHARE: usize = 10;

/// What one proxy got.
#[derive(Debug, Default)]
struct Received {
    /// Bytes of all answers.
    pushed: AtomicU64,
    /// Bytes of the resources that it holds, in the order of [`TYPES`].
    held: [AtomicU64; TYPES.len()],
}

/// Connected proxies; dropping them ends their streams.
#[derive(Debug)]
pub struct Proxies {
    /// What each got, in the order of the pods.
    received: Vec<Arc<Received>>,
    _stop: DropGuard,
}

impl Proxies {
    /// Connects one for each pod, as sidecars do: delta xDS on one stream.
    pub async fn connect(istiod: &Istiod, pods: &[Pod]) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut received = Vec::new();
        for share in pods.chunks(SHARE) {
            let endpoint = Endpoint::from_shared(format!("http://{}", istiod.grpc()))?;
            let channel = endpoint.connect().await.context("istiod")?;
            for pod in share {
                let bytes = Arc::new(Received::default());
                received.push(Arc::clone(&bytes));
                let stream = follow(channel.clone(), node(pod, istiod.version()), bytes);
                tokio::spawn(stop.clone().run_until_cancelled_owned(stream));
            }
        }
        Ok(Self {
            received,
            _stop: stop.drop_guard(),
        })
    }

    /// Bytes of all answers to all.
    pub fn pushed(&self) -> u64 {
        let all = self.received.iter();
        all.map(|r| r.pushed.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of the configuration that each holds, in the order of the pods.
    pub fn held(&self) -> impl Iterator<Item = u64> {
        let all = self.received.iter();
        all.map(|r| r.held.iter().map(|b| b.load(Ordering::Relaxed)).sum())
    }

    /// Bytes of clusters, endpoints, listeners and routes that the first holds.
    pub fn by_type(&self) -> Vec<u64> {
        let first = self.received.first();
        let bytes = first.into_iter().flat_map(|r| r.held.iter());
        bytes.map(|b| b.load(Ordering::Relaxed)).collect()
    }

    /// Waits until nothing came for `quiet`.
    pub async fn settle(&self, quiet: Duration) {
        let mut last = u64::MAX;
        while last != self.pushed() {
            last = self.pushed();
            tokio::time::sleep(quiet).await;
        }
    }
}

fn text(value: &str) -> Value {
    let kind = Some(Kind::StringValue(value.to_owned()));
    Value { kind }
}

fn fields(all: impl IntoIterator<Item = (String, Value)>) -> Struct {
    let fields: HashMap<String, Value> = all.into_iter().collect();
    Struct { fields }
}

fn node(pod: &Pod, version: &str) -> Node {
    let labels = fields(pod.labels.iter().map(|(k, v)| (k.clone(), text(v))));
    let labels = Value {
        kind: Some(Kind::StructValue(labels)),
    };
    let (name, namespace, ip) = (&pod.name, &pod.namespace, pod.ip.to_string());
    let metadata = [
        ("NAME", text(name)),
        ("NAMESPACE", text(namespace)),
        ("LABELS", labels),
        ("INSTANCE_IPS", text(&ip)),
        ("CLUSTER_ID", text("Kubernetes")),
        ("ISTIO_VERSION", text(version)),
        ("INTERCEPTION_MODE", text("REDIRECT")),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    Node {
        id: format!("sidecar~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{name}.{namespace}"),
        metadata: Some(fields(metadata)),
        ..Node::default()
    }
}

/// One stream until it ends; the benchmark sees missing bytes if istiod ends it.
async fn follow(channel: Channel, node: Node, received: Arc<Received>) {
    let (requests, outbox) = mpsc::channel::<DeltaDiscoveryRequest>(64);
    let outgoing = futures::stream::unfold(outbox, |mut outbox| async {
        outbox.recv().await.map(|request| (request, outbox))
    });
    let mut subscriber = Subscriber {
        requests,
        endpoints: BTreeSet::new(),
        routes: BTreeSet::new(),
        held: Default::default(),
    };
    for (type_url, node) in [(CLUSTERS, Some(node)), (LISTENERS, None)] {
        let first = DeltaDiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        subscriber.send(first).await;
    }
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let Ok(answers) = client.delta_aggregated_resources(outgoing).await else {
        return;
    };
    let mut answers = answers.into_inner();
    while let Ok(Some(answer)) = answers.message().await {
        received
            .pushed
            .fetch_add(answer.encoded_len() as u64, Ordering::Relaxed);
        if let Some(at) = TYPES.iter().position(|t| *t == answer.type_url) {
            let bytes = subscriber.hold(at, &answer);
            received.held[at].store(bytes, Ordering::Relaxed);
        }
        subscriber.take(&answer).await;
    }
}

struct Subscriber {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    endpoints: BTreeSet<String>,
    routes: BTreeSet<String>,
    /// Bytes of each resource, by type.
    held: [HashMap<String, usize>; TYPES.len()],
}

impl Subscriber {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        // A stream that has ended takes nothing.
        let _ = self.requests.send(request).await;
    }

    /// Notes what an answer changes; the bytes of all resources of the type.
    fn hold(&mut self, at: usize, answer: &DeltaDiscoveryResponse) -> u64 {
        for name in &answer.removed_resources {
            self.held[at].remove(name);
        }
        for resource in &answer.resources {
            let bytes = resource.resource.as_ref().map_or(0, |any| any.value.len());
            self.held[at].insert(resource.name.clone(), bytes);
        }
        self.held[at].values().sum::<usize>() as u64
    }

    /// Accepts an answer, and asks for what it refers to.
    async fn take(&mut self, answer: &DeltaDiscoveryResponse) {
        let accept = DeltaDiscoveryRequest {
            type_url: answer.type_url.clone(),
            response_nonce: answer.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(accept).await;
        let resources = answer.resources.iter().filter_map(|r| r.resource.as_ref());
        let (type_url, named): (_, BTreeSet<String>) = match &*answer.type_url {
            CLUSTERS => (ENDPOINTS, resources.filter_map(endpoints_of).collect()),
            LISTENERS => (ROUTES, resources.flat_map(routes_of).collect()),
            _ => return,
        };
        let known = if type_url == ENDPOINTS {
            &mut self.endpoints
        } else {
            &mut self.routes
        };
        let removed = answer.removed_resources.iter();
        let removed: Vec<String> = removed.filter(|n| known.remove(*n)).cloned().collect();
        let new: Vec<String> = named.difference(known).cloned().collect();
        known.extend(new.iter().cloned());
        if !(new.is_empty() && removed.is_empty()) {
            let subscribe = DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: new,
                resource_names_unsubscribe: removed,
                ..DeltaDiscoveryRequest::default()
            };
            self.send(subscribe).await;
        }
    }
}

fn endpoints_of(any: &Any) -> Option<String> {
    let cluster = Cluster::decode(&*any.value).ok()?;
    let eds = cluster.eds_cluster_config?;
    Some(if eds.service_name.is_empty() {
        cluster.name
    } else {
        eds.service_name
    })
}

fn routes_of(any: &Any) -> Vec<String> {
    let listener = Listener::decode(&*any.value).unwrap_or_default();
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    let named = filters.filter_map(|filter| {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
            return None;
        };
        if !config.type_url.ends_with(".HttpConnectionManager") {
            return None;
        }
        let manager = HttpConnectionManager::decode(&*config.value).ok()?;
        match manager.route_specifier? {
            RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
            _ => None,
        }
    });
    named.collect()
}
