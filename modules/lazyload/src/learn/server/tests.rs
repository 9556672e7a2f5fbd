//! A real client on a real socket.

use std::future::Future;
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trimtab_kit::clock::SystemClock;

use super::*;
use crate::config::Retention;
use crate::edges::Limits;
use crate::learn::Skip;
use crate::learn::peer::Speakers;
use crate::learn::testing::{front, small};

const BOUND: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    backend: Backend,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

async fn start(options: ServerOptions) -> Running {
    let mut options = options;
    options.rules.speakers = Speakers::trusting(["127.0.0.0/8".parse().unwrap()]);
    start_as(options).await
}

async fn start_as(options: ServerOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Backend {
        directory: Arc::new(small()),
        store: Arc::new(EdgeStore::new(Limits::new(&Retention::default(), 100))),
        clock: Arc::new(SystemClock::new()),
        stats: Arc::default(),
    };
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, backend.clone(), options, shutdown.clone()));
    Running {
        address,
        backend,
        shutdown,
        server,
    }
}

type Call = JoinHandle<Result<Response<StreamAccessLogsResponse>, Status>>;

impl Running {
    async fn stream(&self) -> (mpsc::Sender<StreamAccessLogsMessage>, Call) {
        let mut client = AccessLogServiceClient::connect(format!("http://{}", self.address))
            .await
            .unwrap();
        let (messages, stream) = mpsc::channel(8);
        let stream = ReceiverStream::new(stream);
        let call = tokio::spawn(async move { client.stream_access_logs(stream).await });
        (messages, call)
    }

    async fn until(&self, what: &str, done: impl Fn(&Backend) -> bool) {
        let wait = async {
            while !done(&self.backend) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        bounded(what, wait).await;
    }

    fn hosts(&self) -> Vec<Arc<str>> {
        let edges = self.backend.store.of(&front()).into_iter();
        edges.map(|edge| edge.host).collect()
    }
}

async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(BOUND, wait).await;
    done.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"))
}

fn entry(service: &str) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("outbound|80||{service}.shop.svc.cluster.local"),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            authority: service.to_owned(),
            ..HttpRequestProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: entries,
        })),
    }
}

fn first(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    let node = Node {
        id: "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local".to_owned(),
        ..Node::default()
    };
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(node),
            log_name: "calls".to_owned(),
        }),
        ..message(entries)
    }
}

#[tokio::test]
async fn a_stream_keeps_its_sender_and_outlives_broken_entries() {
    let running = start(ServerOptions::default()).await;
    let (messages, call) = running.stream().await;
    messages.send(first(vec![entry("a")])).await.unwrap();
    let broken = message(vec![HttpAccessLogEntry::default(), entry("b")]);
    messages.send(broken).await.unwrap();
    messages
        .send(StreamAccessLogsMessage::default())
        .await
        .unwrap();
    messages.send(message(vec![entry("a")])).await.unwrap();
    drop(messages);
    bounded("the answer", call).await.unwrap().unwrap();
    let expected = ["a.shop.svc.cluster.local", "b.shop.svc.cluster.local"];
    assert_eq!(running.hosts(), expected.map(Arc::from));
    let stats = &running.backend.stats;
    assert_eq!(
        (stats.entries(), stats.observed_calls(), stats.new_edges()),
        (4, 3, 2)
    );
    assert_eq!(stats.skipped().get(Skip::Malformed), 1);
    running
        .until("no streams", |b| b.stats.streams() == 0)
        .await;
}

#[tokio::test]
async fn fault_t7_a_stranger_teaches_nothing() {
    let running = start_as(ServerOptions::default()).await;
    let (messages, call) = running.stream().await;
    let entries = vec![entry("a"), entry("b")];
    messages.send(first(entries)).await.unwrap();
    drop(messages);
    bounded("the answer", call).await.unwrap().unwrap();
    assert!(running.hosts().is_empty());
    let skipped = running.backend.stats.skipped();
    assert_eq!(skipped.get(Skip::Unverified), 2);
}

#[tokio::test]
async fn garbage_resets_and_giants_hurt_nobody_else() {
    let options = ServerOptions {
        message_bytes: 64 << 10,
        ..ServerOptions::default()
    };
    let running = start(options).await;
    let (messages, _call) = running.stream().await;
    messages.send(first(vec![entry("a")])).await.unwrap();

    let mut garbage = tokio::net::TcpStream::connect(running.address)
        .await
        .unwrap();
    garbage.write_all(&[0x16; 4096]).await.unwrap();
    let mut rest = Vec::new();
    // Closed or reset: the server has no words for it.
    let _ = bounded("the end of garbage", garbage.read_to_end(&mut rest)).await;

    let (short, call) = running.stream().await;
    short.send(first(vec![entry("b")])).await.unwrap();
    running
        .until("the second stream", |b| b.stats.new_edges() == 2)
        .await;
    call.abort();
    running.until("the reset", |b| b.stats.streams() == 1).await;

    let (giants, call) = running.stream().await;
    giants
        .send(first(vec![entry(&"a".repeat(100_000))]))
        .await
        .unwrap();
    let refused = bounded("the refusal", call).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    running
        .until("its end", |b| b.stats.broken_streams() == 1)
        .await;

    messages.send(message(vec![entry("c")])).await.unwrap();
    running
        .until("the third edge", |b| b.stats.new_edges() == 3)
        .await;
    assert_eq!(running.backend.stats.streams(), 1);
}

#[tokio::test]
async fn one_stream_too_many_is_refused() {
    let options = ServerOptions {
        streams: 1,
        ..ServerOptions::default()
    };
    let running = start(options).await;
    let (messages, call) = running.stream().await;
    messages.send(first(vec![entry("a")])).await.unwrap();
    running.until("a stream", |b| b.stats.streams() == 1).await;
    let (_second, refused) = running.stream().await;
    let refused = bounded("the refusal", refused).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(running.backend.stats.refused_streams(), 1);
    drop(messages);
    bounded("the answer", call).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_reads_what_was_sent_and_ends_streams() {
    let running = start(ServerOptions::default()).await;
    let (messages, call) = running.stream().await;
    messages.send(first(vec![entry("a")])).await.unwrap();
    running.until("a stream", |b| b.stats.entries() == 1).await;
    running.shutdown.cancel();
    // The client goes on for as long as it is let.
    let sending = tokio::spawn(async move {
        while messages.send(message(vec![entry("b")])).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    bounded("the answer", call).await.unwrap().unwrap();
    bounded("the server", running.server)
        .await
        .unwrap()
        .unwrap();
    sending.abort();
    assert_eq!(running.backend.stats.streams(), 0);
}
