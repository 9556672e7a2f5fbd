//! HTTP endpoints: health, readiness, metrics, JSON API, status page.

mod guard;
mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab_kit::module::{DescribeRequest, Installed};
use trimtab_kit::readiness::Readiness;
use trimtab_xds::ResourceCache;

pub use guard::{OwnNames, REQUEST_HEADER};

use crate::{describe, nodes};

/// What handlers use.
#[derive(Clone, Debug)]
pub struct State {
    /// Metrics.
    pub registry: Arc<Mutex<Registry>>,
    /// Blockers.
    pub readiness: Readiness,
    /// Modules that run.
    pub modules: Vec<Arc<Installed>>,
    /// xDS streams.
    pub cache: ResourceCache,
}

/// The status page. Nothing comes from elsewhere.
const LIMITERS: &str = include_str!("status.html");
/// Its view of who calls whom.
const DEPENDENCIES: &str = concat!(
    include_str!("dependencies.html"),
    "<script src=\"/dependencies.js\"></script>\n</body>\n</html>\n"
);
/// Files of the pages: path, type, text.
const FILES: [(&str, &str, &str); 3] = [
    (
        "/status.css",
        "text/css; charset=utf-8",
        include_str!("status.css"),
    ),
    (
        "/status.js",
        "text/javascript; charset=utf-8",
        include_str!("status.js"),
    ),
    (
        "/dependencies.js",
        "text/javascript; charset=utf-8",
        concat!(
            include_str!("dependencies/graph.js"),
            include_str!("dependencies/page.js")
        ),
    ),
];

/// Serves the present one of `pages` until shutdown.
pub async fn serve(
    listener: TcpListener,
    pages: watch::Receiver<Router>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    serve::serve(listener, pages, shutdown).await;
    Ok(())
}

/// All that the port answers.
pub fn pages(state: State, names: Arc<OwnNames>) -> Router {
    let routes: Vec<Router> = state.modules.iter().map(|m| m.routes.clone()).collect();
    let app = Router::new()
        .route("/", get(|| async { Html(LIMITERS) }))
        .route("/dependencies", get(|| async { Html(DEPENDENCIES) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/describe/{kind}/{namespace}/{name}", get(describe))
        .route("/api/v1/xds/streams", get(streams))
        .route("/api/v1/xds/nodes", get(all_nodes))
        .route("/api/v1/xds/nodes/{node}", get(one_node))
        .fallback(unknown)
        .with_state(state);
    let app = FILES.iter().fold(app, |app, (path, kind, text)| {
        app.route(
            path,
            get(|| async { ([(header::CONTENT_TYPE, *kind)], *text) }),
        )
    });
    let app = routes.into_iter().fold(app, Router::merge);
    // For the routes of all modules: what changes state is a POST, and comes from nobody's web page.
    app.layer(axum::middleware::from_fn(guard::only_from_here))
        .layer(axum::middleware::map_response(guard::protected))
        .layer(axum::Extension(names))
}

async fn readyz(Extract(state): Extract<State>) -> Response {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        // A degraded module must not take the others out of service.
        let mut lines = vec!["ok".to_owned()];
        for (what, reason) in state.readiness.degraded() {
            lines.push(format!("degraded: {what}: {reason}"));
        }
        return format!("{}\n", lines.join("\n")).into_response();
    }
    let text = format!("waiting for {}\n", missing.join("\nwaiting for "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    let mut text = String::new();
    let registry = state.registry.lock();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Text for `trimtab describe`.
async fn describe(
    Extract(state): Extract<State>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    Query(attributes): Query<BTreeMap<String, String>>,
) -> Response {
    let request = DescribeRequest {
        namespace,
        name,
        attributes,
    };
    match describe::answer(&state.modules, &kind, &request) {
        Ok(text) => text.into_response(),
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

/// A path of no route; that of a module that is switched off is one.
async fn unknown(Extract(state): Extract<State>, uri: Uri) -> Response {
    let running: Vec<&str> = state.modules.iter().map(|m| m.name).collect();
    let error = format!(
        "there is nothing at {}; modules that run: {}",
        uri.path(),
        running.join(", ")
    );
    (StatusCode::NOT_FOUND, Json(json!({"error": error}))).into_response()
}

async fn all_nodes(Extract(state): Extract<State>) -> Response {
    let nodes: Vec<nodes::Node> = state.cache.nodes().iter().map(nodes::Node::from).collect();
    Json(json!({"items": nodes})).into_response()
}

async fn one_node(Extract(state): Extract<State>, Path(node): Path<String>) -> Response {
    match state.cache.node(&node) {
        Some(found) => {
            let findings = state.modules.iter().flat_map(|m| m.findings());
            let findings = findings.filter(|f| f.refused);
            let node = nodes::Node {
                mistakes: findings.map(|f| f.message).collect(),
                ..nodes::Node::from(&found)
            };
            Json(node).into_response()
        }
        None => (
            StatusCode::NOT_FOUND,
            format!("no proxy with the node id {node} is connected\n"),
        )
            .into_response(),
    }
}

async fn streams(Extract(state): Extract<State>) -> Response {
    let streams = state.cache.streams();
    let streams: Vec<nodes::Stream> = streams.iter().map(nodes::Stream::from).collect();
    Json(json!({"items": streams})).into_response()
}
