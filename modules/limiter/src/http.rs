//! JSON API of the limiter.

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
        .route("/api/v1/limiters", get(limiters))
        .route("/api/v1/limiters/{namespace}/{name}/input", get(input))
        .with_state(engine)
}

async fn limiters(State(engine): State<Arc<Engine>>) -> Response {
    Json(json!({"items": engine.views()})).into_response()
}

async fn input(
    State(engine): State<Arc<Engine>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match engine.input(&namespace, &name) {
        Some(input) => Json(input).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("there is no SmartLimiter {namespace}/{name}\n"),
        )
            .into_response(),
    }
}
