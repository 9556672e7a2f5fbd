//! Entries as the fallback and as sidecars send them.

use envoy_types::pb::envoy::config::core::v3::{Metadata, Node};
use envoy_types::pb::envoy::data::accesslog::v3::{
    HttpRequestProperties, TcpAccessLogEntry, TlsProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, TcpAccessLogEntries,
};
use envoy_types::pb::google::protobuf::Value;

use super::*;
use crate::learn::peer::Speakers;
use crate::learn::testing::small;

const A: &str = "a.shop.svc.cluster.local";

fn address(text: &str) -> Address {
    let (address, port) = text.rsplit_once(':').unwrap();
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.parse().unwrap())),
            ..SocketAddress::default()
        })),
    }
}

/// From `peer` to `local`, with metadata.
fn common(peer: &str, local: &str, metadata: &[(&str, &str)]) -> AccessLogCommon {
    let value = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let fields = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), value(v)))
        .collect();
    let metadata = [(METADATA.to_owned(), Struct { fields })].into();
    AccessLogCommon {
        downstream_direct_remote_address: Some(address(peer)),
        downstream_local_address: Some(address(local)),
        metadata: Some(Metadata {
            filter_metadata: metadata,
            ..Metadata::default()
        }),
        ..AccessLogCommon::default()
    }
}

fn cluster_of(name: &str) -> AccessLogCommon {
    AccessLogCommon {
        upstream_cluster: name.to_owned(),
        ..common("10.0.0.1:4000", "10.9.9.9:80", &[])
    }
}

fn http(common: AccessLogCommon, authority: &str) -> StreamAccessLogsMessage {
    let entry = HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(HttpRequestProperties {
            authority: authority.to_owned(),
            ..HttpRequestProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: vec![entry],
        })),
    }
}

fn tcp(common: AccessLogCommon) -> StreamAccessLogsMessage {
    let entry = TcpAccessLogEntry {
        common_properties: Some(common),
        connection_properties: None,
    };
    StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(LogEntries::TcpLogs(TcpAccessLogEntries {
            log_entry: vec![entry],
        })),
    }
}

/// The fallback is trusted, a sidecar is a pod.
fn peer_of(sender: &Sender) -> Peer {
    Peer::Address(match sender {
        Sender::Fallback => TRUSTED.parse().unwrap(),
        Sender::Proxy { address, .. } => address.unwrap(),
    })
}

const TRUSTED: &str = "192.0.2.1";

fn rules() -> Rules {
    Rules {
        fallback_hosts: ["fallback.trimtab.svc.cluster.local".to_owned()].into(),
        speakers: Speakers::trusting(["192.0.2.0/24".parse().unwrap()]),
        ..Rules::default()
    }
}

fn sidecar() -> Sender {
    let id = "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local";
    Sender::proxy(id).unwrap()
}

/// `caller host` and `!` for hosts that are no services, or the reason.
fn read(message: &StreamAccessLogsMessage, sender: &Sender) -> Vec<String> {
    read_from(message, sender, &peer_of(sender))
}

fn read_from(message: &StreamAccessLogsMessage, sender: &Sender, peer: &Peer) -> Vec<String> {
    let learned = learn(message, sender, peer, &small(), &rules());
    assert_eq!(learned.entries, 1);
    let skips = Skip::ALL
        .into_iter()
        .filter(|skip| learned.skipped.get(*skip) > 0);
    let skips = skips.map(|skip| skip.as_str().to_owned());
    let seen = learned.observed_calls.iter().map(|s| {
        assert_eq!(s.evidence, Evidence::AccessLog);
        let mark = if s.known { "" } else { "!" };
        format!("{} {mark}{}", s.caller, s.host.as_str())
    });
    seen.chain(skips).collect()
}

#[test]
fn the_fallback_tells_who_calls() {
    let from = |peer: &str, metadata: &[(&str, &str)]| {
        let common = common(peer, "10.0.0.9:15000", metadata);
        read(&http(common, "a:80"), &Sender::Fallback)
    };
    let pod = [(SOURCE_NAMESPACE, "shop"), (SOURCE_POD, "back-1")];
    let front = format!("shop/front {A}");
    let back = format!("shop/back {A}");
    assert_eq!(from("10.0.0.1:4000", &[]), [&*front]);
    assert_eq!(from("::ffff:10.0.0.1:4000", &[]), [&*front]);
    assert_eq!(from("10.0.0.1:4000", &pod), [&*back]);
    assert_eq!(from("10.0.0.1:4000", &[(SOURCE, "shop/back-1")]), [back]);
    // A pod that is gone, or a name that is made up.
    assert_eq!(from("10.0.0.1:4000", &[(SOURCE, "shop/x")]), [front]);
    assert_eq!(from("10.0.0.7:4000", &[]), ["SourceUnknown"]);
}

