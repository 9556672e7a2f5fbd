//! HTTP endpoints: health, readiness, metrics, JSON API, status page.

mod guard;
mod openapi;
mod serve;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab_kit::api::{Answer, Api, ApiError, Call, LIMIT, List, Operation};
use trimtab_kit::lease::{Standing, StandingView};
use trimtab_kit::module::{DescribeRequest, Installed};
use trimtab_kit::readiness::Readiness;
use trimtab_xds::ResourceCache;

pub use guard::{OwnNames, REQUEST_HEADER};

use crate::health::{Health, Watched};
use crate::version::Version;
use crate::{described, nodes};

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
    /// Who leads.
    pub standing: Standing,
    /// Metric sources and watches.
    pub watched: Watched,
}

/// The page of limiters, MetaRouters and fences. Nothing comes from elsewhere.
const STATUS: &str = include_str!("status.html");
/// Its places; its script reads which one it is.
const STATUS_PATHS: [&str; 6] = [
    "/",
    "/limiters/{namespace}/{name}",
    "/metarouters",
    "/metarouters/{namespace}/{name}",
    "/fences",
    "/fences/{namespace}/{name}",
];
/// The view of who calls whom.
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
        concat!(include_str!("status/parts.js"), include_str!("status.js")),
    ),
    (
        "/dependencies.js",
        "text/javascript; charset=utf-8",
        concat!(
            include_str!("status/parts.js"),
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
pub fn pages(state: &State, names: Arc<OwnNames>) -> Router {
    router(state)
        // For the routes of all modules: what changes state is a POST, and comes from nobody's web page.
        .layer(axum::middleware::from_fn(guard::only_from_here))
        .layer(axum::middleware::map_response(guard::protected))
        .layer(axum::Extension(names))
}

fn router(state: &State) -> Router {
    let own = own_api(state);
    let modules = state.modules.iter().map(|m| m.api.clone());
    let api = with_index(modules.fold(own, Api::merge));
    let unknown = Unknown {
        running: state.modules.iter().map(|m| m.name).collect(),
        operations: api.operations(),
    };
    let pages: Router<Arc<Unknown>> =
        Router::new().route("/dependencies", get(|| async { Html(DEPENDENCIES) }));
    let pages = STATUS_PATHS.iter().fold(pages, |pages, path| {
        pages.route(path, get(|| async { Html(STATUS) }))
    });
    let pages = FILES.iter().fold(pages, |pages, (path, kind, text)| {
        let file = get(|| async { ([(header::CONTENT_TYPE, *kind)], *text) });
        pages.route(path, file)
    });
    let unknown = Arc::new(unknown);
    pages
        .merge(api.into_router().with_state(()))
        .fallback(nothing)
        .method_not_allowed_fallback(no_method)
        .with_state(unknown)
}

/// What is no module's.
fn own_api(state: &State) -> Api {
    let [probe, scrape, described] = [(); 3].map(|()| state.clone());
    let text = Operation::text;
    let metrics_operation = Operation {
        answer: Answer::Text(OPEN_METRICS),
        ..text("/metrics", "Series for Prometheus")
    };
    let describe_operation = Operation {
        open: true,
        ..text(
            "/api/v1/describe/{kind}/{namespace}/{name}",
            "The text of trimtab describe; parameters are attributes of a call",
        )
    };
    Api::new()
        .with(text("/healthz", "Whether the process answers"), |_| {
            Ok("ok\n")
        })
        .with(
            text("/readyz", "Whether it decides; 503 says what it waits for"),
            move |_| Ok(readyz(&probe)),
        )
        .with(metrics_operation, move |_| Ok(metrics(&scrape)))
        .with(describe_operation, move |call| describe(&described, call))
        .merge(of_process(state))
}

/// Version, leader and proxies.
fn of_process(state: &State) -> Api {
    let [streamed, listed, shown, checked] = [(); 4].map(|()| state.clone());
    let standing = state.standing.clone();
    Api::new()
        .get("/version", "The version of the program", &[], |_| {
            Ok(Version::own())
        })
        .get(
            "/api/v1/health",
            "What is wrong with the operator itself, for trimtab check",
            &[],
            move |_| -> Result<Health, ApiError> { Ok(health(&checked)) },
        )
        .get(
            "/api/v1/leader",
            "Which replica leads, as far as this one knows",
            &[],
            move |_| -> Result<StandingView, ApiError> { Ok(standing.view()) },
        )
        .get(
            "/api/v1/xds/streams",
            "xDS streams, one for each proxy and type",
            &[LIMIT],
            move |call| {
                let streams = streamed.cache.streams();
                List::of(streams.iter().map(nodes::Stream::from).collect(), call)
            },
        )
        .get(
            "/api/v1/xds/nodes",
            "Connected proxies, with the version of every resource that they have",
            &[LIMIT],
            move |call| {
                let nodes = listed.cache.nodes();
                List::of(nodes.iter().map(nodes::Node::from).collect(), call)
            },
        )
        .get(
            "/api/v1/xds/nodes/{node}",
            "One proxy, and what is wrong with objects that it may depend on",
            &[],
            move |call| one_node(&shown, call),
        )
}

/// Index and OpenAPI document of an API; they have themselves in them.
fn with_index(api: Api) -> Api {
    let index = "/api/v1";
    let own = [
        Operation::json::<openapi::Index>(index, "All paths"),
        Operation::json::<openapi::Index>("/api", "All paths, as /api/v1"),
        Operation::json::<serde_json::Map<String, serde_json::Value>>(
            openapi::PATH,
            "The OpenAPI document",
        ),
    ];
    let mut all = api.operations();
    all.extend(own);
    all.sort_by_key(|o| (o.path, o.method));
    let document = openapi::document(&all);
    let paths = openapi::index(&all);
    let [list, long, api_document] = own;
    let again = paths.clone();
    api.with(list, move |_| Ok(Json(paths.clone())))
        .with(long, move |_| Ok(Json(again.clone())))
        .with(api_document, move |_| Ok(Json(document.clone())))
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn readyz(state: &State) -> Response {
    let missing = state.readiness.missing();
    let leader = state.standing.view().line();
    if missing.is_empty() {
        // A degraded module must not take the others out of service, and a replica that waits for its turn is ready.
        let mut lines = vec!["ok".to_owned()];
        lines.extend(leader);
        for (what, reason) in state.readiness.degraded() {
            lines.push(format!("degraded: {what}: {reason}"));
        }
        return format!("{}\n", lines.join("\n")).into_response();
    }
    let leader = leader.map_or_else(String::new, |line| format!("{line}\n"));
    let text = format!("waiting for {}\n{leader}", missing.join("\nwaiting for "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn metrics(state: &State) -> Response {
    let mut text = String::new();
    let registry = state.registry.lock();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Text for `trimtab describe`.
fn describe(state: &State, call: &Call) -> Result<String, ApiError> {
    let (namespace, name) = call.object();
    let request = DescribeRequest {
        namespace,
        name,
        attributes: call.query.clone(),
    };
    described::answer(&state.modules, &call.path("kind"), &request).map_err(ApiError::missing)
}

fn health(state: &State) -> Health {
    let State {
        readiness,
        standing,
        modules,
        ..
    } = state;
    let now = Timestamp::now();
    state.watched.health(now, readiness, standing, modules)
}

fn one_node(state: &State, call: &Call) -> Result<nodes::Node, ApiError> {
    let node = call.path("node");
    let found = state.cache.node(&node).ok_or_else(|| {
        ApiError::missing(format!("no proxy with the node id {node} is connected"))
    })?;
    let findings = state.modules.iter().flat_map(|m| m.findings());
    let findings = findings.filter(|f| f.refused);
    Ok(nodes::Node {
        mistakes: findings.map(|f| f.message).collect(),
        ..nodes::Node::from(&found)
    })
}

/// What requests that no route takes are told.
struct Unknown {
    running: Vec<&'static str>,
    operations: Vec<Operation>,
}

/// A path of no route; that of a module that is switched off is one.
async fn nothing(Extract(unknown): Extract<Arc<Unknown>>, uri: Uri) -> ApiError {
    ApiError::missing(format!(
        "there is nothing at {}; /api/v1 has all paths; modules that run: {}",
        uri.path(),
        unknown.running.join(", ")
    ))
}

async fn no_method(Extract(unknown): Extract<Arc<Unknown>>, method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let here = unknown.operations.iter().filter(|o| o.is_at(path));
    let mut known: Vec<&str> = here.map(|o| o.method.as_str()).collect();
    if known.is_empty() {
        known.push("GET");
    }
    let header = if known.contains(&"POST") {
        " (curl -X POST -H 'X-Trimtab-Request: 1')"
    } else {
        ""
    };
    let error = format!(
        "{method} is not for {path}: use {}{header}",
        known.join(" or ")
    );
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
