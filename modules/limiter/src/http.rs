//! JSON API of the limiter.

use std::sync::Arc;

use trimtab_kit::api::{Api, ApiError, Call, LIMIT, List, Operation};

use crate::engine::Engine;

/// The routes.
pub(crate) fn api(engine: Arc<Engine>) -> Api {
    let (all, one, described) = (engine.clone(), engine.clone(), engine.clone());
    Api::new()
        .get(
            "/api/v1/limiters",
            "All SmartLimiters, without their history",
            &[LIMIT],
            move |call| List::of(all.views(), call),
        )
        .get(
            "/api/v1/limiters/{namespace}/{name}",
            "A SmartLimiter, with its history",
            &[],
            move |call| {
                let (namespace, name) = call.object();
                one.view(&namespace, &name).ok_or_else(|| missing(call))
            },
        )
        .get(
            "/api/v1/limiters/{namespace}/{name}/description",
            "Whether a SmartLimiter limits now, why not, and what each proxy has of it",
            &[],
            move |call| {
                let (namespace, name) = call.object();
                let found = described.description(&namespace, &name);
                found.ok_or_else(|| ApiError::missing(described.missing(&namespace, &name)))
            },
        )
        .with(
            // A dump of all that decisions depend on, whose form changes with the release.
            Operation::json::<serde_json::Map<String, serde_json::Value>>(
                "/api/v1/limiters/{namespace}/{name}/input",
                "What a SmartLimiter's decisions depend on, for bug reports; its form is not stable",
            ),
            move |call| {
                let (namespace, name) = call.object();
                let input = engine.input(&namespace, &name);
                input.map(axum::Json).ok_or_else(|| missing(call))
            },
        )
}

fn missing(call: &Call) -> ApiError {
    let (namespace, name) = call.object();
    ApiError::missing(format!("there is no SmartLimiter {namespace}/{name}"))
}
