//! Values that Envoy refuses, in each field that takes them: told with object, field and fix, and given to nobody.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use trimtab::config::Config;
use trimtab::{manifests, translate};

/// `VALUE` stands where the value goes. The marker tells whether the rule has come through.
const LIMITER: &str = "
{apiVersion: v1, kind: Service, metadata: {name: desk, namespace: stacks}, spec: {selector: {app: desk}, ports: [{name: http, port: 8087}]}}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: desk, namespace: stacks}
spec:
  sets:
    _base:
      descriptor:
      - condition: 'true'
        match: [{name: marker, exact_match: '1'}, MATCH]
        action: {quota: '9', fill_interval: {seconds: 1}, headers_to_add: [HEADER]}
";

const FIRST_FORM: &str = "
{apiVersion: v1, kind: Service, metadata: {name: desk, namespace: stacks}, spec: {selector: {app: desk}, ports: [{name: http, port: 8087}]}}
---
apiVersion: microservice.netease.com/v1alpha1
kind: SmartLimiter
metadata: {name: desk, namespace: stacks}
spec:
  descriptors:
  - condition: 'true'
    match: [{name: marker, exact_match: '1'}, MATCH]
    action: {quota: '9', fill_interval: {seconds: 1}}
";

const ROUTER: &str = "
{apiVersion: v1, kind: Service, metadata: {name: loans, namespace: stacks}, spec: {clusterIP: 10.40.0.21, selector: {app: loans}, ports: [{name: tcp-metaprotocol-PROTOCOL, port: 9191}]}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: loans, namespace: stacks}
spec:
  hosts: [loans.stacks.svc.cluster.local]
  routes:
  - name: marker
    match: {attributes: {marker: {exact: marker}, ATTRIBUTE}}
    route: [{destination: {host: loans.stacks.svc.cluster.local}}]
";

const BAD: &[&str] = &[
    "/books/[0-9]+**",
    "x*+",
    "a{2}{3}",
    "([a-z]{1,20}[.]){1,60}shop",
    r"[\w--\d]",
    r"\p{LU}",
    "(?P<shelf.no>x)",
    r"\x{1F4D6}",
    r"\x{100}",
    "(?=x)",
    r"(a)\1",
];

const GOOD: &[&str] = &[
    "(a{10}){100}",
    "(?P<name>x)",
    r"\x{7A}",
    r"\p{Greek}",
    r"\p{^Greek}",
    "[^/]{1,100}",
    r"[\w-.]+",
    r"\Qa+b\E",
    "a{,3}",
    "^(?:/[a-z0-9_-]+){1,20}$",
];

struct Told {
    refused: Vec<String>,
    given: String,
}

async fn told(text: &str) -> Told {
    let documents = manifests::parse(Path::new("t9.yaml"), text).unwrap();
    let config = translate::configuration(None).unwrap();
    let (_, output) = translate::pass(&documents, &BTreeMap::new(), &config)
        .await
        .unwrap();
    let all: Vec<&Value> = output.objects.iter().chain(&output.resources).collect();
    Told {
        refused: output.refused,
        given: serde_json::to_string(&all).unwrap(),
    }
}

/// A value of YAML that reads as `text`.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Each object with an expression in it, and the field that holds it.
fn with_expression(regex: &str) -> Vec<(String, &'static str)> {
    let header = format!("{{name: ':path', regex_match: {}}}", quoted(regex));
    let query = format!(
        "{{name: q, matchSource: QueryMatch, regexMatch: {}}}",
        quoted(regex)
    );
    let limiter = |matched: &str| {
        let plain = "{key: x-limited, value: 50% off}";
        LIMITER.replace("MATCH", matched).replace("HEADER", plain)
    };
    let router = |protocol, name| {
        let attribute = format!("{name}: {{regex: {}}}", quoted(regex));
        let text = ROUTER.replace("PROTOCOL", protocol);
        text.replace("ATTRIBUTE", &attribute)
    };
    let of_limiter = "spec.sets._base.descriptor[0].match[1].regex_match";
    vec![
        (limiter(&header), of_limiter),
        (limiter(&query), of_limiter),
        (
            FIRST_FORM.replace("MATCH", &header),
            "spec.descriptors[0].match[1].regex_match",
        ),
        (
            router("dubbo", "method"),
            "spec.routes[0].match.attributes.method",
        ),
        (
            router("thrift", "tenant"),
            "spec.routes[0].match.attributes.tenant",
        ),
    ]
}

