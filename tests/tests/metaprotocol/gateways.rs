//! Gateways take hosts of the namespaces that they name only.

use crate::made::{made, object, router, service};

#[tokio::test]
async fn fault_t3_the_hosts_of_a_gateway_bind() {
    let sink = service(
        "sink",
        "kiosk",
        "10.40.0.66",
        "tcp-metaprotocol-thrift",
        9191,
    );
    let router = router(
        "sink.kiosk.svc.cluster.local",
        "kiosk",
        1,
        "gateways: [doors/front], ",
    );
    for (hosts, taken) in [
        ("['stacks/*.stacks.example']", false),
        ("['stacks/*']", false),
        ("['./*']", false),
        ("['~/*']", false),
        ("['kiosk/other.example']", false),
        ("['*.example']", false),
        ("['kiosk/*']", true),
        ("['*']", true),
        ("['*/*']", true),
        ("['stacks/*', 'kiosk/*.kiosk.svc.cluster.local']", true),
        ("['sink.kiosk.svc.cluster.local']", true),
    ] {
        let front = format!(
            "spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}}, hosts: {hosts}}}]}}"
        );
        let front = object("Gateway", "front", "doors", 0, &front);
        let out = made(&format!("{sink}{front}{router}")).await;
        assert_eq!(
            out.has(" doors/trimtab-gateway-outbound-front.doors-9191"),
            taken,
            "{hosts}"
        );
        assert_eq!(
            out.has("VirtualService doors/aeraki-vs-doors.front-9191"),
            taken,
            "{hosts}"
        );
        if taken {
            out.quiet();
        } else {
            out.told(&[
                "MetaRouter kiosk/grab",
                "server 9191 of Gateway doors/front takes",
            ]);
        }
    }
}

#[tokio::test]
async fn fault_t3_a_server_that_is_not_for_the_older_router_leads_to_the_other() {
    let mesh = service(
        "sink",
        "kiosk",
        "10.40.0.66",
        "tcp-metaprotocol-thrift",
        9191,
    ) + &service(
        "loans",
        "stacks",
        "10.40.0.21",
        "tcp-metaprotocol-thrift",
        9191,
    );
    let front = "spec: {selector: {istio: g}, servers: [{port: {number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}, hosts: ['stacks/*']}]}";
    let front = object("Gateway", "front", "doors", 0, front);
    let older = router(
        "sink.kiosk.svc.cluster.local",
        "kiosk",
        1,
        "gateways: [doors/front], ",
    );
    let younger = router(
        "loans.stacks.svc.cluster.local",
        "stacks",
        2,
        "gateways: [doors/front], ",
    );
    let out = made(&format!("{mesh}{front}{older}{younger}")).await;
    assert!(
        out.has("VirtualService doors/aeraki-vs-doors.front-9191"),
        "{:?}",
        out.refused
    );
    assert_eq!(out.refused.len(), 1, "{:?}", out.refused);
}
