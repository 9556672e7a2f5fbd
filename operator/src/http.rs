//! HTTP endpoints: health, readiness, metrics, JSON API, status page.

mod fences;

use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_kit::readiness::Readiness;
use trimtab_lazyload::engine::Engine as LazyloadEngine;
use trimtab_limiter::engine::Engine;
use trimtab_metaprotocol::engine::Engine as MetaprotocolEngine;
use trimtab_xds::ResourceCache;

use crate::nodes;

/// What handlers use.
#[derive(Clone, Debug)]
pub struct State {
    /// Metrics.
    pub registry: Arc<Mutex<Registry>>,
    /// Blockers.
    pub readiness: Readiness,
    /// Limiters.
    pub limiter: Arc<Engine>,
    /// Layer-7 hosts; `None`: the module is switched off.
    pub metaprotocol: Option<Arc<MetaprotocolEngine>>,
    /// ServiceFences; `None`: the module is switched off.
    pub lazyload: Option<Arc<LazyloadEngine>>,
    /// xDS streams.
    pub cache: ResourceCache,
}

/// The status page. Nothing comes from elsewhere.
const LIMITERS: &str = include_str!("status.html");
/// Its view of who calls whom.
const DEPENDENCIES: &str = concat!(
    include_str!("dependencies.html"),
    "<script>\n",
    include_str!("dependencies/graph.js"),
    include_str!("dependencies/page.js"),
    "</script>\n</body>\n</html>\n"
);
const STYLE: &str = include_str!("status.css");

/// Serves until shutdown.
pub async fn serve(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { Html(LIMITERS) }))
        .route("/dependencies", get(|| async { Html(DEPENDENCIES) }))
        .route(
            "/status.css",
            get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/limiters", get(limiters))
        .route("/api/v1/limiters/{namespace}/{name}/input", get(input))
        .route("/api/v1/metaprotocol", get(hosts))
        .route(
            "/api/v1/metaprotocol/routers/{namespace}/{name}",
            get(router),
        )
        .route("/api/v1/xds/streams", get(streams))
        .route("/api/v1/xds/nodes", get(all_nodes))
        .route("/api/v1/xds/nodes/{node}", get(one_node))
        .merge(fences::routes())
        .with_state(state);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .context("the HTTP server failed")
}

async fn readyz(Extract(state): Extract<State>) -> Response {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
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

async fn limiters(Extract(state): Extract<State>) -> Response {
    Json(json!({"items": state.limiter.views()})).into_response()
}

async fn input(
    Extract(state): Extract<State>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match state.limiter.input(&namespace, &name) {
        Some(input) => Json(input).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("there is no SmartLimiter {namespace}/{name}\n"),
        )
            .into_response(),
    }
}

/// What is asked of a module that is switched off.
fn off() -> Response {
    let text = "the MetaProtocol module is switched off: set metaprotocol.enabled to true\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn hosts(Extract(state): Extract<State>) -> Response {
    match &state.metaprotocol {
        Some(engine) => Json(json!({"items": engine.views()})).into_response(),
        None => off(),
    }
}

async fn router(
    Extract(state): Extract<State>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let Some(engine) = &state.metaprotocol else {
        return off();
    };
    match engine.router_view(&namespace, &name) {
        Some(view) => Json(view).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("there is no MetaRouter {namespace}/{name}\n"),
        )
            .into_response(),
    }
}

async fn all_nodes(Extract(state): Extract<State>) -> Response {
    let nodes: Vec<nodes::Node> = state.cache.nodes().iter().map(nodes::Node::from).collect();
    Json(json!({"items": nodes})).into_response()
}

async fn one_node(Extract(state): Extract<State>, Path(node): Path<String>) -> Response {
    match state.cache.node(&node) {
        Some(found) => Json(nodes::Node::from(&found)).into_response(),
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
