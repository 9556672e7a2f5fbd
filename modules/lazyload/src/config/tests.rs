//! What is refused, and how.

use std::collections::BTreeMap;

use trimtab_kit::prometheus::Access;

use super::*;

fn problem(text: &str) -> String {
    let config: LazyloadConfig = serde_saphyr::from_str(text).unwrap();
    config.check().unwrap_err()
}

#[test]
fn the_default_is_valid() {
    LazyloadConfig::default().check().unwrap();
}

#[test]
fn what_has_no_effect_is_said() {
    assert!(LazyloadConfig::default().warnings().is_empty());
    let config: LazyloadConfig = serde_saphyr::from_str("enableShortDomain: true").unwrap();
    config.check().unwrap();
    let warnings = config.warnings();
    assert!(
        matches!(&warnings[..], [one] if one.contains("lazyload.enableShortDomain")),
        "{warnings:?}"
    );
}

#[test]
fn nonsense_is_refused_with_the_key() {
    for (text, key) in [
        ("fallback: {wormholePort: ['http']}", "wormholePort"),
        ("fallback: {wormholePort: ['0']}", "wormholePort"),
        ("fallback: {wormholePort: ['15081']}", "own port for TCP"),
        ("fallback: {proxyVersion: '1.(30'}", "fallback.proxyVersion"),
        (
            "fallback: {globalSidecarMode: namespace}",
            "fallback.namespace",
        ),
        (
            "fallback: {dispatches: [{name: a, cluster: b}]}",
            "dispatches",
        ),
        (
            "domainAliases: [{pattern: '(', templates: [a]}]",
            "domainAliases",
        ),
        (
            "domainAliases: [{pattern: 'a', templates: []}]",
            "templates",
        ),
        (
            "fences: {blackNamespaceList: a, whiteNamespaceList: b}",
            "blackNamespaceList",
        ),
        (
            "learn: {prometheus: {address: 'prometheus:9090'}}",
            "lazyload.learn.prometheus.address",
        ),
        (
            "learn: {prometheus: {timeout: 0s}}",
            "lazyload.learn.prometheus.timeout is 0s",
        ),
        (
            "learn: {prometheus: {address: 'https://p', certFile: /cert}}",
            "lazyload.learn.prometheus.certFile is set without keyFile",
        ),
        (
            "learn: {prometheus: {headers: {'X Y': z}}}",
            "lazyload.learn.prometheus.headers.X Y",
        ),
    ] {
        let message = problem(text);
        assert!(message.contains(key), "{text}: {message}");
    }
}

#[test]
fn every_key_of_access_is_a_key_of_learning() {
    let access = Access {
        address: "https://p/prom".to_owned(),
        timeout: Duration::from_secs(7),
        basic_auth: None,
        max_bytes: 7,
        max_series: 8,
        bearer_token_file: Some("/t".into()),
        ca_file: Some("/ca".into()),
        cert_file: Some("/cert".into()),
        key_file: Some("/key".into()),
        headers: BTreeMap::from([("X-Scope-OrgID".to_owned(), "a".to_owned())]),
    };
    let learning: PrometheusLearning =
        serde_json::from_value(serde_json::to_value(&access).unwrap()).unwrap();
    assert_eq!(learning.access(), access);
}
