//! What a status says of modes `Exclude` and `Auto`. Pure.

use trimtab_kit::condition::Draft;

/// The Sidecar has everything but so many services.
pub(super) fn excluding(services: usize) -> Draft {
    let message = match services {
        0 => "the Sidecar has everything: no service is proven unused yet, see docs/servicefence.md, Modes".to_owned(),
        1 => "the Sidecar has everything but 1 service that is proven unused".to_owned(),
        n => format!("the Sidecar has everything but {n} services that are proven unused"),
    };
    Draft::new("Programmed", true, "Programmed", message)
}

/// There is no Sidecar, for want of exclusions.
pub(super) fn open() -> Draft {
    Draft::new(
        "Programmed",
        false,
        "Open",
        "istiod does not know exclusions, which Istio has since 1.31: there is no Sidecar until mode Auto tightens, see Tightened",
    )
}

/// Whether the fallback is ready makes no difference.
pub(super) fn no_fallback() -> Draft {
    Draft::new(
        "FallbackReady",
        true,
        "NotUsed",
        "mode Exclude waits for no fallback: only services that are proven unused are out of scope",
    )
}
