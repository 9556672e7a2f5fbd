//! Protocols of MetaRouters through the fallback proxy.

use std::net::SocketAddr;

use serde_json::json;
use trimtab_lab::ports::free_port;

use super::{Lab, host, mesh};
use crate::http::pod;
use crate::lab::until;
use crate::logs::Receiver;
use crate::thrift::{Peer, orders, server, to};

/// The filter of the protocol is in the listener, which is why that changes; open connections stay as they are.
#[tokio::test]
async fn a_managed_port_goes_through_the_fallback_until_it_is_seen() {
    let a = pod("a").await;
    let ((_one, v1), (_two, v2)) = (server("v1").await, server("v2").await);
    let port = free_port().expect("a port");
    let mut mesh = mesh(9, vec![("a", a.address())], 1).await;
    let receiver = Receiver::start().await;
    mesh.log = Some(receiver.address());
    mesh.more = orders(port, v1, v2, &json!([{"route": to("v2")}])).objects;
    let at = SocketAddr::new(mesh.pod, port);
    let args = [at.ip().to_string(), port.to_string()];
    let mut lab = Lab::start("managed", mesh, &["a"]).await;
    let mut old = Peer::start("thrift_client.py", &args);
    assert_eq!(old.calls("say", 5).await, json!({"v2": 5}));
    lab.see(&["a", "orders"]).await;
    let mut new = Peer::start("thrift_client.py", &args);
    assert_eq!(new.calls("say", 5).await, json!({"v2": 5}));
    assert_eq!(old.calls("say", 5).await, json!({"v2": 5}));
    let stat = async |envoy: &trimtab_lab::envoy::Envoy, name: &str| {
        envoy.stat(name).await.expect("a number")
    };
    let fallback_path = format!("cluster.trimtab-fallback|{port}.upstream_cx_total");
    assert_eq!(stat(&lab.pod, &fallback_path).await, 1);
    let in_place = "listener_manager.listener_in_place_updated";
    assert_eq!(stat(&lab.pod, in_place).await, 1);
    lab.see(&[]).await;
    assert_eq!(new.calls("say", 5).await, json!({"v2": 5}));
    assert_eq!(old.calls("say", 5).await, json!({"v2": 5}));
    drop(old);
    until("the end of the connection is told", || {
        let what = format!("{}:{port}", host("orders"));
        let from = lab.mesh.pod.to_string();
        receiver
            .seen()
            .iter()
            .any(|s| s.what == what && s.from == from)
    })
    .await;
}