#[test]
fn the_fallback_tells_what_is_called() {
    let to = |authority: &str, local: &str, metadata: &[(&str, &str)]| {
        let common = common("10.0.0.1:4000", local, metadata);
        read(&http(common, authority), &Sender::Fallback)
    };
    let a = format!("shop/front {A}");
    for (authority, expected) in [
        ("a", a.as_str()),
        ("A.shop:80", &a),
        ("a.shop.svc.cluster.local.", &a),
        ("10.1.0.1", &a),
        ("[fd00::8]:80", &a),
        ("x.wild.example", "shop/front *.wild.example"),
        ("Api.Example.com:443", "shop/front !api.example.com"),
        ("10.7.7.7", "DestinationUnknown"),
        ("localhost:80", "DestinationUnknown"),
        ("global-sidecar.trimtab:80", "DestinationUnknown"),
        ("a b", "Malformed"),
        ("", "DestinationUnknown"),
    ] {
        assert_eq!(to(authority, "10.0.0.9:80", &[]), [expected], "{authority}");
    }
    // What has no name of a service is looked up by where it went.
    assert_eq!(to("10.7.7.7", "10.1.0.1:80", &[]), [&*a]);
    let original = [(DESTINATION, "10.1.0.1:80")];
    assert_eq!(to("a b", "10.0.0.9:80", &original), [a]);
    // The address of the fallback itself is no destination.
    assert_eq!(to("", "10.1.0.9:80", &[]), ["DestinationUnknown"]);
}

#[test]
fn connections_are_known_by_address_or_server_name() {
    let to = |local: &str, metadata: &[(&str, &str)], sni: &str| {
        let mut common = common("10.0.0.1:4000", local, metadata);
        common.tls_properties = Some(TlsProperties {
            tls_sni_hostname: sni.to_owned(),
            ..TlsProperties::default()
        });
        read(&tcp(common), &Sender::Fallback)
    };
    let both = [
        "shop/front cache.data.svc.cluster.local",
        "shop/front redis.data.svc.cluster.local",
    ];
    assert_eq!(to("10.1.0.2:6379", &[], ""), both);
    let original = [(DESTINATION, "10.1.0.2:6379")];
    assert_eq!(to("10.0.0.9:15001", &original, ""), both);
    assert_eq!(
        to("10.0.0.9:443", &[], "API.example.com"),
        ["shop/front !api.example.com"]
    );
    assert_eq!(
        to("10.0.0.9:443", &[], &format!("outbound_.80_._.{A}")),
        [format!("shop/front {A}")]
    );
    assert_eq!(to("10.0.0.9:443", &[], ""), ["DestinationUnknown"]);
}

#[test]
fn tags_name_the_host_of_a_connection() {
    let to = |local: &str, tags: &[(&str, &str)]| {
        let mut common = common("10.0.0.1:4000", local, &[]);
        let tags = tags.iter();
        common.custom_tags = tags
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        read(&tcp(common), &Sender::Fallback)
    };
    let (a, api) = (format!("shop/front {A}"), "shop/front !api.example.com");
    let wild = "shop/front *.wild.example";
    for (tags, expected) in [
        (&[("sni", "API.example.com")][..], api),
        (&[("sni", "x.wild.example")], wild),
        (&[("sni", &format!("outbound_.80_._.{A}"))], &a),
        (&[("trimtab.host", "api.example.com")], api),
        (&[("trimtab.host", A), ("sni", "api.example.com")], &a),
        (&[("trimtab.host", "-"), ("sni", "api.example.com")], api),
        (&[("trimtab.host", "a b"), ("sni", "api.example.com")], api),
        (&[("trimtab.port", "443")], "DestinationUnknown"),
        (&[("sni", "-")], "DestinationUnknown"),
        (&[("sni", "")], "DestinationUnknown"),
        (&[("sni", "global-sidecar.trimtab")], "DestinationUnknown"),
    ] {
        assert_eq!(to("10.0.0.9:443", tags), [expected], "{tags:?}");
    }
    // The address says which service, a server name what the client thinks; a host of its own goes before both.
    assert_eq!(to("10.1.0.1:80", &[("sni", "api.example.com")]), [&*a]);
    assert_eq!(
        to("10.1.0.1:80", &[("trimtab.host", "api.example.com")]),
        [api]
    );
}

#[test]
fn a_fallback_with_clusters_of_services_tells_connections_apart() {
    let mut common = common("10.0.0.1:4000", "10.0.0.9:6379", &[]);
    common.upstream_cluster = "outbound|6379||redis.data.svc.cluster.local".to_owned();
    assert_eq!(
        read(&tcp(common), &Sender::Fallback),
        ["shop/front redis.data.svc.cluster.local"]
    );
}

