//! What has no effect is told, and what every call has is no test.

use crate::made::{made, object, service};

#[tokio::test]
async fn fault_m12_any_method_is_no_pattern() {
    let index = service(
        "index",
        "library",
        "10.20.0.10",
        "tcp-metaprotocol-thrift",
        9098,
    );
    let host = "index.library.svc.cluster.local";
    for (value, good) in [
        ("{exact: \"\"}", true),
        ("{regex: \"*\"}", true),
        ("{}", true),
        ("null", true),
        ("{prefix: get}", false),
        ("{regex: \"get.*\"}", false),
    ] {
        let spec = format!(
            "spec: {{hosts: [{host}], routes: [{{match: {{attributes: {{method: {value}}}}}, route: [{{destination: {{host: {host}}}}}]}}]}}"
        );
        let out = made(&format!(
            "{index}{}",
            object("MetaRouter", "index", "library", 0, &spec)
        ))
        .await;
        assert_eq!(out.refused.is_empty(), good, "{value}: {:?}", out.refused);
        if good {
            assert!(out.text.contains("\"methodName\":\"\""), "{}", out.text);
        }
    }
}

#[tokio::test]
async fn fault_m13_a_short_host_is_of_the_namespace() {
    let host = "stack.library.svc.cluster.local";
    let mesh = service("stack", "library", "10.20.0.11", "tcp-dubbo", 20882)
        + &object(
            "ServiceEntry",
            "outside",
            "library",
            0,
            "spec: {hosts: [stack], addresses: [10.30.0.9], resolution: STATIC, ports: [{number: 20882, name: tcp-dubbo, protocol: TCP}]}",
        )
        + &object(
            "DestinationRule",
            "stack",
            "library",
            0,
            "spec: {host: stack, subsets: [{name: ground, labels: {floor: ground}}]}",
        );
    let router = format!(
        "spec: {{hosts: [{host}], routes: [{{route: [{{destination: {{host: {host}, subset: ground}}}}]}}]}}"
    );
    let rules =
        "spec: {hosts: [stack], http: [{route: [{destination: {host: stack, subset: ground}}]}]}";
    for routes in [
        object("MetaRouter", "stack", "library", 0, &router),
        object("VirtualService", "stack", "library", 0, rules),
    ] {
        let out = made(&format!("{mesh}{routes}")).await;
        out.quiet();
        assert!(
            out.text.contains(&format!("outbound|20882|ground|{host}")),
            "{}",
            out.text
        );
    }
}

const CACHE: &str = "cache.library.svc.cluster.local";
/// A typing error.
const NOWHERE: &str = "cahce.library.svc.cluster.local";

/// Kind, namespace and specification, and what the message must name.
type Case = (&'static str, &'static str, String, Vec<&'static str>);

fn without_effect() -> Vec<Case> {
    vec![
        (
            "RedisService",
            "library",
            format!("spec: {{host: [{NOWHERE}], redis: [{{route: {{host: {NOWHERE}}}}}]}}"),
            vec!["spec.host[0]", NOWHERE],
        ),
        (
            "RedisService",
            "library",
            format!("spec: {{host: [{CACHE}, {NOWHERE}], redis: [{{route: {{host: {CACHE}}}}}]}}"),
            vec!["spec.host[1]", NOWHERE],
        ),
        (
            "RedisService",
            "kiosk",
            format!("spec: {{host: [{CACHE}], redis: [{{route: {{host: {CACHE}}}}}]}}"),
            vec!["spec.host[0]", "belongs to namespace library"],
        ),
        (
            "RedisDestination",
            "library",
            format!("spec: {{host: {NOWHERE}}}"),
            vec!["spec.host", NOWHERE],
        ),
        (
            "RedisDestination",
            "library",
            "spec: {host: web.library.svc.cluster.local}".to_owned(),
            vec!["spec.host", "tcp-redis"],
        ),
        (
            "MetaRouter",
            "library",
            format!(
                "spec: {{hosts: [{NOWHERE}], routes: [{{route: [{{destination: {{host: {CACHE}}}}}]}}]}}"
            ),
            vec!["spec.hosts[0]", NOWHERE],
        ),
        (
            "DubboAuthorizationPolicy",
            "library",
            "spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}".to_owned(),
            vec!["namespace library", "tcp-dubbo"],
        ),
    ]
}

#[tokio::test]
async fn fault_m18_what_fits_nothing_is_told() {
    let web = service(
        "web",
        "library",
        "10.20.0.12",
        "tcp-metaprotocol-thrift",
        9099,
    ) + &service("cache", "library", "10.20.0.13", "tcp-redis", 6379);
    for (kind, namespace, spec, parts) in without_effect() {
        let name = if namespace == "library" {
            "cache"
        } else {
            "grab"
        };
        let out = made(&format!("{web}{}", object(kind, name, namespace, 0, &spec))).await;
        let title = format!("{kind} {namespace}/{name}");
        let mut all = vec![title.as_str()];
        all.extend(parts);
        out.told(&all);
    }
}
