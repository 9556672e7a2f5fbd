//! What a Prometheus, or somebody in its place, cannot do to Trimtab: fill its memory, or make it tell a password.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that cannot go on ends its test"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use trimtab_kit::prometheus::{AnswerBudget, BasicAuth};
use trimtab_kit::sources::{
    Failure, Handler, HandlerType, MetricSource as _, PrometheusConfig, PrometheusSource, Sample,
    SampleRequest, SampleRequestId,
};

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn answering(answer: impl Fn(HeaderMap) -> Response + Clone + Send + Sync + 'static) -> Router {
    let answer = move |headers: HeaderMap| async move { answer(headers) };
    Router::new().fallback(post(answer))
}

/// A limiter `stacks/desk` with a query of its own, and one that uses the handler `mesh`.
fn requests() -> [SampleRequest; 2] {
    let own = |kind| ("own".to_owned(), Handler::new("{__name__=~\".+\"}", kind));
    let request = |id, name: &str, custom| SampleRequest {
        id: SampleRequestId(id),
        namespace: "stacks".to_owned(),
        limiter: "desk".to_owned(),
        metrics: vec![name.to_owned()],
        custom,
        ..SampleRequest::default()
    };
    [
        request(0, "own", vec![own(HandlerType::Group)]),
        request(1, "mesh", Vec::new()),
    ]
}

async fn sample(source: &PrometheusSource) -> [Sample; 2] {
    let requests = requests();
    let samples = source.sample(&requests).await;
    [(0, "own"), (1, "mesh")].map(|(id, name)| {
        let found = samples.get(SampleRequestId(id), name).cloned();
        // A group that is answered has the names of its series in place of its own.
        found.unwrap_or(Ok(samples.values.len() as f64))
    })
}

fn told(sample: &Sample) -> String {
    match sample {
        Err(Failure::Error(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn config(address: &str) -> PrometheusConfig {
    let mut config = PrometheusConfig::new(address);
    let mesh = Handler::new("up", HandlerType::PerPod);
    config.handlers.insert("mesh".to_owned(), mesh);
    config
}

/// Of now: samples of another time are missing.
fn series(count: usize) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let one = |i| format!(r#"{{"metric":{{"a":"{i}"}},"value":[{now},"1"]}}"#);
    let all: Vec<String> = (0..count).map(one).collect();
    let all = all.join(",");
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{all}]}}}}"#)
}

#[tokio::test]
async fn fault_t5_an_answer_over_a_bound_is_refused_by_limiter_query_and_bound() {
    let text = Arc::new(series(1500));
    let app = answering(move |_| text.to_string().into_response());
    let address = serve(app).await;
    let source = PrometheusSource::new(config(&format!("http://{address}"))).unwrap();
    let [own, mesh] = sample(&source).await;
    let own = told(&own);
    for word in [
        "query own of SmartLimiter stacks/desk",
        "more than 1000 series",
        "metrics.prometheus.ownQueries.maxSeries",
    ] {
        assert!(own.contains(word), "{own}");
    }
    assert!(source.health().last_error.unwrap().contains("stacks/desk"));
    assert_eq!(mesh, Err(Failure::Empty), "of no pod, and taken");
    let mut small = config(&format!("http://{address}"));
    (small.max_series, small.own_queries.max_bytes) = (100, 1000);
    let source = PrometheusSource::new(small).unwrap();
    let [own, mesh] = sample(&source).await;
    assert!(told(&own).contains("1000 bytes"), "{own:?}");
    assert!(told(&own).contains("ownQueries.maxBytes"), "{own:?}");
    assert!(
        told(&mesh).contains("metrics.prometheus.maxSeries"),
        "{mesh:?}"
    );
}

