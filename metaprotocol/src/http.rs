//! JSON API of the MetaProtocol module.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::engine::Engine;

/// The routes.
pub(crate) fn routes(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/api/v1/metaprotocol", get(hosts))
        .route(
            "/api/v1/metaprotocol/routers/{namespace}/{name}",
            get(router),
        )
        .with_state(engine)
}

async fn hosts(State(engine): State<Arc<Engine>>) -> Response {
    Json(json!({"items": engine.views()})).into_response()
}

async fn router(
    State(engine): State<Arc<Engine>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match engine.router_view(&namespace, &name) {
        Some(view) => Json(view).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("there is no MetaRouter {namespace}/{name}\n"),
        )
            .into_response(),
    }
}
