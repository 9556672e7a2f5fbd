//! Calls of an application to services that its pod sees, and that it does not see.

use tokio::net::TcpStream;
use trimtab_dataplane::HttpLimit;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_xds::ECDS;

use super::{Lab, host, mesh, say};
use crate::http::{bucket, pod};
use crate::lab::until;

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

#[tokio::test]
async fn a_limit_is_held_once_on_the_way_of_a_call() {
    let (a, b) = (pod("a").await, pod("b").await);
    let mut mesh = mesh(11, vec![("a", a.address()), ("b", b.address())], 1).await;
    let name = "trimtab.shop.b._base";
    mesh.limits = vec![HttpLimit {
        host: host("b"),
        filter: name.into(),
        ..HttpLimit::default()
    }];
    let mut lab = Lab::start("limit", mesh, &["a"]).await;
    lab.cache.update(ECDS, vec![bucket(name, 1000)], &[]);
    for node in ["proxy-0", "proxy-1"] {
        until("it has the limit", || {
            let info = lab.cache.node(node).expect("it is connected");
            let mut all = info.subscriptions.iter().flat_map(|s| &s.resources);
            all.any(|r| r.name == name && r.acked.is_some())
        })
        .await;
    }
    let mut held = KeepAlive::connect(lab.http()).await.expect("the proxy");
    let counted = async |lab: &Lab| {
        let name = "limit.http_local_rate_limit.enabled";
        let own = lab.pod.stat(name).await.expect("a number");
        let other = lab.fallbacks[0].stat(name).await.expect("a number");
        (own, other)
    };
    lab.call(&mut held, "b").await;
    assert_eq!(counted(&lab).await, (0, 1));
    lab.see(&["a", "b"]).await;
    lab.call(&mut held, "b").await;
    assert_eq!(counted(&lab).await, (1, 1));
    assert_eq!(lab.changed_listeners().await, 0);
}
