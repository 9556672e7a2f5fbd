//! Objects of one namespace do not decide on hosts of another.

use crate::made::{entry, made, made_with, object, router, service};

const REDIS: &str = "sessions.stacks.svc.cluster.local";

fn grab(kind: &str, namespace: &str) -> String {
    let spec = match kind {
        "RedisDestination" => format!(
            "spec: {{host: {REDIS}, trafficPolicy: {{connectionPool: {{redis: {{mode: CLUSTER, auth: {{plain: {{password: stolen}}}}, \
             discoveryEndpoints: ['sink.kiosk.svc.cluster.local:6380']}}}}}}}}"
        ),
        _ => format!(
            "spec: {{host: [{REDIS}], redis: [{{route: {{host: sink.kiosk.svc.cluster.local, port: 6380}}}}]}}"
        ),
    };
    object(kind, "grab", namespace, 1, &spec)
}

#[tokio::test]
async fn fault_t2_redis_objects_of_others_do_not_count() {
    let sessions = service("sessions", "stacks", "10.40.0.30", "tcp-redis", 6380)
        + &service("sink", "kiosk", "10.40.0.66", "tcp-redis", 6380);
    let own = format!(
        "spec: {{host: {REDIS}, trafficPolicy: {{connectionPool: {{redis: {{mode: PROXY}}}}}}}}"
    );
    let own = object("RedisDestination", "sessions", "stacks", 2, &own);
    for kind in ["RedisDestination", "RedisService"] {
        let foreign = grab(kind, "kiosk");
        let out = made(&format!("{sessions}{foreign}")).await;
        assert_eq!(out.objects, [] as [String; 0], "{kind}");
        out.told(&[
            &format!("{kind} kiosk/grab"),
            "spec.host",
            "belongs to namespace stacks",
            "trustedNamespaces",
        ]);
        let (alone, both) = (
            made(&format!("{sessions}{own}")).await,
            made(&format!("{sessions}{own}{foreign}")).await,
        );
        assert_eq!(
            alone.text, both.text,
            "{kind}: the owner's is as if the other were not there"
        );
        assert!(alone.text.contains(&format!("outbound|6380||{REDIS}")));
        alone.quiet();
        // The root namespace decides, and who the operator names.
        let root = made(&format!("{sessions}{}", grab(kind, "istio-system"))).await;
        assert!(
            root.text.contains("sink.kiosk"),
            "{kind}: {:#?}",
            root.refused
        );
        root.quiet();
        let trusted = made_with(
            "trustedNamespaces: [kiosk]",
            &format!("{sessions}{foreign}"),
        )
        .await;
        assert!(trusted.text.contains("sink.kiosk"), "{kind}");
        trusted.quiet();
    }
}

#[tokio::test]
async fn fault_t2_destination_rules_of_others_do_not_count() {
    let loans = service(
        "loans",
        "stacks",
        "10.40.0.21",
        "tcp-metaprotocol-dubbo",
        9191,
    );
    let host = "loans.stacks.svc.cluster.local";
    let router = format!(
        "spec: {{hosts: [{host}], routes: [{{route: [{{destination: {{host: {host}, subset: v1}}}}]}}]}}"
    );
    let router = object("MetaRouter", "loans", "stacks", 5, &router);
    let rule = |namespace: &str, day| {
        let spec =
            format!("spec: {{host: {host}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}");
        object("DestinationRule", "loans", namespace, day, &spec)
    };
    let out = made(&format!("{loans}{router}{}", rule("kiosk", 1))).await;
    out.told(&["MetaRouter stacks/loans", "subset"]);
    for namespace in ["stacks", "istio-system"] {
        let out = made(&format!("{loans}{router}{}", rule(namespace, 1))).await;
        out.quiet();
        assert!(out.text.contains(&format!("outbound|9191|v1|{host}")));
    }
}

#[tokio::test]
async fn fault_t4_routers_of_others_do_not_count() {
    let host = "loans.stacks.svc.cluster.local";
    let mesh = service(
        "loans",
        "stacks",
        "10.40.0.21",
        "tcp-metaprotocol-thrift",
        9191,
    ) + &service(
        "sink",
        "kiosk",
        "10.40.0.66",
        "tcp-metaprotocol-thrift",
        9191,
    ) + &entry("bank", "stacks", 1, "[10.30.0.1]", "");
    let before = made(&mesh).await;
    before.quiet();
    let limit =
        "localRateLimit: {tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}}, ";
    for (named, more) in [
        (host, ""),
        (host, limit),
        (host, "exportTo: [stacks], "),
        ("bank.stacks.example", ""),
    ] {
        let out = made(&format!("{mesh}{}", router(named, "kiosk", 1, more))).await;
        assert_eq!(out.text, before.text, "{named} {more}");
        out.told(&[
            "MetaRouter kiosk/grab",
            "spec.hosts[0]",
            named,
            "belongs to namespace stacks",
        ]);
    }
    for short in ["loans", "loans.stacks"] {
        let out = made(&format!("{mesh}{}", router(short, "kiosk", 1, ""))).await;
        assert_eq!(out.text, before.text, "{short}");
        out.told(&["MetaRouter kiosk/grab", short]);
    }
    let out = made(&format!("{mesh}{}", router(host, "istio-system", 1, ""))).await;
    out.quiet();
    assert_ne!(out.text, before.text, "the root namespace decides");
    // An older entry with the host of another's Service gives no right to it.
    let fake = "spec: {hosts: [loans.stacks.svc.cluster.local], addresses: [10.40.0.99], resolution: STATIC, \
        ports: [{number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}], endpoints: [{address: 10.66.0.9}]}";
    let fake = object("ServiceEntry", "fake", "kiosk", 1, fake);
    let out = made(&format!("{mesh}{fake}{}", router(host, "kiosk", 1, ""))).await;
    assert_eq!(out.text, before.text);
    out.told(&["ServiceEntry kiosk/fake", "Service stacks/loans"]);
    out.told(&["MetaRouter kiosk/grab", "belongs to namespace stacks"]);
}
