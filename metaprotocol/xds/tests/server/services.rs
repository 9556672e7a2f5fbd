//! Every service, and the order on the aggregated one.

use trimtab_xds::{CDS, ECDS, EDS, LDS, RDS, TRDS, Update, xdstp_name};

use crate::client::{
    ADS, ADS_DELTA, Delta, Sotw, ack, ack_delta, ask, ask_delta, changes, listed, naming, node,
    resource, strings,
};
use crate::common::Server;

const OWN_SERVICES: [(&str, &str, &str); 5] = [
    (
        CDS,
        "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
        "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
    ),
    (
        EDS,
        "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
        "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
    ),
    (
        LDS,
        "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
        "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
    ),
    (
        RDS,
        "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
    ),
    (
        ECDS,
        "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs",
        "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs",
    ),
];

#[tokio::test]
async fn each_type_has_its_service_in_both_protocols() {
    let server = Server::start().await;
    for (url, sotw, delta) in OWN_SERVICES {
        server.cache.update(url, vec![resource("a", "1")], &[]);
        let mut client = Sotw::connect(&server, sotw).await;
        client.send(ask(node("n", ""), "", &["a"]));
        let first = client.next().await;
        assert_eq!(
            (first.type_url.as_str(), listed(&first)),
            (url, strings(&["a@1"]))
        );
        client.send(ack(&first, &["a"]));
        let mut other = Delta::connect(&server, delta).await;
        other.send(ask_delta(node("n", ""), url, &["a"]));
        let first = other.next().await;
        assert_eq!(changes(&first).0, ["a@1"]);
        other.send(ack_delta(&first));
        server.cache.update(url, vec![resource("a", "2")], &[]);
        assert_eq!(listed(&client.next().await), ["a@2"], "{url}");
        assert_eq!(changes(&other.next().await).0, ["a@2"], "{url}");
    }
    server.stop().await;
}

#[tokio::test]
async fn clusters_come_first_and_routes_last_however_the_types_were_asked_for() {
    let server = Server::start().await;
    let order = [CDS, EDS, LDS, RDS];
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    for url in order.iter().rev() {
        server.cache.serve_type(url);
        client.send(ask_delta(node("n", ""), url, &["a"]));
    }
    for _ in order {
        let nothing = client.next().await;
        assert_eq!(changes(&nothing), (vec![], strings(&["a"])));
        client.send(ack_delta(&nothing));
    }
    let updates = order.iter().rev().map(|url| Update {
        type_url: (*url).to_owned(),
        set: vec![naming("a", "1", "a").into()],
        remove: strings(&["a", "never-was"]),
    });
    assert_eq!(server.cache.update_all(updates.collect()), 4);
    let mut of_clusters = Vec::new();
    for url in order {
        if url == LDS {
            // What refers to clusters waits until the client can use them.
            for response in std::mem::take(&mut of_clusters) {
                client.silent().await;
                client.send(ack_delta(&response));
            }
        }
        let response = client.next().await;
        assert_eq!(response.type_url, url);
        assert_eq!(changes(&response), (strings(&["a@1"]), vec![]));
        of_clusters.push(response);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_of_clusters_lists_all_and_leaving_one_out_removes_it() {
    let server = Server::start().await;
    server.cache.serve_type(CDS);
    let mut client = Sotw::connect(&server, ADS).await;
    client.send(ask(node("n", ""), CDS, &[]));
    let empty = client.next().await;
    assert!(
        empty.resources.is_empty(),
        "a proxy waits for a first answer"
    );
    client.send(ack(&empty, &[]));
    let set = vec![resource("b", "1"), resource("a", "1")];
    server.cache.update(CDS, set, &[]);
    let both = client.next().await;
    assert_eq!(listed(&both), ["a@1", "b@1"]);
    client.send(ack(&both, &[]));
    server.cache.update(CDS, vec![resource("b", "2")], &[]);
    let changed = client.next().await;
    assert_eq!(
        listed(&changed),
        ["a@1", "b@2"],
        "what did not change is repeated"
    );
    client.send(ack(&changed, &[]));
    server.cache.update(CDS, vec![], &strings(&["a"]));
    assert_eq!(listed(&client.next().await), ["b@2"]);
    server.stop().await;
}

#[tokio::test]
async fn a_name_of_an_authority_is_answered_by_exactly_that_name() {
    let server = Server::start().await;
    let plain = xdstp_name("trimtab", TRDS, "default/hello");
    let special = format!("{plain}?zone=a");
    server.cache.update(TRDS, vec![resource(&plain, "1")], &[]);
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    client.send(ask_delta(node("n", ""), TRDS, &[&plain, &special]));
    let first = client.next().await;
    let expected = (vec![format!("{plain}@1")], vec![special.clone()]);
    assert_eq!(
        changes(&first),
        expected,
        "a context parameter makes another name"
    );
    client.send(ack_delta(&first));
    server
        .cache
        .update(TRDS, vec![resource(&special, "2")], &[]);
    assert_eq!(changes(&client.next().await).0, [format!("{special}@2")]);
    server.stop().await;
}
