//! Floods: what a peer without identity may send to the ports of the operator.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, Node, SocketAddress, address, socket_address,
};
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as ProtoValue};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Channel;
use trimtab_kit::sources::mds_proto::metric_discovery_client::MetricDiscoveryClient;
use trimtab_kit::sources::mds_proto::{PushRequest, Series, series::Target};

/// Type of the limits.
pub const ECDS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// Where the program listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Pages, API and probes.
    pub http: SocketAddr,
    /// xDS.
    pub xds: SocketAddr,
    /// Access logs.
    pub logs: SocketAddr,
    /// Pushed metrics.
    pub mds: SocketAddr,
}

/// One flood.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "`name` says what each is")]
pub enum Flood {
    Nothing,
    Idle,
    Heads,
    Streams,
    Metadata,
    Refusals,
    Logs,
    Pushes,
    Answers,
}

/// All of them, after none.
pub const FLOODS: [Flood; 9] = [
    Flood::Nothing,
    Flood::Idle,
    Flood::Heads,
    Flood::Streams,
    Flood::Metadata,
    Flood::Refusals,
    Flood::Logs,
    Flood::Pushes,
    Flood::Answers,
];

impl Flood {
    /// What is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Idle => "2,000 silent connections to each port",
            Self::Heads => "1,000 requests with a head that never ends",
            Self::Streams => "2,000 xDS streams of 10,000 names each",
            Self::Metadata => "500 xDS streams with 1 MiB of metadata each",
            Self::Refusals => "refusals with 1 MiB of text each, on 20 streams",
            Self::Logs => "access logs of hosts that nobody has, on 20 streams",
            Self::Pushes => "pushed series of 1 KiB each, on 20 streams",
            Self::Answers => "8 limiters whose queries have answers of 63 MB",
        }
    }
}

/// Sends until it is dropped.
pub async fn send(flood: Flood, ports: Ports) -> anyhow::Result<()> {
    let mut all = JoinSet::new();
    match flood {
        Flood::Nothing => {}
        Flood::Idle => {
            for port in [ports.http, ports.xds, ports.logs, ports.mds] {
                all.spawn(connect(port, 2_000, b""));
            }
        }
        Flood::Heads => {
            let head = b"GET /api/v1/limiters HTTP/1.1\r\nHost: localhost\r\n";
            all.spawn(connect(ports.http, 1_000, head));
        }
        Flood::Streams => {
            for connection in 0..20 {
                all.spawn(streams(ports.xds, connection, Node::default(), names()));
            }
        }
        Flood::Metadata => {
            for connection in 0..5 {
                all.spawn(streams(ports.xds, connection, heavy(), Vec::new()));
            }
        }
        Flood::Refusals => {
            for connection in 0..20 {
                all.spawn(refuse(ports.xds, connection));
            }
        }
        Flood::Logs => {
            for stream in 0..20 {
                all.spawn(log(ports.logs, stream));
            }
        }
        Flood::Pushes => {
            for stream in 0..20 {
                all.spawn(push(ports.mds, stream));
            }
        }
        // Asked for by the program all the time.
        Flood::Answers => fs::write(answers(), "")?,
    }
    // What ends early was refused, which is counted by the program.
    while let Some(ended) = all.join_next().await {
        ended?;
    }
    std::future::pending().await
}

/// More names than a proxy has.
fn names() -> Vec<String> {
    let name = |i: usize| format!("name-of-a-resource-{i}");
    (0..10_000).map(name).collect()
}

/// A node with 1 MiB of metadata.
fn heavy() -> Node {
    let text = ProtoValue {
        kind: Some(Kind::StringValue("m".repeat(1 << 20))),
    };
    Node {
        metadata: Some(Struct {
            fields: [("M".to_owned(), text)].into(),
        }),
        ..Node::default()
    }
}

/// Opens connections that say no more than this, and keeps them.
async fn connect(port: SocketAddr, count: usize, text: &'static [u8]) {
    let mut open = Vec::new();
    for _ in 0..count {
        if let Ok(mut stream) = TcpStream::connect(port).await
            && stream.write_all(text).await.is_ok()
        {
            open.push(stream);
        }
    }
    let mut pause = tokio::time::interval(Duration::from_secs(1));
    loop {
        pause.tick().await;
        for stream in &mut open {
            // The other end may have closed it.
            let _ = stream
                .write_all(if text.is_empty() { b"" } else { b"X-A: b\r\n" })
                .await;
        }
    }
}

