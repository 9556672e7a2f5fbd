//! Whose an address is, and into which namespaces objects are written.

use crate::made::{Made, entry, made, made_with, object, router, service};

#[tokio::test]
async fn fault_t1_no_address_of_a_service_is_taken_over() {
    let ledger = "spec: {clusterIP: 10.40.0.20, clusterIPs: [10.40.0.20, 'fd00::20'], externalIPs: [198.51.100.7], \
        selector: {app: ledger}, ports: [{name: tcp-ledger, port: 7001}]}\n\
        status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}";
    let ledger = object("Service", "ledger", "stacks", 9, ledger);
    for address in [
        "10.40.0.20",
        "10.40.0.20/32",
        "fd00::20",
        "198.51.100.7",
        "203.0.113.9",
    ] {
        for exports in ["", "exportTo: ['.'], ", "exportTo: ['*'], "] {
            for day in [0, 1] {
                let bait = entry(
                    "bait",
                    "kiosk",
                    day,
                    &format!("['{address}', 10.99.0.1]"),
                    exports,
                );
                let out = made(&format!("{ledger}{bait}")).await;
                let bare = address.trim_end_matches("/32").replace(':', "-");
                assert!(!out.has(&bare), "{address} {exports}: {:?}", out.objects);
                assert!(
                    out.has("-10.99.0.1-7001"),
                    "its own address: {:?}",
                    out.objects
                );
                out.told(&[
                    "ServiceEntry kiosk/bait",
                    "spec.addresses[0]",
                    "Service stacks/ledger",
                ]);
            }
        }
    }
}

#[tokio::test]
async fn fault_t1_no_address_of_an_older_entry_is_taken_over() {
    for (old, address) in [
        ("[10.30.0.1]", "10.30.0.1"),
        ("[10.30.0.0/16]", "10.30.7.7"),
        ("['fd00::/64']", "fd00::9"),
    ] {
        let plain = format!(
            "spec: {{hosts: [db.stacks.example], addresses: {old}, ports: [{{number: 7001, name: tcp, protocol: TCP}}]}}"
        );
        let plain = object("ServiceEntry", "db", "stacks", 1, &plain);
        let bait = entry("bait", "kiosk", 2, &format!("['{address}']"), "");
        let out = made(&format!("{plain}{bait}")).await;
        assert!(
            !out.text.contains(&format!("\"{address}_7001\"")),
            "{:?}",
            out.objects
        );
        out.told(&["ServiceEntry kiosk/bait", address, "ServiceEntry stacks/db"]);
    }
    // The older one keeps what it has, as if the younger were not there.
    let mine = entry("mine", "stacks", 1, "[10.30.0.1]", "");
    let bait = entry("bait", "kiosk", 2, "[10.30.0.1]", "");
    let (alone, both) = (made(&mine).await, made(&format!("{mine}{bait}")).await);
    assert!(alone.has("mine.stacks.example-10.30.0.1-7001"));
    assert!(
        both.has("mine.stacks.example-10.30.0.1-7001") && !both.has("bait.kiosk.example-10.30.0.1")
    );
}

#[tokio::test]
async fn fault_t1_endpoints_written_by_hand_take_nothing_over() {
    let ledger = service("ledger", "stacks", "10.40.0.20", "tcp-ledger", 7001);
    let bait = service("bait", "kiosk", "None", "tcp-metaprotocol-thrift", 7001)
        .replace("selector: {app: bait}, ", "");
    let slice = "addressType: IPv4\nports: [{name: tcp-metaprotocol-thrift, port: 7001}]\nendpoints: [{addresses: [10.40.0.20]}, {addresses: [10.66.0.9]}]";
    let slice = object("EndpointSlice", "bait-1", "kiosk", 0, slice).replace(
        "namespace: kiosk}",
        "namespace: kiosk, labels: {kubernetes.io/service-name: bait}}",
    );
    let out = made(&format!("{ledger}{bait}{slice}")).await;
    assert!(!out.text.contains("10.40.0.20_7001"), "{:?}", out.objects);
    assert!(out.text.contains("10.66.0.9_7001"), "{:?}", out.objects);
    out.told(&["Service kiosk/bait", "10.40.0.20", "Service stacks/ledger"]);
}

#[tokio::test]
async fn fault_t1_an_address_that_istio_gave_is_taken() {
    let spec = "spec: {hosts: [db.stacks.example], resolution: DNS, ports: [{number: 7001, name: tcp, protocol: TCP}]}\n\
        status: {addresses: [{host: db.stacks.example, value: 240.240.0.5}]}";
    let given = object("ServiceEntry", "db", "stacks", 1, spec);
    let bait = entry("bait", "kiosk", 2, "[240.240.0.5]", "");
    let out = made(&format!("{given}{bait}")).await;
    assert!(!out.has("240.240.0.5"), "{:?}", out.objects);
    out.told(&["ServiceEntry kiosk/bait", "ServiceEntry stacks/db"]);
}

