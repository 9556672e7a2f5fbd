//! What a refused request gets, and what the proxies count.

use std::time::{Duration, Instant};

use trimtab_crds::limiter::Delivery;
use trimtab_lab::http::{self, Request};

use crate::lab::{BOUND, drive_case, tally};

const BOTH: [Delivery; 2] = [Delivery::EnvoyFilter, Delivery::Ecds];

fn tier(name: &str) -> Request {
    Request::get("/").header("tier", name)
}

#[tokio::test]
async fn headers_of_one_rule_do_not_show_on_another() {
    for delivery in BOTH {
        let driven = drive_case("response-headers", delivery).await;
        for (name, header) in [
            ("free", Some("free")),
            ("paid", Some("paid")),
            ("plain", None),
        ] {
            assert_eq!(
                tally(driven.mesh.inbound, 4, &tier(name), 429).await,
                (2, 2),
                "{name} by {delivery:?}"
            );
            let refusal = http::send(driven.mesh.inbound, &tier(name)).await.unwrap();
            assert_eq!(refusal.status, 429);
            assert_eq!(
                refusal.headers.get("x-limited").map(String::as_str),
                header,
                "{name} by {delivery:?}"
            );
            let retry = refusal.headers.get("retry-after").map(String::as_str);
            assert_eq!(
                retry,
                (name == "free").then_some("60"),
                "{name} by {delivery:?}"
            );
            assert_eq!(refusal.body, "local_rate_limited");
        }
        let served = http::send(driven.mesh.inbound, &Request::get("/"))
            .await
            .unwrap();
        assert_eq!(
            (served.status, served.headers.contains_key("x-limited")),
            (200, false)
        );
    }
}

#[tokio::test]
async fn status_and_body_are_as_written() {
    for delivery in BOTH {
        let driven = drive_case("response-status", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 4, &Request::get("/"), 503).await,
            (2, 2)
        );
        let refusal = http::send(driven.mesh.inbound, &Request::get("/"))
            .await
            .unwrap();
        assert_eq!(
            (refusal.status, refusal.body.as_str()),
            (503, "busy, come back later")
        );
    }
}

#[tokio::test]
async fn two_rules_answer_with_their_own_status() {
    for delivery in BOTH {
        let driven = drive_case("response-status-two-rules", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 4, &tier("free"), 503).await,
            (2, 2)
        );
        assert_eq!(
            tally(driven.mesh.inbound, 4, &tier("paid"), 429).await,
            (2, 2)
        );
        let busy = http::send(driven.mesh.inbound, &tier("free"))
            .await
            .unwrap();
        assert_eq!(busy.body, "busy");
        let plain = http::send(driven.mesh.inbound, &tier("paid"))
            .await
            .unwrap();
        assert_eq!(plain.body, "local_rate_limited");
    }
}

#[tokio::test]
async fn shadow_counts_and_lets_pass() {
    for delivery in BOTH {
        let driven = drive_case("shadow", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 6, &Request::get("/"), 429).await,
            (6, 0)
        );
        let stat = |name: &str| format!("http_local_rate_limiter.http_local_rate_limit.{name}");
        assert_eq!(
            driven.envoy.stat(&stat("rate_limited")).await.unwrap(),
            4,
            "by {delivery:?}"
        );
        assert_eq!(driven.envoy.stat(&stat("enforced")).await.unwrap(), 0);
    }
}

/// The bucket comes back after its interval and not much before. The upper bound is only there to end.
#[tokio::test]
async fn short_and_odd_intervals_refill() {
    for (case, interval) in [
        ("interval-1500ms", 1500),
        ("interval-250ms", 250),
        ("interval-70ms", 70),
    ] {
        for delivery in BOTH {
            let driven = drive_case(case, delivery).await;
            let begin = Instant::now();
            let (mut served, mut sent) = (0_u64, 0_u64);
            while served < 8 {
                served += tally(driven.mesh.inbound, 1, &Request::get("/"), 429)
                    .await
                    .0 as u64;
                sent += 1;
                assert!(begin.elapsed() < BOUND, "{case}: {served} of {sent} served");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Two tokens at the start; six more take three intervals, less the time in which the first arrive.
            let least = Duration::from_millis(interval * 5 / 2);
            assert!(
                begin.elapsed() >= least,
                "{case} by {delivery:?}: 8 served within {:?}",
                begin.elapsed()
            );
            assert!(sent > served, "{case}: some were refused");
        }
    }
}