/// A node with an id.
pub fn node(id: String, of: Node) -> Node {
    Node { id, ..of }
}

/// Requests, and responses to them.
pub type Stream = (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>);

/// Opens a stream for all types.
pub async fn stream(channel: Channel, first: DiscoveryRequest) -> anyhow::Result<Stream> {
    let (sender, receiver) = mpsc::channel(4);
    sender.send(first).await?;
    let requests = futures::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let responses = client.stream_aggregated_resources(requests).await?;
    Ok((sender, responses.into_inner()))
}

async fn streams(port: SocketAddr, connection: usize, of: Node, names: Vec<String>) {
    let Ok(channel) = channel(port).await else {
        return;
    };
    let mut open = Vec::new();
    for i in 0..100 {
        let first = DiscoveryRequest {
            node: Some(node(format!("flood-{connection}-{i}"), of.clone())),
            type_url: ECDS.into(),
            resource_names: names.clone(),
            ..DiscoveryRequest::default()
        };
        open.extend(stream(channel.clone(), first).await);
    }
    std::future::pending::<()>().await;
}

/// A proxy that refuses what it gets, with many words, and asks again.
async fn refuse(port: SocketAddr, connection: usize) {
    let words = "w".repeat(1 << 20);
    loop {
        let Ok(channel) = channel(port).await else {
            return;
        };
        let first = DiscoveryRequest {
            node: Some(node(format!("refuses-{connection}"), Node::default())),
            type_url: ECDS.into(),
            ..DiscoveryRequest::default()
        };
        let Ok((sender, mut responses)) = stream(channel, first).await else {
            continue;
        };
        let Ok(Some(response)) = responses.message().await else {
            continue;
        };
        let refusal = DiscoveryRequest {
            type_url: ECDS.into(),
            response_nonce: response.nonce,
            error_detail: Some(RpcStatus {
                code: 3,
                message: words.clone(),
                ..RpcStatus::default()
            }),
            ..DiscoveryRequest::default()
        };
        if sender.send(refusal).await.is_ok() {
            // What else comes, or the end.
            let _ = tokio::time::timeout(Duration::from_millis(200), responses.message()).await;
        }
    }
}

async fn log(port: SocketAddr, stream: usize) {
    let Ok(channel) = channel(port).await else {
        return;
    };
    let messages = futures::stream::iter((0..).map(move |count| entries(stream, count)));
    // It ends when the program refuses it.
    let _ = AccessLogServiceClient::new(channel)
        .stream_access_logs(messages)
        .await;
}

/// Calls to hosts that nobody has.
fn entries(stream: usize, count: usize) -> StreamAccessLogsMessage {
    let id = "sidecar~127.0.0.1~desk-1.stacks~stacks.svc.cluster.local";
    let host = |i: usize| format!("n{stream}-{count}-{i}.{}.test", "x".repeat(200));
    let entry = |i: usize| HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("outbound|80||{}", host(i)),
            downstream_remote_address: Some(caller()),
            ..AccessLogCommon::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(node(id.into(), Node::default())),
            log_name: "flood".into(),
        }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: (0..500).map(entry).collect(),
        })),
    }
}

fn caller() -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "127.0.0.1".into(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(5555)),
            ..SocketAddress::default()
        })),
    }
}

async fn push(port: SocketAddr, stream: usize) {
    let Ok(channel) = channel(port).await else {
        return;
    };
    let requests = futures::stream::iter((0..).map(move |count| series(stream, count)));
    // It ends when the program refuses it.
    let _ = MetricDiscoveryClient::new(channel).push(requests).await;
}

fn series(stream: usize, count: usize) -> PushRequest {
    let one = |i: usize| Series {
        name: format!("flood{stream}x{count}x{i}{}", "y".repeat(1000)),
        namespace: "stacks".into(),
        target: Some(Target::Service(format!("desk{i}"))),
        value: 1.0,
        ..Series::default()
    };
    PushRequest {
        series: (0..200).map(one).collect(),
    }
}

/// A connection.
pub async fn channel(port: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{port}"))?
        .connect()
        .await?)
}

/// The file that makes the answers of Prometheus large.
pub fn answers() -> PathBuf {
    std::env::temp_dir().join(format!("trimtab-floods-{}/large", std::process::id()))
}
