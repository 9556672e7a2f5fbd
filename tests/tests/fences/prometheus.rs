//! Learning from a Prometheus that answers well, badly, or half.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Error,
    Refused,
    Empty,
    Partial,
    Nonsense,
    /// HTTP only; the other query fails.
    Half,
}

/// Workload and host of each counter, and whether it moves.
type Calls = Vec<(&'static str, &'static str, bool)>;

/// Answers like Prometheus.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) calls: Arc<Mutex<Calls>>,
    /// The same of TCP.
    pub(crate) connections: Arc<Mutex<Calls>>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
    queries: Arc<Mutex<BTreeSet<String>>>,
    address: SocketAddr,
    stop: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Fake {
    pub(crate) async fn start(calls: &[(&'static str, &'static str, bool)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let fake = Self {
            calls: Arc::new(Mutex::new(calls.to_vec())),
            connections: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Good)),
            asked: Arc::default(),
            address: listener.local_addr().unwrap(),
            queries: Arc::default(),
            stop: stop.clone(),
            _guard: Arc::new(stop.clone().drop_guard()),
        };
        // Without the guard, so that it goes with the test.
        let state = (
            [fake.calls.clone(), fake.connections.clone()],
            fake.mood.clone(),
            fake.asked.clone(),
            fake.queries.clone(),
        );
        let app = Router::new()
            .route("/api/v1/query", post(answer))
            .with_state(state);
        tokio::spawn(
            stop.run_until_cancelled_owned(async move { axum::serve(listener, app).await }),
        );
        fake
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn config(&self) -> String {
        format!(
            "{{fallback: {{enabled: false}}, retention: {{min: 4h}}, learn: {{prometheus: {{address: 'http://{}', interval: 20ms, timeout: 1h}}}}}}",
            self.address
        )
    }

    /// Lets `hours` pass, half an hour between two rounds of queries.
    pub(crate) async fn pass(&self, fixture: &Fixture, hours: usize) {
        for _ in 0..2 * hours {
            self.round().await;
            fixture.clock.advance(Duration::from_secs(1800));
        }
        self.round().await;
        self.round().await;
    }

    /// Waits until a whole round is answered and taken.
    pub(crate) async fn round(&self) {
        let from = self.asked.load(Ordering::SeqCst);
        // The first query after the next full pair was sent after its answers were taken.
        wait_until("a round", BOUND, || async {
            let now = self.asked.load(Ordering::SeqCst);
            (now >= from + 4).then_some(()).ok_or(format!("{now}"))
        })
        .await
        .unwrap();
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

type Shared = (
    [Arc<Mutex<Calls>>; 2],
    Arc<Mutex<Mood>>,
    Arc<AtomicUsize>,
    Arc<Mutex<BTreeSet<String>>>,
);

async fn answer(State((calls, mood, asked, queries)): State<Shared>, query: String) -> Response {
    queries.lock().insert(query.clone());
    let n = asked.fetch_add(1, Ordering::SeqCst);
    let tcp = query.contains("tcp");
    let rows = |share: usize| -> Vec<Value> {
        let calls = calls[usize::from(tcp)].lock();
        let shown = calls.iter().take(calls.len() / share);
        let row = |(workload, host, moves): &(&str, &str, bool)| {
            let value = if *moves { n + 1 } else { 7 };
            json!({"metric": {
                "source_workload": workload, "source_workload_namespace": "shop", "destination_service": host,
                "destination_service_namespace": "shop", "reporter": "source",
            }, "value": [0.0, value.to_string()]})
        };
        shown.map(row).collect()
    };
    let good = |rows: Vec<Value>| {
        Json(json!({"status": "success", "data": {"resultType": "vector", "result": rows}}))
            .into_response()
    };
    let mood = *mood.lock();
    match mood {
        Mood::Half if tcp => (StatusCode::SERVICE_UNAVAILABLE, "down").into_response(),
        Mood::Good | Mood::Half => good(rows(1)),
        Mood::Error => (StatusCode::INTERNAL_SERVER_ERROR, "down").into_response(),
        Mood::Refused => {
            Json(json!({"status": "error", "errorType": "bad_data", "error": "no"})).into_response()
        }
        Mood::Empty => good(Vec::new()),
        Mood::Partial => Json(json!({
            "status": "success", "warnings": ["a store is away"],
            "data": {"resultType": "vector", "result": if tcp { Vec::new() } else { rows(2) }},
        }))
        .into_response(),
        Mood::Nonsense => "<html>".into_response(),
    }
}

const CART: &str = "cart.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.cluster.local";

#[tokio::test]
async fn answers_that_are_wrong_or_half_narrow_nothing() {
    for mood in [
        Mood::Error,
        Mood::Refused,
        Mood::Empty,
        Mood::Partial,
        Mood::Nonsense,
        Mood::Half,
    ] {
        let fixture = Fixture::shop();
        let fake = Fake::start(&[("front", CART, true), ("front", STOCK, true)]).await;
        let operator = fixture.operator(&fake.config()).await;
        fixture.fence("shop", "front", json!({})).await;
        fixture
            .scope("shop", "front", &["shop/cart", "shop/stock"])
            .await;
        if mood == Mood::Half {
            *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, false)];
        }
        fake.set(mood);
        fake.pass(&fixture, 10).await;
        fixture.settle().await;
        fixture
            .scope("shop", "front", &["shop/cart", "shop/stock"])
            .await;
        fixture.never_narrowed("shop", "front").await;
        // It recovers: what is called now stays.
        *fake.calls.lock() = vec![("front", CART, true), ("front", STOCK, true)];
        fake.set(Mood::Good);
        fake.pass(&fixture, 2).await;
        fixture.never_narrowed("shop", "front").await;
        operator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_workload_whose_telemetry_is_gone_keeps_its_scope() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("cart", STOCK, true), ("front", CART, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    // Scaled to nothing, or its proxies are not scraped; others are.
    *fake.calls.lock() = vec![("cart", STOCK, true)];
    fake.pass(&fixture, 24).await;
    fixture.settle().await;
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.never_narrowed("shop", "front").await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn two_queries_are_asked_for_the_whole_mesh() {
    let fixture = Fixture::shop();
    let calls = [("front", CART, true), ("cart", STOCK, true)];
    let fake = Fake::start(&calls).await;
    let operator = fixture.operator(&fake.config()).await;
    for name in ["front", "cart", "stock"] {
        fixture.fence("shop", name, json!({})).await;
    }
    fixture.scope("shop", "front", &["shop/cart"]).await;
    fixture.scope("shop", "cart", &["shop/stock"]).await;
    fixture.scope("shop", "stock", &[]).await;
    fake.round().await;
    let queries = fake.queries.lock().clone();
    assert_eq!(queries.len(), 2, "one each for HTTP and TCP: {queries:?}");
    for query in &queries {
        assert!(query.contains("sum+by"), "{query}");
        assert!(!query.contains("front"), "{query}");
    }
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_prometheus_that_is_gone_narrows_nothing_and_costs_no_write() {
    let fixture = Fixture::shop();
    let fake = Fake::start(&[("front", CART, true), ("front", STOCK, true)]).await;
    let operator = fixture.operator(&fake.config()).await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.settle().await;
    fake.stop.cancel();
    let failures = || async {
        let url = format!("http://{}/metrics", operator.http);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("trimtab_lazyload_prometheus_failures_total{"));
        let value = line.and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{text}"))
    };
    let before = fixture.writes("shop").await;
    for _ in 0..5 {
        let seen = failures().await;
        wait_until("failed queries", BOUND, || async {
            let now = failures().await;
            (now >= seen + 2).then_some(()).ok_or(now.to_string())
        })
        .await
        .unwrap();
        fixture.clock.advance(Duration::from_secs(86_400));
    }
    fixture.settle().await;
    fixture
        .scope("shop", "front", &["shop/cart", "shop/stock"])
        .await;
    fixture.never_narrowed("shop", "front").await;
    assert_eq!(fixture.writes("shop").await, before);
    operator.stop().await.unwrap();
}
