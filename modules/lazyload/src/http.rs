//! JSON API of lazy scoping.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::describe;
use crate::engine::{Engine, FenceView};
use crate::object::FenceKey;

/// Edges in one answer, at most, unless asked otherwise.
const EDGES: usize = 2000;

/// The routes.
pub(crate) fn routes(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/api/v1/lazyload", get(mesh))
        .route("/api/v1/lazyload/fences", get(fences))
        .route("/api/v1/lazyload/fences/{namespace}/{name}", get(fence))
        .route(
            "/api/v1/lazyload/fences/{namespace}/{name}/forget",
            post(forget),
        )
        .route("/api/v1/lazyload/pods/{namespace}/{name}", get(pod))
        .route("/api/v1/lazyload/edges", get(edges))
        .route("/lazyload/debug/svfReset", post(reset).get(no_reset))
        .with_state(engine)
}

fn missing(key: &FenceKey) -> Response {
    let text = format!("{}\n", describe::no_fence(key));
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn mesh(State(engine): State<Arc<Engine>>) -> Response {
    Json(engine.mesh_view()).into_response()
}

/// Without entries and dependencies, which make the answer long: ask for a fence to see them.
async fn fences(State(engine): State<Arc<Engine>>) -> Response {
    let brief = |key: FenceKey| {
        let view = engine.fence_view(&key)?;
        Some(FenceView {
            entries: <_>::default(),
            dependencies: Vec::new(),
            ..view
        })
    };
    let items: Vec<FenceView> = engine.fences().into_iter().filter_map(brief).collect();
    Json(json!({"items": items})).into_response()
}

async fn fence(
    State(engine): State<Arc<Engine>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let key = FenceKey { namespace, name };
    engine
        .fence_view(&key)
        .map_or_else(|| missing(&key), |view| Json(view).into_response())
}

async fn forget(
    State(engine): State<Arc<Engine>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let key = FenceKey { namespace, name };
    if engine.forget(&key) {
        Json(json!({"forgotten": key})).into_response()
    } else {
        missing(&key)
    }
}

async fn pod(
    State(engine): State<Arc<Engine>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let items = engine.pod_views(&namespace, &name);
    if items.is_empty() {
        let text = format!("{}\n", describe::no_pod(&namespace, &name));
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    Json(json!({"items": items})).into_response()
}

#[derive(Debug, Deserialize)]
struct EdgesQuery {
    limit: Option<usize>,
}

async fn edges(State(engine): State<Arc<Engine>>, Query(query): Query<EdgesQuery>) -> Response {
    let items = engine.edge_views(query.limit.unwrap_or(EDGES));
    Json(json!({"items": items, "total": engine.mesh_view().edges})).into_response()
}

#[derive(Debug, Deserialize)]
struct ResetQuery {
    ns: String,
    name: Option<String>,
}

/// Slime took a GET, which any web page can send: it changes nothing here.
async fn no_reset() -> Response {
    let text =
        "GET changes nothing: use curl -X POST -H 'X-Trimtab-Request: 1' with the same address\n";
    let allow = [(header::ALLOW, "POST")];
    (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response()
}

/// Slime's way to forget: all fences of a namespace, or one.
async fn reset(State(engine): State<Arc<Engine>>, Query(query): Query<ResetQuery>) -> Response {
    let meant = |key: &FenceKey| {
        key.namespace == query.ns && query.name.as_ref().is_none_or(|n| *n == key.name)
    };
    let keys: BTreeSet<FenceKey> = engine.fences().into_iter().filter(meant).collect();
    for key in &keys {
        engine.forget(key);
    }
    Json(json!({"forgotten": keys})).into_response()
}
