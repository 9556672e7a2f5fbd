//! HTTP rules of VirtualServices on ports of Dubbo and Thrift.

use crate::made::{made_with, object, service};

const HOST: &str = "catalog.library.svc.cluster.local";
const RULE: &str = "spec: {host: catalog, subsets: [{name: stable, labels: {track: stable}}, {name: canary, labels: {track: canary}}]}";
/// Ports that nobody named a MetaRouter for are managed when a VirtualService routes them.
const CONFIGURATIONS: [&str; 2] = ["{}", "ports: all"];

fn mesh(port: &str) -> String {
    service("catalog", "library", "10.20.0.7", port, 9096)
        + &object("DestinationRule", "catalog", "library", 0, RULE)
}

fn rules(namespace: &str, http: &str) -> String {
    let spec = format!("spec: {{hosts: [{HOST}], http: {http}}}");
    object("VirtualService", "catalog", namespace, 0, &spec)
}

#[tokio::test]
async fn fault_m9_shares_of_subsets() {
    let shares = "[{name: share, route: [{destination: {host: catalog, subset: stable}, weight: 85}, \
        {destination: {host: catalog.library.svc.cluster.local, subset: canary}, weight: 15}]}]";
    for port in ["tcp-thrift", "tcp-dubbo"] {
        for config in CONFIGURATIONS {
            let out = made_with(
                config,
                &format!("{}{}", mesh(port), rules("library", shares)),
            )
            .await;
            out.quiet();
            for (subset, weight) in [("stable", 85), ("canary", 15)] {
                let cluster =
                    format!("{{\"name\":\"outbound|9096|{subset}|{HOST}\",\"weight\":{weight}}}");
                assert!(out.text.contains(&cluster), "{port} {config}: {}", out.text);
            }
        }
    }
}

#[tokio::test]
async fn fault_m9_methods_and_headers() {
    let tests = "[{match: [{method: {exact: get}, headers: {interface: {exact: org.Books}}}, {headers: {tier: {prefix: go}}}], \
        route: [{destination: {host: catalog, subset: canary}}]}, {route: [{destination: {host: catalog, subset: stable}}]}]";
    for config in CONFIGURATIONS {
        let dubbo = made_with(
            config,
            &format!("{}{}", mesh("tcp-dubbo"), rules("library", tests)),
        )
        .await;
        dubbo.quiet();
        for part in [
            "\"interface\":\"org.Books\"",
            "\"exact\":\"get\"",
            "\"prefix\":\"go\"",
        ] {
            assert!(dubbo.text.contains(part), "{part}: {}", dubbo.text);
        }
        let thrift = made_with(
            config,
            &format!("{}{}", mesh("tcp-thrift"), rules("library", tests)),
        )
        .await;
        thrift.quiet();
        assert!(
            thrift.text.contains("\"methodName\":\"org.Books:get\""),
            "{}",
            thrift.text
        );
    }
}

#[tokio::test]
async fn fault_m9_what_is_not_done_is_told() {
    let to = "route: [{destination: {host: catalog, subset: stable}}]";
    for (rule, field) in [
        (
            format!("{{match: [{{uri: {{prefix: /a}}}}], {to}}}"),
            "spec.http[0].match[0].uri",
        ),
        (
            format!("{{match: [{{sourceLabels: {{a: b}}}}], {to}}}"),
            "spec.http[0].match[0].sourceLabels",
        ),
        (
            format!("{{fault: {{delay: {{fixedDelay: 1s}}}}, {to}}}"),
            "spec.http[0].fault",
        ),
        (
            "{route: [{destination: {host: catalog, subset: gone}}]}".to_owned(),
            "spec.http[0].route[0].destination.subset",
        ),
        (
            "{delegate: {name: other}}".to_owned(),
            "spec.http[0].delegate",
        ),
        (format!("{{timeout: 1s, {to}}}"), "spec.http[0].timeout"),
    ] {
        let out = made_with(
            "{}",
            &format!(
                "{}{}",
                mesh("tcp-thrift"),
                rules("library", &format!("[{rule}]"))
            ),
        )
        .await;
        out.told(&["VirtualService library/catalog", field]);
    }
}

#[tokio::test]
async fn fault_m9_rules_of_others_and_of_http_ports_do_not_count() {
    let all = "[{route: [{destination: {host: catalog, subset: canary}}]}]";
    let out = made_with(
        "{}",
        &format!("{}{}", mesh("tcp-thrift"), rules("kiosk", all)),
    )
    .await;
    assert!(!out.text.contains("canary"), "{}", out.text);
    out.told(&[
        "VirtualService kiosk/catalog",
        "belongs to namespace library",
    ]);
    // The rules are those of the HTTP port, unless a match names the other one.
    let both = mesh("tcp-thrift").replace("ports: [", "ports: [{name: http, port: 80}, ");
    let out = made_with("ports: all", &format!("{both}{}", rules("library", all))).await;
    assert!(!out.text.contains("canary"), "{}", out.text);
    out.quiet();
    let named =
        "[{match: [{port: 9096}], route: [{destination: {host: catalog, subset: canary}}]}]";
    let out = made_with("{}", &format!("{both}{}", rules("library", named))).await;
    out.quiet();
    assert!(
        out.text.contains(&format!("outbound|9096|canary|{HOST}")),
        "{}",
        out.text
    );
}

#[tokio::test]
async fn fault_m9_a_meta_router_goes_before_the_rules() {
    let all = "[{route: [{destination: {host: catalog, subset: canary}}]}]";
    let router = format!(
        "spec: {{hosts: [{HOST}], routes: [{{route: [{{destination: {{host: {HOST}, subset: stable}}}}]}}]}}"
    );
    let router = object("MetaRouter", "catalog", "library", 0, &router);
    let out = made_with(
        "{}",
        &format!("{}{}{router}", mesh("tcp-thrift"), rules("library", all)),
    )
    .await;
    assert!(
        out.text.contains("|stable|") && !out.text.contains("|canary|"),
        "{}",
        out.text
    );
    out.told(&[
        "VirtualService library/catalog",
        "MetaRouter library/catalog is in force",
    ]);
}
