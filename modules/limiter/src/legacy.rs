//! Slime's configuration of its module `limiter`: where each key of `general` went.

use trimtab_kit::module::{Became, LegacyKey};

const GLOBAL: &str = "the strategy global is not available: use single, or average for a limit of the whole service, and leave the key out";

/// The keys.
pub(crate) const SLIME: &[LegacyKey] = &[
    nothing("backend", "Slime never read it either"),
    nothing(
        "disableAdaptive",
        "the sources of metrics that are configured are used",
    ),
    nothing(
        "disableGlobalRateLimit",
        "there is no rate limit service that could be switched off",
    ),
    nothing(
        "disableInsertGlobalRateLimit",
        "no filter of a rate limit service is inserted",
    ),
    same("disableInsertLocalRateLimit"),
    nothing("enableServiceEntry", "ServiceEntries are always read"),
    same("proxyVersion"),
    same("refresh"),
    global("domain"),
    global("enableRatelimitPlaceholderInRoute"),
    global("rls"),
    global("rlsConfigMap"),
];

const fn same(key: &'static str) -> LegacyKey {
    LegacyKey {
        key,
        became: Became::Key(key),
    }
}

const fn nothing(key: &'static str, why: &'static str) -> LegacyKey {
    LegacyKey {
        key,
        became: Became::Nothing(why),
    }
}

const fn global(key: &'static str) -> LegacyKey {
    LegacyKey {
        key,
        became: Became::Other(GLOBAL),
    }
}
