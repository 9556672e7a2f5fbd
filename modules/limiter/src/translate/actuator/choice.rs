//! Which actuator a proxy gets, and why.

use super::Kind;

/// The first Envoy whose `adaptive_concurrency` takes a pinned time of an answer.
const PINS_FROM: (u32, u32) = (1, 34);

/// What a proxy can do, as far as the choice depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facilities {
    /// Whether it takes filters from Trimtab's xDS server.
    pub ecds: bool,
    /// Whether it has Envoy's filter `adaptive_concurrency`.
    pub adaptive_concurrency: bool,
    /// Version of its Envoy, where it is known.
    pub envoy: Option<(u32, u32)>,
}

impl Facilities {
    /// Whether the time of an answer can be pinned in `adaptive_concurrency`.
    pub fn pins(&self) -> bool {
        self.envoy.is_some_and(|version| version >= PINS_FROM)
    }
}

/// An actuator, and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The actuator.
    pub kind: Kind,
    /// Why, for the status.
    pub why: String,
}

/// Chooses for a proxy. `wanted` is what the user asks for; what the proxy cannot do gives way to the next best, and says so.
pub fn choose(facilities: &Facilities, wanted: Option<Kind>) -> Choice {
    let bucket = if facilities.ecds {
        Kind::EcdsBucket
    } else {
        Kind::EnvoyFilterBucket
    };
    let choice = |kind, why: &str| Choice {
        kind,
        why: why.to_owned(),
    };
    match wanted {
        Some(Kind::ConcurrencyBounds) if !facilities.adaptive_concurrency => choice(
            bucket,
            "the proxy has no filter adaptive_concurrency, so a bucket holds the limit",
        ),
        Some(Kind::ConcurrencyBounds) if !facilities.pins() => choice(
            Kind::ConcurrencyBounds,
            "asked for; this Envoy cannot pin the time of an answer, so it measures it by letting few requests in every 5 minutes",
        ),
        Some(Kind::ConcurrencyBounds) => choice(Kind::ConcurrencyBounds, "asked for"),
        Some(Kind::EcdsBucket) if !facilities.ecds => choice(
            bucket,
            "the proxy does not take filters from Trimtab's xDS server, so istiod delivers the limit",
        ),
        Some(Kind::EnvoyFilterBucket) => choice(Kind::EnvoyFilterBucket, "asked for"),
        Some(Kind::EcdsBucket) => choice(Kind::EcdsBucket, "asked for"),
        None if facilities.ecds => choice(
            Kind::EcdsBucket,
            "the proxy takes filters from Trimtab's xDS server: a change is in force at once and fills one bucket only",
        ),
        None => choice(
            Kind::EnvoyFilterBucket,
            "the proxy does not take filters from Trimtab's xDS server, so istiod delivers the limit",
        ),
    }
}
