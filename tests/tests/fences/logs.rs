//! Access logs as the fallback and sidecars send them.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, Metadata, Node, SocketAddress};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};

/// A message with the node that sends it.
fn message(node: &str, entries: LogEntries) -> StreamAccessLogsMessage {
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(Node {
                id: node.to_owned(),
                ..Node::default()
            }),
            log_name: "trimtab".to_owned(),
        }),
        log_entries: Some(entries),
    }
}

fn address(text: &str) -> Address {
    let socket: SocketAddr = text.parse().unwrap();
    Address {
        address: Some(Kind::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        })),
    }
}

/// What the fallback knows of the pod that calls.
fn from(namespace: &str, pod: &str) -> AccessLogCommon {
    let value = |text: &str| Value {
        kind: Some(ValueKind::StringValue(text.to_owned())),
    };
    let fields = [("source_namespace", namespace), ("source_pod", pod)];
    let fields = fields.map(|(k, v)| (k.to_owned(), value(v)));
    AccessLogCommon {
        metadata: Some(Metadata {
            filter_metadata: [(
                "trimtab".to_owned(),
                Struct {
                    fields: fields.into(),
                },
            )]
            .into(),
            ..Metadata::default()
        }),
        ..AccessLogCommon::default()
    }
}

fn http(entries: Vec<HttpAccessLogEntry>) -> LogEntries {
    LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries })
}

fn request(common: AccessLogCommon, authority: &str) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(HttpRequestProperties {
            authority: authority.to_owned(),
            ..HttpRequestProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

/// Requests of a pod that the fallback carried, one for each authority.
pub(crate) fn carried(namespace: &str, pod: &str, authorities: &[&str]) -> StreamAccessLogsMessage {
    let entries = authorities.iter().map(|a| request(from(namespace, pod), a));
    message("fallback-1", http(entries.collect()))
}

/// A request from an address, with the authority, as Slime's global-sidecar logs it.
pub(crate) fn from_address(source: &str, authority: &str) -> StreamAccessLogsMessage {
    let common = AccessLogCommon {
        downstream_direct_remote_address: Some(address(source)),
        upstream_cluster: "inbound|80||".to_owned(),
        ..AccessLogCommon::default()
    };
    let node = "sidecar~10.9.9.9~global-sidecar-1.istio-system~istio-system.svc.cluster.local";
    message(node, http(vec![request(common, authority)]))
}

/// A request that a pod's own proxy sent to a cluster.
pub(crate) fn outbound(
    namespace: &str,
    pod: &str,
    cluster: &str,
    authority: &str,
) -> StreamAccessLogsMessage {
    let common = AccessLogCommon {
        upstream_cluster: cluster.to_owned(),
        ..AccessLogCommon::default()
    };
    let node = format!("sidecar~10.0.0.1~{pod}.{namespace}~{namespace}.svc.cluster.local");
    message(&node, http(vec![request(common, authority)]))
}

/// A connection of a pod to an address, as the fallback carried it.
pub(crate) fn connection(namespace: &str, pod: &str, to: &str) -> StreamAccessLogsMessage {
    let common = AccessLogCommon {
        downstream_local_address: Some(address(to)),
        ..from(namespace, pod)
    };
    let entry = TcpAccessLogEntry {
        common_properties: Some(common),
        ..TcpAccessLogEntry::default()
    };
    let entries = LogEntries::TcpLogs(TcpAccessLogEntries {
        log_entry: vec![entry],
    });
    message("fallback-1", entries)
}

/// Sends messages in one stream and waits until the server has taken them all.
pub(crate) async fn send(server: SocketAddr, messages: Vec<StreamAccessLogsMessage>) {
    let mut client = AccessLogServiceClient::connect(format!("http://{server}"))
        .await
        .unwrap();
    client
        .stream_access_logs(futures::stream::iter(messages))
        .await
        .unwrap();
}
