//! Under which hosts calls to a host are counted.

use crate::case::Case;

/// Hosts under which calls to the first of the learned ones are counted.
fn counted(text: &str) -> Vec<String> {
    let scope = Case::of(text).scope();
    let mut all = scope.counted.into_values();
    let hosts = all.next().unwrap_or_default().into_iter();
    assert!(all.next().is_none(), "one host is learned: {text}");
    hosts.map(|h| h.replace(".svc.cluster.local", "")).collect()
}

/// `shelf` with a VirtualService of this spec, in one line.
fn shelf(spec: &str) -> Vec<String> {
    counted(&format!(
        "learned shelf.books.svc.cluster.local
service books/shelf http:80
service books/new http:80
yaml {{kind: VirtualService, metadata: {{namespace: books, name: shelf}}, spec: {spec}}}
yaml {{kind: VirtualService, metadata: {{namespace: books, name: rules}}, spec: {{http: [{{route: [{{destination: {{host: new}}}}]}}]}}}}"
    ))
}

#[test]
fn fault_s8_calls_are_counted_where_routes_lead() {
    for spec in [
        "{hosts: [shelf], http: [{route: [{destination: {host: new}}]}]}",
        "{hosts: [shelf], tcp: [{route: [{destination: {host: new}}]}]}",
        "{hosts: [shelf], tls: [{match: [{sniHosts: [shelf]}], route: [{destination: {host: new}}]}]}",
        "{hosts: ['*.books.svc.cluster.local'], http: [{route: [{destination: {host: new}}]}]}",
        "{hosts: [shelf], http: [{delegate: {name: rules}}]}",
        "{hosts: [shelf], http: [{route: [{destination: {host: shelf}, weight: 0}, {destination: {host: new}, weight: 100}]}]}",
        "{hosts: [shelf], http: [{route: [{destination: {host: new}}], mirror: {host: copy}, mirrors: [{destination: {host: copies}}]}]}",
    ] {
        assert_eq!(shelf(spec), ["new.books"], "{spec}");
    }
    for spec in [
        "{hosts: [shelf], http: [{route: [{destination: {host: shelf}, weight: 100}, {destination: {host: new}, weight: 0}]}]}",
        "{hosts: [shelf], http: [{route: [{destination: {host: shelf}}], mirror: {host: new}}]}",
        "{hosts: [shelf], http: [{match: [{sourceNamespace: attic}], route: [{destination: {host: new}}]}]}",
        "{hosts: [shelf], gateways: [gate], http: [{route: [{destination: {host: new}}]}]}",
        "{hosts: [shelf], http: [{redirect: {authority: new}}]}",
    ] {
        assert!(shelf(spec).is_empty(), "{spec}");
    }
}

#[test]
fn fault_s8_calls_are_counted_where_external_names_end() {
    let names = "alias home/rates two.a2.svc.cluster.local
alias a2/two prices.head.svc.cluster.local
service head/prices http:80";
    let rates = "learned rates.home.svc.cluster.local";
    assert_eq!(counted(&format!("{rates}\n{names}")), ["prices.head"]);
    let led = "http hub/prices prices.head.svc.cluster.local -> dear.head.svc.cluster.local";
    let both = counted(&format!("{rates}\n{names}\n{led}"));
    assert_eq!(both, ["dear.head", "prices.head"]);
    let till = "learned till.home.svc.cluster.local
service home/till http:80
http home/till till -> two.a2.svc.cluster.local";
    assert_eq!(
        counted(&format!("{till}\n{names}")),
        ["prices.head", "two.a2"]
    );
}

#[test]
fn fault_s8_calls_are_counted_at_the_egress_gateway() {
    let gateway = "entry outside/supplier *.paper.example NONE TLS:443
service exit/door tls:443
tls buy/orders orders.paper.example -> door.exit.svc.cluster.local";
    for learned in ["*.paper.example", "orders.paper.example"] {
        let found = counted(&format!("learned {learned}\n{gateway}"));
        assert_eq!(found, ["door.exit"], "{learned}");
    }
    let found = counted(
        "learned orders.paper.example
entry outside/supplier *.paper.example NONE HTTP:80
http buy/orders orders.paper.example -> shop.paper.example",
    );
    assert_eq!(found, ["*.paper.example", "shop.paper.example"]);
}
