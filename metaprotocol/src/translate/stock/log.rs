//! Access logs and tracing of stock filters.
//!
//! The mesh's own format speaks of HTTP requests, and a filter may refuse its tokens and with them the listener, so it
//! is not used here: each filter has a format that it knows.

use serde_json::{Map, Value, json};

use crate::input::{LogEncoding, Settings};

const FILE_ACCESS_LOG: &str =
    "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// The `accessLog` of a filter; `fields` are names and tokens, in the order of a line.
pub(in crate::translate) fn access_log(
    settings: &Settings,
    fields: &[(&str, &str)],
) -> Option<Value> {
    let log = settings.access_log.as_ref()?;
    let format = match log.encoding {
        LogEncoding::Text => {
            let tokens: Vec<&str> = fields.iter().map(|(_, token)| *token).collect();
            let line = format!("{}\n", tokens.join(" "));
            json!({"textFormatSource": {"inlineString": line}})
        }
        LogEncoding::Json => {
            let fields: Map<String, Value> = fields
                .iter()
                .map(|(name, token)| ((*name).to_owned(), json!(token)))
                .collect();
            json!({"jsonFormat": fields})
        }
    };
    Some(json!([{
        "name": "envoy.access_loggers.file",
        "typedConfig": {"@type": FILE_ACCESS_LOG, "path": log.path, "logFormat": format},
    }]))
}

/// The `tracing` of a filter.
pub(in crate::translate) fn tracing(settings: &Settings) -> Option<Value> {
    let tracing = settings.tracing?;
    Some(json!({
        "clientSampling": {"value": 100.0},
        "randomSampling": {"value": tracing.sampling},
        "overallSampling": {"value": 100.0},
    }))
}