#[tokio::test]
async fn fault_t5_an_endless_answer_is_read_up_to_its_bound() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let app = answering(move |_| {
        let counter = counter.clone();
        let head = series(0).replace("]}}", "");
        let chunk = Bytes::from(r#"{"metric":{"a":"1"},"value":[1,"1"]},"#.repeat(1000));
        let chunks = futures::stream::unfold(Bytes::from(head), move |next| {
            counter.fetch_add(next.len(), Ordering::Relaxed);
            let chunk = chunk.clone();
            async move { Some((Ok::<_, std::io::Error>(next), chunk)) }
        });
        Body::from_stream(chunks).into_response()
    });
    let budget = AnswerBudget::default();
    let address = serve(app).await;
    let source = PrometheusSource::new(config(&format!("http://{address}"))).unwrap();
    let source = source.with_budget(budget.clone());
    let [own, mesh] = sample(&source).await;
    assert!(told(&own).contains("262144 bytes"), "{own:?}");
    assert!(told(&mesh).contains("4194304 bytes"), "{mesh:?}");
    let read = sent.load(Ordering::Relaxed);
    // Sockets hold some of it.
    assert!(read < 40 << 20, "{read} bytes were sent");
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn fault_t5_all_answers_share_one_budget() {
    let text = Arc::new(series(900));
    let app = answering(move |_| text.to_string().into_response());
    let budget = AnswerBudget::new(200_000);
    let address = serve(app).await;
    let source = PrometheusSource::new(config(&format!("http://{address}"))).unwrap();
    let source = source.with_budget(budget.clone());
    let [own, mesh] = sample(&source).await;
    assert!(told(&own).contains("memory for all answers"), "{own:?}");
    assert_eq!(mesh, Err(Failure::Empty));
    let mut held = budget.open(None);
    assert!(held.grow(190_000));
    let [_, mesh] = sample(&source).await;
    assert!(told(&mesh).contains("memory for all answers"), "{mesh:?}");
    drop(held);
    assert_eq!(budget.used(), 0);
}

const PASSWORD: &str = "hush@/1%";
/// With percent signs, and as basic authentication sends it for the user `reader`.
const FORMS: [&str; 3] = ["hush%40%2F1%25", "hush%40", "cmVhZGVyOmh1c2hALzEl"];

/// All that a failed round says.
async fn said(config: PrometheusConfig) -> String {
    let source = PrometheusSource::new(config).unwrap();
    let samples = sample(&source).await;
    format!("{samples:?} {:?} {source:?}", source.health())
}

fn keeps_secret(said: &str) {
    for form in [&[PASSWORD][..], &FORMS].concat() {
        assert!(!said.contains(form), "{form} in {said}");
    }
}

#[tokio::test]
async fn fault_t11_fault_l10_nothing_that_goes_wrong_shows_the_password() {
    let echo = |status: StatusCode| {
        answering(move |headers| {
            let sent = headers.get(header::AUTHORIZATION).cloned();
            let sent = sent.map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(sent.as_deref(), Some("Basic cmVhZGVyOmh1c2hALzEl"));
            // The secret stands where a cut would leave half of it.
            let text = format!("{}{} {PASSWORD}", "x".repeat(270), sent.unwrap());
            let to = "http://reader:hush%40%2F1%25@elsewhere.example/";
            (status, [(header::LOCATION, to)], text).into_response()
        })
    };
    let user = "reader:hush%40%2F1%25@";
    for status in [401, 403, 500, 302, 307, 308, 200] {
        let address = serve(echo(StatusCode::from_u16(status).unwrap())).await;
        let text = said(config(&format!("http://{user}{address}/"))).await;
        keeps_secret(&text);
        assert!(text.contains("http://***@127.0.0.1"), "{text}");
        assert!(!text.contains("reader"), "{text}");
    }
    let refused = serve(Router::new()).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|a| (silent, a)).unwrap();
    for address in [
        "127.0.0.1:1".to_owned(),
        "no-such-host.invalid".to_owned(),
        silent.1.to_string(),
        refused.to_string(),
    ] {
        let mut config = config(&format!("http://{user}{address}"));
        config.timeout = Duration::from_millis(300).into();
        keeps_secret(&said(config).await);
    }
}

#[tokio::test]
async fn fault_t11_the_password_of_a_file_is_sent_and_not_shown() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("password-{}", std::process::id()));
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let app = answering(|headers| {
        let sent = headers[header::AUTHORIZATION].to_str().unwrap().to_owned();
        (StatusCode::UNAUTHORIZED, sent).into_response()
    });
    let mut config = config(&format!("http://{}", serve(app).await));
    config.basic_auth = Some(BasicAuth {
        username: "reader".to_owned(),
        password_file: file.clone(),
    });
    let text = said(config.clone()).await;
    keeps_secret(&text);
    assert!(text.contains("401") && text.contains("***"), "{text}");
    std::fs::remove_file(&file).unwrap();
    assert!(said(config).await.contains("basicAuth.passwordFile"));
}

#[tokio::test]
async fn fault_t11_fault_l11_a_slash_at_the_end_of_the_address_is_no_path() {
    let app = Router::new()
        .route("/api/v1/query", post(|| async { series(1) }))
        .route("/prom/api/v1/query", post(|| async { series(1) }));
    let address = serve(app).await;
    for path in ["", "/", "//", "/prom", "/prom/"] {
        let config = config(&format!("http://{address}{path}"));
        let [own, _] = sample(&PrometheusSource::new(config).unwrap()).await;
        assert!(own.is_ok(), "{path}: {own:?}");
    }
}
