//! All of it without Istio: a pod's Envoy is scoped by Trimtab's own xDS, two fallback Envoys carry the first calls and log
//! them, the scope follows, and nothing is lost meanwhile.
//!
//! Proxies and pods have addresses of 127.0.0.0/8, all on this machine.

mod fixture;
mod load;
mod protocols;

use std::time::{Duration, Instant};

use trimtab_lab::http::{KeepAlive, Request};
use trimtab_lab::process::wait_until;

use self::fixture::{Fixture, Running, host, server};
use self::load::Load;
use crate::collector::BOUND;
use crate::servers::Echo;

fn has(scope: &[String], name: &str) -> bool {
    scope.contains(&format!("shop/{}", host(name)))
}

/// Whether all that is called is in scope.
fn all(scope: &[String]) -> bool {
    ["a", "b", "bytes"].iter().all(|name| has(scope, name))
}

/// One call by hand: how long it took, how long until the host was in scope, and until calls went past the fallback.
async fn first_call(fixture: &Fixture) {
    let mut connection = KeepAlive::connect(fixture.http()).await.unwrap();
    let request = Request::get("/").header("host", &host("a"));
    let before = fixture.detours().await;
    let begun = Instant::now();
    let answer = connection.send(&request).await.unwrap();
    let first = begun.elapsed();
    assert_eq!((answer.status, answer.body.trim()), (200, "a"));
    assert_eq!(
        fixture.detours().await,
        before + 1,
        "the fallback carried it"
    );
    fixture.scoped("a in scope", |s| has(s, "a")).await;
    let in_scope = begun.elapsed();
    wait_until("a direct call", BOUND, || async {
        let before = fixture.detours().await;
        let connection = KeepAlive::connect(fixture.http()).await;
        let mut connection = connection.map_err(|e| e.to_string())?;
        let answer = connection.send(&request).await.map_err(|e| e.to_string())?;
        assert_eq!(answer.status, 200);
        if fixture.detours().await == before {
            Ok(())
        } else {
            Err("still by the fallback".to_owned())
        }
    })
    .await
    .unwrap();
    let direct = begun.elapsed();
    let begun = Instant::now();
    connection.send(&request).await.unwrap();
    let later: Duration = begun.elapsed();
    println!(
        "first call {first:?}, in scope after {in_scope:?}, direct after {direct:?}; a direct call takes {later:?}"
    );
}

/// What is learned is forgotten and learned anew, while calls go on.
async fn learn_anew(fixture: &Fixture) {
    let before = fixture.no_detours().await;
    fixture.forget().await;
    wait_until("calls by the fallback again", BOUND, || async {
        if fixture.detours().await > before {
            Ok(())
        } else {
            Err(fixture.view().await)
        }
    })
    .await
    .unwrap();
    fixture.scoped("all in scope again", all).await;
}

/// Trimtab dies and comes back: the scope is as it was, and so are the proxies.
async fn restart(fixture: &mut Fixture, load: &Load) {
    fixture.operator = None;
    let good = load.good();
    wait_until("calls without Trimtab", BOUND, || async {
        let now = load.good();
        if now > good + 500 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await
    .unwrap();
    let writes = fixture.embedded.writes("sidecars", "patch");
    fixture.operator = Some(Running::start(fixture.config.clone(), &fixture.embedded).await);
    assert!(all(&fixture.scope().await), "{:?}", fixture.scope().await);
    assert_eq!(
        fixture.embedded.writes("sidecars", "patch"),
        writes,
        "a restart writes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_scopes_are_learned_expire_and_parts_restart() {
    let (a, b, ready) = (server("a").await, server("b").await, server("ready").await);
    let servers = [
        ("a", a.address()),
        ("b", b.address()),
        ("ready", ready.address()),
    ];
    let bytes = Echo::start().await;
    let others = [("bytes", "tcp", bytes.address)];
    let mut fixture = Fixture::start("losses", &servers, &others).await;
    fixture.ready().await;
    fixture
        .scoped("the first call to be learned", |s| {
            has(s, "ready") && !has(s, "a")
        })
        .await;
    first_call(&fixture).await;

    let load = Load::start(fixture.http(), fixture.at("bytes"), &["a", "b", "a", "b"]);
    fixture.scoped("all in scope", all).await;
    for _ in 0..3 {
        learn_anew(&fixture).await;
    }
    fixture.expire().await;
    fixture.scoped("all in scope after the deadline", all).await;
    restart(&mut fixture, &load).await;
    for number in [0, 1] {
        fixture.forget().await;
        fixture.restart_fallback(number).await;
        fixture
            .scoped("all in scope after the fallback's restart", all)
            .await;
    }
    wait_until("10,000 calls", BOUND * 2, || async {
        let sum = load.sum();
        if sum >= 10_000 {
            Ok(())
        } else {
            Err(sum.to_string())
        }
    })
    .await
    .unwrap();
    assert_eq!(load.end().await, Vec::<String>::new());
}