#[test]
fn a_sidecar_tells_the_service_of_what_it_sends() {
    let to =
        |cluster: &str, authority: &str| read(&http(cluster_of(cluster), authority), &sidecar());
    let a = format!("shop/front {A}");
    assert_eq!(to(&format!("outbound|80|v1|{A}"), "x.example"), [&*a]);
    assert_eq!(
        to("outbound|443||*.wild.example", "x.wild.example"),
        ["shop/front *.wild.example"]
    );
    // Through the fallback, or past the mesh: the name tells.
    for cluster in [
        "outbound|80||global-sidecar.trimtab.svc.cluster.local",
        "outbound|80||fallback.trimtab.svc.cluster.local",
        "PassthroughCluster",
        "BlackHoleCluster",
        "",
    ] {
        assert_eq!(to(cluster, "a:80"), [&*a], "{cluster}");
    }
    // Istio's own way to the application is not a peer.
    let looped = http(common("127.0.0.6:4000", "10.9.9.9:80", &[]), "a");
    assert_eq!(read(&looped, &sidecar()), [&*a]);
    assert_eq!(to("outbound|80||a b", "a"), ["Malformed"]);
    let tcp = tcp(AccessLogCommon {
        upstream_cluster: format!("outbound|6379||{A}"),
        ..AccessLogCommon::default()
    });
    assert_eq!(read(&tcp, &sidecar()), [a]);
}

#[test]
fn fault_t7_what_a_sidecar_receives_counts_only_where_it_is_trusted() {
    let back = format!("shop/back {A}");
    let trusted = Peer::Address(TRUSTED.parse().unwrap());
    for cluster in [
        "inbound|80||",
        "inbound|80|http|a.shop",
        "InboundPassthroughCluster",
        "",
    ] {
        let common = AccessLogCommon {
            upstream_cluster: cluster.to_owned(),
            ..common("10.0.0.2:4000", "10.0.0.1:80", &[])
        };
        let message = http(common, "a.shop");
        assert_eq!(read_from(&message, &sidecar(), &trusted), [&*back]);
        assert_eq!(read(&message, &sidecar()), ["Unverified"], "{cluster}");
    }
}

#[test]
fn fault_t7_nobody_speaks_for_a_pod_but_the_pod() {
    let stranger = Peer::Address("127.0.0.1".parse().unwrap());
    let sent = |cluster: &str| AccessLogCommon {
        upstream_cluster: cluster.to_owned(),
        ..AccessLogCommon::default()
    };
    for cluster in [
        &format!("outbound|80||{A}"),
        &format!("outbound|80|v1|{A}"),
        &format!("outbound_.80_._.{A}"),
        "PassthroughCluster",
        "",
        "inbound|80||",
    ] {
        for message in [http(sent(cluster), "a.shop"), tcp(sent(cluster))] {
            let read = read_from(&message, &sidecar(), &stranger);
            assert_eq!(read, ["Unverified"], "{cluster}");
        }
    }
    // Who says nothing of itself, and names the caller in each entry.
    let pod = [(SOURCE, "shop/front-1")];
    for metadata in [&[][..], &pod] {
        let entry = common("10.0.0.1:4000", "10.1.0.1:80", metadata);
        for message in [http(entry.clone(), "a.shop"), tcp(entry)] {
            let read = read_from(&message, &Sender::Fallback, &stranger);
            assert_eq!(read, ["Unverified"]);
        }
    }
}

#[test]
fn fault_t7_a_cluster_of_no_service_is_unknown() {
    let read = |cluster: &str| read(&http(cluster_of(cluster), "x"), &sidecar());
    assert_eq!(read("outbound|80||gone.test"), ["shop/front !gone.test"]);
    assert_eq!(read("outbound|80|v1|gone.test"), ["shop/front !gone.test"]);
}

#[test]
fn senders_are_known_by_their_node() {
    let sender = |id: &str| {
        let node = Node {
            id: id.to_owned(),
            ..Node::default()
        };
        Sender::new(Some(&Identifier {
            node: Some(node),
            log_name: String::new(),
        }))
    };
    assert_eq!(
        sender("sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local"),
        sidecar()
    );
    for id in ["", "fallback-7", "sidecar~10.0.0.1", "sidecar~x~pod~y"] {
        assert_eq!(sender(id), Sender::Fallback, "{id}");
    }
    let dotted = sender("sidecar~fd00::1~gone.shop~x");
    assert_eq!(dotted.caller(&small()), Some(Caller::new("shop", "dotted")));
    let dotted = sender("router~~v6.dotted-1.shop~x");
    assert_eq!(dotted.caller(&small()), Some(Caller::new("shop", "dotted")));
}

#[test]
fn an_empty_entry_is_malformed() {
    let entry = HttpAccessLogEntry::default();
    let message = StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: vec![entry],
        })),
    };
    assert_eq!(read(&message, &Sender::Fallback), ["Malformed"]);
    let learned = StreamAccessLogsMessage::default();
    let peer = peer_of(&Sender::Fallback);
    let learned = learn(
        &learned,
        &Sender::Fallback,
        &peer,
        &small(),
        &Rules::default(),
    );
    assert_eq!(learned.entries, 0);
}
