//! HTTP endpoints: health, readiness, metrics, JSON API, status page.

use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_kit::readiness::Readiness;
use trimtab_limiter::engine::Engine;
use trimtab_xds::{SnapshotCache, Stats};

/// What handlers use.
#[derive(Clone, Debug)]
pub struct State {
    /// Metrics.
    pub registry: Arc<Mutex<Registry>>,
    /// Blockers.
    pub readiness: Readiness,
    /// Limiters.
    pub limiter: Arc<Engine>,
    /// xDS streams.
    pub cache: SnapshotCache,
}

/// The status page: one file, no external assets.
const PAGE: &str = include_str!("status.html");

/// Serves until shutdown.
pub async fn serve(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/limiters", get(limiters))
        .route("/api/v1/limiters/{namespace}/{name}/input", get(input))
        .route("/api/v1/xds/streams", get(streams))
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

async fn streams(Extract(state): Extract<State>) -> Response {
    let streams: Vec<String> = state
        .cache
        .streams()
        .iter()
        .map(|s| format!("{s:?}"))
        .collect();
    Json(json!({"items": streams})).into_response()
}

/// Series of the xDS server.
#[derive(Debug)]
pub struct XdsCollector(pub SnapshotCache);

impl Collector for XdsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let stats = self.0.stats();
        let none: [(&str, &str); 0] = [];
        let mut streams = encoder.encode_descriptor(
            "trimtab_xds_streams",
            "Open xDS streams",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::<i64>::new(i64::try_from(self.0.streams().len()).unwrap_or(i64::MAX))
            .encode(streams.encode_family(&none)?)?;
        for (name, help, counter) in [
            (
                "trimtab_xds_pushes",
                "Responses sent to proxies",
                &stats.pushes,
            ),
            (
                "trimtab_xds_acks",
                "Responses that proxies took",
                &stats.acks,
            ),
            (
                "trimtab_xds_nacks",
                "Responses that proxies refused",
                &stats.nacks,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::<u64>::new(Stats::read(counter)).encode(family.encode_family(&none)?)?;
        }
        Ok(())
    }
}
