//! What is refused, and how.

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
    assert!(LazyloadConfig::default().remarks().is_empty());
    let config: LazyloadConfig = serde_saphyr::from_str("enableShortDomain: true").unwrap();
    config.check().unwrap();
    let remarks = config.remarks();
    assert!(
        matches!(&remarks[..], [one] if one.contains("lazyload.enableShortDomain")),
        "{remarks:?}"
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
    ] {
        let message = problem(text);
        assert!(message.contains(key), "{text}: {message}");
    }
}