#[tokio::test]
async fn fault_t9_an_expression_that_envoy_refuses_is_told_and_goes_nowhere() {
    for regex in BAD {
        for (text, field) in with_expression(regex) {
            let told = told(&text).await;
            assert!(
                told.refused
                    .iter()
                    .any(|r| r.contains(field) && r.contains("stacks/")),
                "{regex}: {field}: {:?}",
                told.refused
            );
            assert!(!told.given.contains("marker"), "{regex}: {}", told.given);
        }
    }
}

#[tokio::test]
async fn fault_t9_an_expression_that_envoy_takes_comes_through() {
    for regex in GOOD {
        for (text, field) in with_expression(regex) {
            let told = told(&text).await;
            let here = |r: &&String| r.contains(field);
            assert_eq!(told.refused.iter().find(here), None, "{regex}");
            assert!(
                told.given.contains(&quoted(regex)),
                "{regex}: {field}: {}",
                told.given
            );
        }
    }
}

#[tokio::test]
async fn fault_t9_names_that_envoy_refuses_are_told_and_go_nowhere() {
    let own = "{name: x, exact_match: '1'}";
    let plain = "{key: x-limited, value: v}";
    for (matched, header, field) in [
        (
            r#"{name: "x-shelf\nx-row", exact_match: '1'}"#,
            plain,
            "match[1].name",
        ),
        (
            r#"{name: "x-shelf\rx-row", prefix_match: a}"#,
            plain,
            "match[1].name",
        ),
        (
            r#"{name: "x\0", present_match: true}"#,
            plain,
            "match[1].name",
        ),
        (own, "{key: host, value: shop}", "headers_to_add[0].key"),
        (own, "{key: HOST, value: shop}", "headers_to_add[0].key"),
        (own, "{key: ':path', value: shop}", "headers_to_add[0].key"),
        (
            own,
            r#"{key: "x\ny", value: shop}"#,
            "headers_to_add[0].key",
        ),
        (own, r#"{key: x, value: "a\nb"}"#, "headers_to_add[0].value"),
        (own, r#"{key: x, value: "a\0"}"#, "headers_to_add[0].value"),
    ] {
        let text = LIMITER.replace("MATCH", matched).replace("HEADER", header);
        let told = told(&text).await;
        let object = "SmartLimiter stacks/desk";
        assert!(
            told.refused
                .iter()
                .any(|r| r.contains(field) && r.contains(object)),
            "{field}: {:?}",
            told.refused
        );
        assert_eq!(told.given, "[]", "{field}");
    }
    let text = LIMITER
        .replace("MATCH", own)
        .replace("HEADER", r#"{key: x, value: "50%\tof é"}"#);
    let told = told(&text).await;
    assert_eq!(told.refused, Vec::<String>::new());
    assert!(told.given.contains("50%%"), "{}", told.given);
}

#[test]
fn fault_t9_a_configuration_with_a_bad_pattern_is_refused_with_its_key() {
    for (text, key) in [
        ("limiter: {proxyVersion: '1.2**'}", "limiter.proxyVersion"),
        (
            "metaprotocol: {proxyVersion: '(?=1)'}",
            "metaprotocol.proxyVersion",
        ),
        (
            "lazyload: {fallback: {proxyVersion: '[\\w--\\d]'}}",
            "lazyload.fallback.proxyVersion",
        ),
        (
            "lazyload: {fallback: {dispatches: [{name: a, cluster: b, domainRegex: 'a{2}{3}'}]}}",
            "\"a\": domainRegex",
        ),
    ] {
        let error = format!("{:#}", Config::parse(text).unwrap_err());
        assert!(
            error.contains(key) && error.contains("RE2"),
            "{text}: {error}"
        );
    }
    let good = r"limiter: {proxyVersion: '^1\.2[0-9].*|\x{1F4D6}|\Qa+\E'}";
    assert!(Config::parse(good).is_ok());
}
