//! An access log server that keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogCommon;
use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use envoy_types::pb::google::protobuf::value::Kind;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
struct Entries {
    http: Arc<Mutex<Vec<HttpAccessLogEntry>>>,
    tcp: Arc<Mutex<Vec<TcpAccessLogEntry>>>,
}

/// A running server.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    entries: Entries,
    _stop: DropGuard,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let address = free_address().unwrap();
        let entries = Entries::default();
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .add_service(AccessLogServiceServer::new(entries.clone()))
            .serve(address);
        tokio::spawn(stop.clone().run_until_cancelled_owned(server));
        Self {
            address,
            entries,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits for an entry of a request.
    pub(crate) async fn http(
        &self,
        what: &str,
        wanted: impl Fn(&HttpAccessLogEntry) -> bool,
    ) -> HttpAccessLogEntry {
        find(what, &self.entries.http, wanted).await
    }

    /// Waits for an entry of a connection.
    pub(crate) async fn tcp(
        &self,
        what: &str,
        wanted: impl Fn(&TcpAccessLogEntry) -> bool,
    ) -> TcpAccessLogEntry {
        find(what, &self.entries.tcp, wanted).await
    }

    /// Entries of requests so far.
    pub(crate) fn count_http(&self, wanted: impl Fn(&HttpAccessLogEntry) -> bool) -> usize {
        self.entries
            .http
            .lock()
            .unwrap()
            .iter()
            .filter(|e| wanted(e))
            .count()
    }
}

async fn find<T: Clone + std::fmt::Debug>(
    what: &str,
    entries: &Mutex<Vec<T>>,
    wanted: impl Fn(&T) -> bool,
) -> T {
    wait_until(what, BOUND, || async {
        let entries = entries.lock().unwrap();
        let found = entries.iter().find(|entry| wanted(entry)).cloned();
        found.ok_or_else(|| format!("{entries:#?}"))
    })
    .await
    .unwrap()
}

/// A value of the metadata `trimtab`.
pub(crate) fn metadata(common: Option<&AccessLogCommon>, key: &str) -> Option<String> {
    let fields = &common?
        .metadata
        .as_ref()?
        .filter_metadata
        .get("trimtab")?
        .fields;
    match fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

/// The path of a request.
pub(crate) fn path(entry: &HttpAccessLogEntry) -> &str {
    entry
        .request
        .as_ref()
        .map_or("", |request| request.path.as_str())
}

#[tonic::async_trait]
impl AccessLogService for Entries {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            match message.log_entries {
                Some(LogEntries::HttpLogs(logs)) => {
                    self.http.lock().unwrap().extend(logs.log_entry);
                }
                Some(LogEntries::TcpLogs(logs)) => {
                    self.tcp.lock().unwrap().extend(logs.log_entry);
                }
                None => {}
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}
