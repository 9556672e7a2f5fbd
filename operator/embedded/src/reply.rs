//! Answers: bodies, and the view of an object that the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinds::Version;
use crate::request::Target;
use crate::store::Stored;
use crate::table;

/// The body of every response.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a request gave.
pub(crate) enum Content {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

/// A response before HTTP.
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) content: Content,
    pub(crate) content_type: &'static str,
    pub(crate) warnings: Vec<String>,
}

impl Reply {
    pub(crate) fn new(code: u16, bytes: Bytes) -> Self {
        Self {
            code,
            content: Content::Whole(bytes),
            content_type: "application/json",
            warnings: Vec::new(),
        }
    }

    pub(crate) fn json(code: u16, value: &Value) -> Self {
        Self::new(code, Bytes::from(value.to_string()))
    }

    pub(crate) fn stream(stream: BoxStream<'static, Bytes>) -> Self {
        Self {
            content: Content::Stream(stream),
            ..Self::new(200, Bytes::new())
        }
    }

    pub(crate) fn error(error: &ApiError) -> Self {
        Self::json(error.code(), &error.to_status())
    }

    pub(crate) fn into_http(self) -> Response<Body> {
        let body = match self.content {
            Content::Whole(bytes) => Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync(),
            Content::Stream(stream) => {
                BodyExt::boxed_unsync(StreamBody::new(stream.map(|bytes| Ok(Frame::data(bytes)))))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(self.code)
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(self.content_type),
        );
        for warning in self.warnings {
            let text = format!("299 - \"{}\"", warning.replace('"', "\\\""));
            if let Ok(value) = header::HeaderValue::from_str(&text) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

/// How the client wants to see objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Full,
    Metadata,
    Table,
}

impl View {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let first = accept.split(',').next().unwrap_or_default();
        if first.contains("as=Table") {
            Self::Table
        } else if first.contains("as=PartialObjectMetadata") {
            Self::Metadata
        } else {
            Self::Full
        }
    }
}

/// Renders objects of one resource version.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    pub(crate) target: Arc<Target>,
    pub(crate) view: View,
    pub(crate) now: jiff::Timestamp,
}

impl Renderer {
    fn version(&self) -> Option<&Version> {
        self.target.resource.version(&self.target.version)
    }

    /// One object as a response body.
    pub(crate) fn object(&self, stored: &Stored) -> Bytes {
        self.with_header(stored, true)
    }

    /// Whether the answer has objects as they are stored.
    pub(crate) fn shows_text(&self) -> bool {
        self.view == View::Full && self.target.version == self.target.resource.storage
    }

    /// One object inside a watch event; the columns are sent only with the first.
    pub(crate) fn with_header(&self, stored: &Stored, header: bool) -> Bytes {
        match self.view {
            View::Full if self.shows_text() => stored.json(),
            View::Full => Bytes::from(self.converted(&stored.value).to_string()),
            View::Metadata => Bytes::from(partial(&stored.value).to_string()),
            View::Table => {
                let rows = vec![table::row(
                    self.version(),
                    &self.converted(&stored.value),
                    self.now,
                )];
                let list =
                    json!({ "resourceVersion": stored.value["metadata"]["resourceVersion"] });
                Bytes::from(table::table(self.version(), &rows, &list, header).to_string())
            }
        }
    }

    /// The object under the requested version; conversion is `None`, so only `apiVersion` differs.
    pub(crate) fn converted(&self, value: &Value) -> Value {
        let mut value = value.clone();
        value["apiVersion"] = json!(self.target.api_version());
        value
    }

    /// A list.
    pub(crate) fn list(&self, items: &[Arc<Stored>], metadata: &Value) -> Bytes {
        let (api_version, kind) = match self.view {
            View::Table => {
                let rows: Vec<Value> = items
                    .iter()
                    .map(|s| table::row(self.version(), &s.value, self.now))
                    .collect();
                return Bytes::from(
                    table::table(self.version(), &rows, metadata, true).to_string(),
                );
            }
            View::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList"),
            View::Full => (
                self.target.api_version(),
                self.target.resource.list_kind.as_str(),
            ),
        };
        let mut out = Vec::new();
        out.extend_from_slice(
            format!(
                "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
                json!(kind),
                json!(api_version)
            )
            .as_bytes(),
        );
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.object(item));
        }
        out.extend_from_slice(b"]}");
        Bytes::from(out)
    }

    /// A bookmark, with the annotation that ends initial events if wanted.
    pub(crate) fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let (api_version, kind) = match self.view {
            View::Full => (
                self.target.api_version(),
                self.target.resource.kind.as_str(),
            ),
            View::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            View::Table => ("meta.k8s.io/v1".to_owned(), "Table"),
        };
        let mut metadata =
            json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata });
        if kind == "Table" {
            object["columnDefinitions"] = json!([]);
            object["rows"] = json!([]);
        }
        Bytes::from(object.to_string())
    }
}

pub(crate) fn partial(value: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": value["metadata"],
    })
}
