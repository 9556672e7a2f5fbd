//! With an API server whose reviews take as long as the test wants.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Request, Response};
use futures::future::join_all;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::client::Body;
use tokio::sync::Semaphore;

use super::turns::WAITING;
use super::*;
use crate::clock::ManualClock;

fn status(user: &str, audiences: &[&str]) -> TokenReviewStatus {
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(audiences.iter().map(|&a| a.to_owned()).collect()),
        user: Some(UserInfo {
            username: Some(user.to_owned()),
            ..UserInfo::default()
        }),
        ..TokenReviewStatus::default()
    }
}

/// Knows tokens that begin with `good`; reviews of others end when `junk` has a permit for them.
#[derive(Clone)]
struct Reviews {
    asked: Arc<AtomicUsize>,
    junk: Arc<Semaphore>,
    takes: Duration,
}

impl Reviews {
    fn new(takes: Duration) -> Self {
        Self {
            asked: Arc::default(),
            junk: Arc::new(Semaphore::new(0)),
            takes,
        }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let bytes = request.into_body().collect_bytes().await.unwrap();
        let mut review: TokenReview = serde_json::from_slice(&bytes).unwrap();
        tokio::time::sleep(self.takes).await;
        if review.spec.token.as_deref().unwrap().starts_with("good") {
            let account = "system:serviceaccount:shop:cart";
            review.status = Some(status(account, &["istio-ca"]));
        } else {
            self.junk.acquire().await.unwrap().forget();
        }
        let body = serde_json::to_vec(&review).unwrap();
        Ok(Response::new(Body::from(body)))
    }

    fn reviewer(&self) -> TokenReviewer {
        let here = self.clone();
        let service = tower::service_fn(move |request| here.clone().answer(request));
        let clock = Arc::new(ManualClock::default());
        let client = Client::new(service, "default");
        TokenReviewer::new(client, TokenConfig::default(), clock)
    }
}

const STRANGER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
const OTHER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));

#[tokio::test]
async fn fault_t8_junk_from_one_address_delays_nobody_else() {
    let reviews = Reviews::new(Duration::ZERO);
    let reviewer = reviews.reviewer();
    let flood: Vec<String> = (0..2 * WAITING).map(|n| format!("junk{n}")).collect();
    let flood = flood
        .iter()
        .map(|token| reviewer.authenticate(token, STRANGER));
    let mut flood = std::pin::pin!(join_all(flood));
    let good = async {
        // The flood is polled first, and hangs.
        tokio::task::yield_now().await;
        for number in 0..3 {
            let token = format!("good{number}");
            reviewer.authenticate(&token, OTHER).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = &mut flood => panic!("the reviews of junk have no answer"),
        () = good => {}
    }
    assert!(reviews.asked.load(Ordering::Relaxed) <= 3 + turns::PER_ADDRESS);
    // Those that would wait behind too many are told so at once; the others get their answers.
    reviews.junk.add_permits(WAITING);
    let answers = flood.await;
    let told = |unavailable: bool| {
        let is = |a: &&Result<_, _>| matches!(a, Err(AuthenticateError::Unavailable(_)));
        answers.iter().filter(|a| is(a) == unavailable).count()
    };
    assert_eq!((told(true), told(false)), (WAITING, WAITING));
    assert_eq!(reviewer.turns.addresses(), 0);
}

#[tokio::test(start_paused = true)]
async fn fault_t8_the_time_out_counts_from_the_begin_of_a_review() {
    let reviews = Reviews::new(TIMEOUT / 10 * 9);
    let reviewer = reviews.reviewer();
    let tokens: Vec<String> = (0..4 * turns::PER_ADDRESS)
        .map(|n| format!("good{n}"))
        .collect();
    let all = tokens
        .iter()
        .map(|token| reviewer.authenticate(token, STRANGER));
    for answer in join_all(all).await {
        answer.unwrap();
    }
    let slow = Reviews::new(TIMEOUT + Duration::from_secs(1));
    let late = slow.reviewer().authenticate("good", STRANGER).await;
    assert!(
        matches!(late, Err(AuthenticateError::Unavailable(_))),
        "{late:?}"
    );
}

#[tokio::test]
async fn all_streams_of_a_proxy_cost_one_review() {
    let reviews = Reviews::new(Duration::from_millis(1));
    let reviewer = reviews.reviewer();
    let all = (0..20).map(|_| reviewer.authenticate("good", STRANGER));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(reviews.asked.load(Ordering::Relaxed), 1);
    assert!(reviewer.under_review.lock().is_empty());
}

#[test]
fn only_accounts_with_the_audience_are_accepted() {
    let config = TokenConfig::default();
    let account = "system:serviceaccount:shop:cart";
    let of = |status: &TokenReviewStatus| identity(&config, status, None);
    let good = of(&status(account, &["istio-ca"])).unwrap();
    assert_eq!(good.id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    for (refused, word) in [
        (status(account, &["vault"]), "not for istio-ca"),
        (status(account, &[]), "not for istio-ca"),
        (status("admin", &["istio-ca"]), "admin is no ServiceAccount"),
        (TokenReviewStatus::default(), "does not accept"),
    ] {
        let error = of(&refused).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_end_of_a_token_is_read() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"exp": 1700000000}"#);
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!(expiry(&format!("h.{payload}.s")), Some(end));
    assert_eq!(expiry("opaque"), None);
}
