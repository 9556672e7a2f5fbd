//! Nothing is lost while scopes change, and when a fallback proxy is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use trimtab_lab::http::{KeepAlive, Request, send};

use super::{Lab, host, mesh, say};
use crate::http::pod;
use crate::lab::{BOUND, until};

/// Calls until told to stop: how many were good, and the others.
async fn calls(at: SocketAddr, name: &'static str, stop: Arc<AtomicBool>) -> (u32, Vec<String>) {
    let request = Request::get("/").header("host", &host(name));
    let mut connection = KeepAlive::connect(at).await.expect("the proxy");
    let (mut good, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) && bad.len() < 5 {
        match connection.send(&request).await {
            Ok(answer) if answer.status == 200 && answer.body.trim() == name => good += 1,
            other => bad.push(format!("{other:?}")),
        }
    }
    (good, bad)
}

/// Connections until told to stop, of which none may be lost.
async fn connections(at: SocketAddr, stop: Arc<AtomicBool>) -> u32 {
    let mut good = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(at).await.expect("the proxy");
        say(&mut stream, "hello").await;
        good += 1;
    }
    good
}

#[tokio::test]
async fn no_call_is_lost_while_the_scope_grows_and_shrinks() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("lossless", mesh(2, servers, 1).await, &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (http, tcp) = (lab.http(), lab.tcp());
    let callers: Vec<_> = (0..4)
        .map(|i| {
            let name = if i % 2 == 0 { "a" } else { "b" };
            tokio::spawn(calls(http, name, Arc::clone(&stop)))
        })
        .collect();
    let connecting = tokio::spawn(connections(tcp, Arc::clone(&stop)));
    for round in 0..12_u64 {
        let seen: &[&str] = match round % 4 {
            0 => &["a"],
            1 => &["a", "b", "bytes"],
            2 => &["b", "bytes"],
            _ => &[],
        };
        lab.see(seen).await;
        let (before, wanted) = (a.requests(), 100);
        until("calls go on", || a.requests() > before + wanted).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sum = 0;
    for caller in callers {
        let (good, bad) = caller.await.expect("no panic");
        assert!(bad.is_empty(), "{bad:?}");
        sum += good;
    }
    assert!(sum > 2000, "{sum} calls");
    assert!(connecting.await.expect("no lost connection") > 20);
    assert!(lab.detours().await > 100);
    assert_eq!(lab.changed_listeners().await, 0);
}

#[tokio::test]
async fn the_loss_of_one_of_two_fallback_proxies_loses_no_new_call() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("two", mesh(3, servers, 2).await, &[]).await;
    for round in 0..2 {
        lab.fallbacks[round].kill();
        for _ in 0..50 {
            let request = Request::get("/").header("host", &host("a"));
            let answer = send(lab.http(), &request).await.expect("an answer");
            assert_eq!(answer.status, 200, "{round}: {}", answer.body);
            let mut stream = TcpStream::connect(lab.tcp()).await.expect("the proxy");
            say(&mut stream, "hello").await;
        }
        lab.fallbacks[round].restart().await.expect("it starts");
        lab.settled().await;
        let started = Instant::now();
        while lab.put_aside().await > 0 {
            assert!(started.elapsed() < BOUND, "it is not used again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
