//! JSON API of the lazyload module.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use trimtab_lazyload::engine::FenceView;
use trimtab_lazyload::object::FenceKey;

use super::State;

/// Edges in one answer, at most, unless asked otherwise.
const EDGES: usize = 2000;

pub(super) fn routes() -> Router<State> {
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
        .route("/lazyload/debug/svfReset", get(reset))
}

fn off() -> Response {
    let text = "the lazyload module is switched off: set lazyload.enabled to true\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn missing(key: &FenceKey) -> Response {
    let text = format!("there is no ServiceFence {key}\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn mesh(Extract(state): Extract<State>) -> Response {
    match &state.lazyload {
        Some(engine) => Json(engine.mesh_view()).into_response(),
        None => off(),
    }
}

/// Without entries and dependencies, which make the answer long: ask for a fence to see them.
async fn fences(Extract(state): Extract<State>) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
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
    Extract(state): Extract<State>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
    let key = FenceKey { namespace, name };
    engine
        .fence_view(&key)
        .map_or_else(|| missing(&key), |view| Json(view).into_response())
}

async fn forget(
    Extract(state): Extract<State>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
    let key = FenceKey { namespace, name };
    if engine.forget(&key) {
        Json(json!({"forgotten": key})).into_response()
    } else {
        missing(&key)
    }
}

async fn pod(
    Extract(state): Extract<State>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
    let fences = engine.fences_of_pod(&namespace, &name);
    let items: Vec<FenceView> = fences
        .iter()
        .filter_map(|key| engine.fence_view(key))
        .collect();
    if items.is_empty() {
        let text = format!(
            "no ServiceFence selects the pod {namespace}/{name}, or there is no such pod\n"
        );
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    Json(json!({"items": items})).into_response()
}

#[derive(Debug, Deserialize)]
struct EdgesQuery {
    limit: Option<usize>,
}

async fn edges(Extract(state): Extract<State>, Query(query): Query<EdgesQuery>) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
    let items = engine.edge_views(query.limit.unwrap_or(EDGES));
    Json(json!({"items": items, "total": engine.mesh_view().edges})).into_response()
}

#[derive(Debug, Deserialize)]
struct ResetQuery {
    ns: String,
    name: Option<String>,
}

/// Slime's way to forget: all fences of a namespace, or one.
async fn reset(Extract(state): Extract<State>, Query(query): Query<ResetQuery>) -> Response {
    let Some(engine) = &state.lazyload else {
        return off();
    };
    let meant = |key: &FenceKey| {
        key.namespace == query.ns && query.name.as_ref().is_none_or(|n| *n == key.name)
    };
    let keys: BTreeSet<FenceKey> = engine.fences().into_iter().filter(meant).collect();
    for key in &keys {
        engine.forget(key);
    }
    Json(json!({"forgotten": keys})).into_response()
}
