//! The tasks that learn. They begin with the first scopes, when sources and destinations can be told.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trimtab_kit::host::{Context, Host};

use crate::config::{LazyloadConfig, PrometheusLearning};
use crate::engine::Engine;
use crate::learn::Rules;
use crate::learn::prometheus::{self, PrometheusStats};
use crate::learn::server::{self, ServerOptions, ServerStats};

/// What was learned from where.
#[derive(Debug, Default)]
pub struct Learned {
    /// By access logs.
    pub access_logs: Arc<ServerStats>,
    /// By telemetry.
    pub prometheus: Arc<PrometheusStats>,
}

/// Declares the tasks.
pub(super) fn declare(
    host: &mut Host,
    config: &LazyloadConfig,
    access_logs: Option<TcpListener>,
    engine: &Arc<Engine>,
    learned: &Learned,
    started: &CancellationToken,
) {
    let context = host.context().clone();
    let rules = Rules {
        fallback_hosts: engine.fallback_hosts(),
    };
    if let Some(listener) = access_logs {
        let backend = server::Backend {
            directory: engine.index.clone(),
            store: engine.edges.clone(),
            clock: context.clock.clone(),
            stats: learned.access_logs.clone(),
        };
        let options = ServerOptions {
            rules: rules.clone(),
            ..ServerOptions::default()
        };
        host.spawn(
            "lazyload: access logs",
            serve(listener, backend, options, context.clone(), started.clone()),
        );
    }
    if let Some(telemetry) = &config.learn.prometheus {
        let backend = prometheus::Backend {
            directory: engine.index.clone(),
            rules,
            store: engine.edges.clone(),
            clock: context.clock.clone(),
            stats: learned.prometheus.clone(),
        };
        host.spawn(
            "lazyload: telemetry",
            ask(telemetry.clone(), backend, context, started.clone()),
        );
    }
}

/// Waits until the first scopes are there; false: the process stops.
async fn begun(context: &Context, started: &CancellationToken) -> bool {
    tokio::select! {
        () = context.shutdown.cancelled() => false,
        () = started.cancelled() => true,
    }
}

async fn serve(
    listener: TcpListener,
    backend: server::Backend,
    options: ServerOptions,
    context: Context,
    started: CancellationToken,
) {
    if !begun(&context, &started).await {
        return;
    }
    if let Err(error) = server::serve(listener, backend, options, context.shutdown.clone()).await {
        tracing::error!(%error, "access logs are not taken any more");
    }
}

async fn ask(
    config: PrometheusLearning,
    backend: prometheus::Backend,
    context: Context,
    started: CancellationToken,
) {
    if !begun(&context, &started).await {
        return;
    }
    if let Err(error) = prometheus::run(&config, &backend, context.shutdown.clone()).await {
        tracing::error!(%error, "telemetry is not asked");
        context.shutdown.cancelled().await;
    }
}
