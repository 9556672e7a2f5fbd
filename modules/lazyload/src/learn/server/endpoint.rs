//! The gRPC method, with a bound on the entries of a message.
//!
//! An entry can take two bytes in a message and more than a thousand in memory, so that they are counted before the message
//! is decoded. The generated server decodes at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogService;
use envoy_types::pb::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use prost::Message as _;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{ClientStreamingService, Grpc, NamedService};
use tonic::{Code, Request, Response, Status, Streaming};

use super::Logs;

/// Entries of one message. Envoy sends what it has gathered at 16 KiB, unless configured: some hundred.
const ENTRIES: usize = 4096;
/// Fields of a message with entries, HTTP and TCP, and the field of those with one entry each.
const LOGS: [u32; 2] = [2, 3];
const ENTRY: u32 = 1;
const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// What the server's router takes.
#[derive(Clone)]
pub(super) struct Endpoint {
    logs: Arc<Logs>,
    message_bytes: usize,
}

impl Endpoint {
    pub(super) fn new(logs: Logs, message_bytes: usize) -> Self {
        Self {
            logs: Arc::new(logs),
            message_bytes,
        }
    }
}

impl NamedService for Endpoint {
    const NAME: &'static str = "envoy.service.accesslog.v3.AccessLogService";
}

impl Service<http::Request<tonic::body::Body>> for Endpoint {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (logs, bytes) = (self.logs.clone(), self.message_bytes);
        Box::pin(async move {
            if request.uri().path() != METHOD {
                let status = Status::new(Code::Unimplemented, "there is one method only");
                return Ok(status.into_http());
            }
            let mut grpc = Grpc::new(Counting).apply_max_message_size_config(Some(bytes), None);
            Ok(grpc.client_streaming(Method(logs), request).await)
        })
    }
}

struct Method(Arc<Logs>);

impl ClientStreamingService<StreamAccessLogsMessage> for Method {
    type Response = StreamAccessLogsResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<Streaming<StreamAccessLogsMessage>>) -> Self::Future {
        let logs = self.0.clone();
        Box::pin(async move { logs.stream_access_logs(request).await })
    }
}

/// Reads and writes as usual, and counts first.
struct Counting;

impl Codec for Counting {
    type Encode = StreamAccessLogsResponse;
    type Decode = StreamAccessLogsMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Counting {
    type Item = StreamAccessLogsResponse;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Counting {
    type Item = StreamAccessLogsMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let wrong = |error: prost::DecodeError| Status::internal(error.to_string());
        if entries(bytes.clone()).map_err(wrong)? > ENTRIES {
            return Err(Status::invalid_argument(format!(
                "a message may have {ENTRIES} entries; set bufferSizeBytes lower"
            )));
        }
        StreamAccessLogsMessage::decode(bytes)
            .map(Some)
            .map_err(wrong)
    }
}

/// How many entries an encoded message has.
fn entries(message: Bytes) -> Result<usize, prost::DecodeError> {
    let mut count = 0;
    each(message, &LOGS, &mut |logs| {
        each(logs, &[ENTRY], &mut |_| {
            count += 1;
            Ok(())
        })
    })?;
    Ok(count)
}

type Found<'f> = &'f mut dyn FnMut(Bytes) -> Result<(), prost::DecodeError>;

/// Shows the contents of all fields with one of these numbers.
fn each(mut message: Bytes, fields: &[u32], found: Found<'_>) -> Result<(), prost::DecodeError> {
    while message.has_remaining() {
        let (field, kind) = decode_key(&mut message)?;
        if kind != WireType::LengthDelimited || !fields.contains(&field) {
            skip_field(kind, field, &mut message, <_>::default())?;
            continue;
        }
        let length = decode_varint(&mut message)?;
        match usize::try_from(length) {
            Ok(length) if length <= message.remaining() => found(message.split_to(length))?,
            // The decoder says what is wrong.
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
    use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
        HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
    };

    use super::*;

    #[test]
    fn fault_t7_entries_are_counted_before_they_are_decoded() {
        let message = |logs| StreamAccessLogsMessage {
            identifier: Some(Identifier {
                log_name: "a".repeat(300),
                ..Identifier::default()
            }),
            log_entries: logs,
        };
        let http = HttpAccessLogEntries {
            log_entry: vec![HttpAccessLogEntry::default(); 7],
        };
        let tcp = TcpAccessLogEntries {
            log_entry: vec![TcpAccessLogEntry::default(); 5],
        };
        let (http, tcp) = (LogEntries::HttpLogs(http), LogEntries::TcpLogs(tcp));
        let http = message(Some(http)).encode_to_vec();
        let tcp = message(Some(tcp)).encode_to_vec();
        let none = message(None).encode_to_vec();
        let count = |bytes: &[u8]| entries(Bytes::copy_from_slice(bytes)).unwrap();
        assert_eq!([count(&http), count(&tcp), count(&none)], [7, 5, 0]);
        // A field that comes twice is merged, so both count.
        assert_eq!(count(&[http.clone(), http, tcp].concat()), 19);
        assert_eq!(count(&[0x12, 0x7f]), 0, "shorter than it says");
        entries(Bytes::from_static(&[0xff; 12])).unwrap_err();
    }
}