#[tokio::test]
async fn fault_t1_the_export_of_a_host_binds() {
    for (exports, namespaces) in [
        ("exportTo: ['.'], ", &["kiosk"][..]),
        ("exportTo: ['.', stacks], ", &["kiosk", "stacks"]),
        ("exportTo: [kube-system], ", &[]),
        ("exportTo: [istio-system], ", &[]),
        ("exportTo: ['~'], ", &[]),
        ("exportTo: ['*'], ", &["istio-system"]),
    ] {
        let out = made(&entry("own", "kiosk", 0, "[10.30.0.1]", exports)).await;
        let wanted: Vec<String> = namespaces
            .iter()
            .map(|n| format!("EnvoyFilter {n}/trimtab-outbound-own.kiosk.example-10.30.0.1-7001"))
            .collect();
        assert_eq!(out.objects, wanted, "{exports}");
    }
    // A router widens nothing.
    let own = entry("own", "kiosk", 0, "[10.30.0.1]", "exportTo: ['.'], ");
    let router = "spec: {hosts: [own.kiosk.example], exportTo: ['*'], routes: [{route: [{destination: {host: own.kiosk.example}}]}]}";
    let out = made(&format!(
        "{own}{}",
        object("MetaRouter", "own", "kiosk", 0, router)
    ))
    .await;
    assert!(
        out.objects.iter().all(|o| o.contains(" kiosk/")),
        "{:?}",
        out.objects
    );
}

#[tokio::test]
async fn fault_t16_a_namespace_may_keep_objects_of_others_out() {
    let mesh = service(
        "sink",
        "kiosk",
        "10.40.0.66",
        "tcp-metaprotocol-thrift",
        9191,
    ) + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: quiet, labels: {trimtab.io/accept-objects: \"false\"}}\n";
    let host = "sink.kiosk.svc.cluster.local";
    let exported = |to: &str| {
        format!(
            "{mesh}{}",
            router(host, "kiosk", 1, &format!("exportTo: {to}, "))
        )
    };
    let outbound = |out: &Made| -> Vec<String> {
        let all = out.objects.iter().filter(|o| o.contains("-outbound-"));
        all.map(|o| o[12..].split('/').next().unwrap().to_owned())
            .collect()
    };
    for (to, namespaces, closed) in [
        (
            "[stacks, kube-system]",
            &["stacks"][..],
            &["kube-system"][..],
        ),
        ("[quiet, stacks, '.']", &["kiosk", "stacks"], &["quiet"]),
        ("[istio-system]", &[], &["istio-system"]),
        ("[kube-public, quiet]", &[], &["kube-public", "quiet"]),
        ("['*']", &["istio-system"], &[]),
    ] {
        let out = made(&exported(to)).await;
        assert_eq!(outbound(&out), namespaces, "{to}");
        assert_eq!(out.refused.len(), closed.len(), "{to}: {:?}", out.refused);
        for name in closed {
            out.told(&["MetaRouter kiosk/grab", "spec.exportTo[", name]);
        }
    }
    let out = made_with(
        "closedNamespaces: [stacks]",
        &exported("[stacks, kube-system]"),
    )
    .await;
    assert_eq!(
        outbound(&out),
        ["kube-system"],
        "the operator's list is the whole list"
    );
}

#[tokio::test]
async fn fault_m11_two_hosts_with_one_address_and_port() {
    let isbn = entry("isbn", "library", 0, "[10.30.0.1, 10.30.0.2]", "");
    let author = entry("author", "library", 0, "[10.30.0.1, 10.30.0.3]", "");
    let out = made(&format!("{isbn}{author}")).await;
    for (part, there) in [
        ("author.library.example-10.30.0.1", true),
        ("author.library.example-10.30.0.3", true),
        ("isbn.library.example-10.30.0.1", false),
        ("isbn.library.example-10.30.0.2", true),
    ] {
        assert_eq!(out.has(part), there, "{part}: {:?}", out.objects);
    }
    out.told(&[
        "ServiceEntry library/isbn",
        "ServiceEntry library/author",
        "10.30.0.1",
        "an address of its own",
    ]);
    let older = isbn.replace(
        "namespace: library}",
        "namespace: library, creationTimestamp: \"2026-01-01T00:00:00Z\"}",
    );
    let out = made(&format!("{older}{author}")).await;
    assert!(
        out.has("isbn.library.example-10.30.0.1") && !out.has("author.library.example-10.30.0.1")
    );
    let shelf = service(
        "shelf",
        "library",
        "10.30.0.1",
        "tcp-metaprotocol-dubbo",
        7001,
    );
    let out = made(&format!("{shelf}{older}")).await;
    assert!(
        out.has("shelf.library.svc.cluster.local-10.30.0.1")
            && !out.has("isbn.library.example-10.30.0.1")
    );
    out.told(&["ServiceEntry library/isbn", "Service library/shelf"]);
    let other = author.replace("number: 7001", "number: 7002");
    made(&format!("{isbn}{other}")).await.quiet();
}
