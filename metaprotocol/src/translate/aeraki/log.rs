//! Access logs of the filter.

use serde_json::{Value, json};

use crate::input::{AccessLog, LogEncoding};

const FILE_ACCESS_LOG: &str =
    "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Tokens of the default text format, in order; the quoted ones may hold spaces.
const TEXT: &str = "[%START_TIME%] %REQ(X-META-PROTOCOL-APPLICATION-PROTOCOL)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% \
%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(X-REQUEST-ID)%\" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %ROUTE_NAME%\n";

/// Keys and tokens of the default JSON format.
const JSON: [(&str, &str); 15] = [
    (
        "application_protocol",
        "%REQ(X-META-PROTOCOL-APPLICATION-PROTOCOL)%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// A file logger. A JSON format that is no JSON object gives the default one.
pub(super) fn file(log: &AccessLog) -> Value {
    let format = match log.encoding {
        LogEncoding::Text => {
            let mut text = if log.format.is_empty() {
                TEXT.to_owned()
            } else {
                log.format.clone()
            };
            if !text.ends_with('\n') {
                text.push('\n');
            }
            json!({"textFormatSource": {"inlineString": text}})
        }
        LogEncoding::Json => {
            let own = serde_json::from_str::<Value>(&log.format).ok();
            let default = || {
                JSON.iter()
                    .map(|(k, v)| ((*k).to_owned(), json!(v)))
                    .collect()
            };
            json!({"jsonFormat": own.filter(Value::is_object).unwrap_or_else(default)})
        }
    };
    json!({
        "name": "envoy.access_loggers.file",
        "typedConfig": {"@type": FILE_ACCESS_LOG, "path": log.path, "logFormat": format},
    })
}
