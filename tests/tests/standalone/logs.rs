//! A receiver of access logs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::config::core::v3::{Address, address, socket_address};
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, AccessLogType};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use trimtab_dataplane::{HOST_TAG, PORT_TAG};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The log's name.
    pub log: String,
    /// Address of the connection's other end.
    pub from: String,
    /// The authority of a call, or host and port of a connection's service.
    pub what: String,
    /// What the entry was written for.
    pub at: AccessLogType,
}

/// A server that keeps what it gets.
pub(crate) struct Receiver {
    address: SocketAddr,
    entries: Entries,
    _stop: DropGuard,
}

#[derive(Clone, Default)]
struct Entries(Arc<Mutex<Vec<Seen>>>);

fn ip(address: Option<&Address>) -> String {
    match address.and_then(|a| a.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let port = &socket.port_specifier;
            assert!(matches!(
                port,
                Some(socket_address::PortSpecifier::PortValue(_))
            ));
            socket.address.clone()
        }
        other => format!("{other:?}"),
    }
}

impl Entries {
    fn take(&self, log: &str, entries: LogEntries) {
        let mut all = self.0.lock().expect("no panic");
        let mut add = |common: &AccessLogCommon, what: String| {
            all.push(Seen {
                log: log.to_owned(),
                from: ip(common.downstream_direct_remote_address.as_ref()),
                what,
                at: common.access_log_type(),
            });
        };
        match entries {
            LogEntries::HttpLogs(logs) => {
                for entry in logs.log_entry {
                    let call = entry.request.unwrap_or_default();
                    add(&entry.common_properties.unwrap_or_default(), call.authority);
                }
            }
            LogEntries::TcpLogs(logs) => {
                for entry in logs.log_entry {
                    let common = entry.common_properties.unwrap_or_default();
                    let tag = |name: &str| common.custom_tags.get(name).cloned();
                    let host = tag(HOST_TAG).unwrap_or_default();
                    let port = tag(PORT_TAG).unwrap_or_default();
                    add(&common, format!("{host}:{port}"));
                }
            }
        }
    }
}

#[tonic::async_trait]
impl AccessLogService for Entries {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut stream = request.into_inner();
        let mut log = String::new();
        while let Some(message) = stream.message().await? {
            if let Some(identifier) = message.identifier {
                log = identifier.log_name;
            }
            if let Some(entries) = message.log_entries {
                self.take(&log, entries);
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

impl Receiver {
    /// On a free port.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let entries = Entries::default();
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await;
            Some((accepted.map(|(stream, _)| stream), listener))
        });
        let serving = tonic::transport::Server::builder()
            .add_service(AccessLogServiceServer::new(entries.clone()))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(serving);
        Self {
            address,
            entries,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.entries.0.lock().expect("no panic").clone()
    }
}
