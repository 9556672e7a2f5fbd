//! Calls of an application to services that its pod sees, and that it does not see.

use tokio::net::TcpStream;
use trimtab::lab::http::{KeepAlive, Request};

use super::{Lab, mesh, say};
use crate::http::pod;

#[tokio::test]
async fn what_a_pod_does_not_see_goes_through_the_fallback_until_it_sees_it() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut lab = Lab::start("grow", mesh(1, servers, 1).await, &["a"]).await;
    let mut held = KeepAlive::connect(lab.http()).await.expect("the proxy");
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.detours().await, 0, "what it sees it calls itself");
    assert_eq!(lab.call(&mut held, "b").await, "b");
    assert_eq!(lab.detours().await, 1);
    let mut bytes = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut bytes, "one").await;
    assert_eq!(lab.tcp_detours().await, 1);
    let other = Request::get("/").header("host", "nobody.shop");
    let answer = held.send(&other).await.expect("an answer");
    assert_eq!(
        answer.status, 404,
        "the fallback proxy does not know it either"
    );

    lab.see(&["a", "b", "bytes"]).await;
    let before = lab.detours().await;
    assert_eq!(lab.call(&mut held, "b").await, "b");
    assert_eq!(lab.detours().await, before, "now it sees it");
    say(&mut bytes, "two").await;
    let mut direct = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut direct, "three").await;
    assert_eq!(lab.tcp_detours().await, 1);

    lab.see(&[]).await;
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.detours().await, before + 1);
    say(&mut bytes, "four").await;
    say(&mut direct, "five").await;
    let mut back = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut back, "six").await;
    assert_eq!(lab.tcp_detours().await, 2);
    assert!(held.survived().await);
    assert_eq!(lab.changed_listeners().await, 0);
}
