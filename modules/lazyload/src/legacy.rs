//! Slime's configuration of its module `lazyload`: where each key of `general` went.

use trimtab_kit::module::{Became, LegacyKey};

/// The keys.
pub(crate) const SLIME: &[LegacyKey] = &[
    key("addEnvHeaderViaLua", "fallback.addEnvHeaderViaLua"),
    key("autoFence", "fences.autoFence"),
    key("autoPort", "fallback.autoPort"),
    key("blackNamespaceList", "fences.blackNamespaceList"),
    key("cleanupWormholePort", "fallback.cleanupWormholePort"),
    key("clusterGsNamespace", "fallback.clusterGsNamespace"),
    key("defaultFence", "fences.defaultFence"),
    nothing(
        "disableIpv4Passthrough",
        "Slime does not read it any more either",
    ),
    key("dispatches", "fallback.dispatches"),
    key("domainAliases", "domainAliases"),
    key("enableShortDomain", "enableShortDomain"),
    key("fenceLabelKeyAlias", "fences.fenceLabelKeyAlias"),
    key("globalSidecarMode", "fallback.globalSidecarMode"),
    key("managementSelectors", "fences.managementSelectors"),
    LegacyKey {
        key: "metricSourceType",
        became: Became::Other(
            "configure learn.accessLog, learn.prometheus, or both: they work together",
        ),
    },
    key("namespace", "fallback.namespace"),
    key("passthroughByDefault", "fallback.passthroughByDefault"),
    key("proxyVersion", "fallback.proxyVersion"),
    nothing(
        "render",
        "it was a note of Slime's chart to itself; the chart of Trimtab needs none",
    ),
    key("stableHost", "stableHost"),
    key("supportH2", "fallback.supportH2"),
    key("whiteNamespaceList", "fences.whiteNamespaceList"),
    key("wormholePort", "fallback.wormholePort"),
];

const fn key(key: &'static str, path: &'static str) -> LegacyKey {
    LegacyKey {
        key,
        became: Became::Key(path),
    }
}

const fn nothing(key: &'static str, why: &'static str) -> LegacyKey {
    LegacyKey {
        key,
        became: Became::Nothing(why),
    }
}
