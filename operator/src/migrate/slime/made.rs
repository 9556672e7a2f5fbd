//! The objects of users, and what Slime made of them.

use serde_json::Value;
use trimtab_crds::fence::{CREATED_BY, CREATED_BY_LABEL};

use crate::migrate::objects::{Objects, label, name, owner_kind, place, places, text};
use crate::migrate::report::{Report, titled};

/// EnvoyFilters of the global-sidecar.
pub const OF_GLOBAL_SIDECAR: [&str; 3] = [
    "to-global-sidecar",
    "global-sidecar-accesslog",
    "global-sidecar-metadata-exchange-remove",
];

/// Whether a SmartLimiter is of the first form, whose numbers are those of the metrics API.
pub fn is_first_form(limiter: &Value) -> bool {
    text(limiter, "/apiVersion") == "microservice.netease.com/v1alpha1"
}

/// Says of each object what becomes of it.
pub fn classify(objects: &Objects, report: &mut Report) {
    limiters(objects, report);
    let fences = objects.which("ServiceFence", |o| label(o, CREATED_BY_LABEL) != CREATED_BY);
    report.stay(
        titled("ServiceFence", places(&fences)),
        "applies as it stands, with what its status has learned",
    );
    let automatic = objects.which("ServiceFence", |o| label(o, CREATED_BY_LABEL) == CREATED_BY);
    report.stay(
        titled("ServiceFence", places(&automatic)),
        "made by Slime for a Service: Trimtab knows it by its label and goes on with it, as config.lazyload.fences says",
    );
    envoy_filters(objects, report);
    let own = objects.which("Sidecar", |o| owner_kind(o) == "ServiceFence");
    report.change(titled("Sidecar", places(&own)), "taken over in place: its ServiceFence owns it, so it stays in force until Trimtab has computed its own");
    let others = objects.which("Sidecar", |o| owner_kind(o) != "ServiceFence");
    report.stay(
        titled("Sidecar", places(&others)),
        "not made by Slime: it is read and never changed",
    );
    for kind in ["PluginManager", "EnvoyPlugin"] {
        for object in places(&objects.kind(kind)) {
            report.decide(
                format!("{kind} {object}"),
                "Trimtab has no module plugin",
                &["keep Slime's module plugin running for it", "make its EnvoyFilter your own: remove its ownerReferences, then delete this object"],
            );
        }
    }
}

fn limiters(objects: &Objects, report: &mut Report) {
    let of = |version: &'static str| move |o: &Value| text(o, "/apiVersion") == version;
    let now = objects.which("SmartLimiter", of("microservice.slime.io/v1alpha2"));
    report.stay(
        titled("SmartLimiter", places(&now)),
        "applies as it stands; its limit stays in force all the time",
    );
    let first = objects.which("SmartLimiter", is_first_form);
    report.stay(
        titled("SmartLimiter", places(&first)),
        "applies as it stands, with firstForm: true of the chart trimtab-crds; its numbers come from the metrics API, config.metrics.metricsServer",
    );
    for at in places(&objects.which("SmartLimiter", of("microservice.slime.io/v1alpha1"))) {
        report.decide(
            format!("SmartLimiter {at}"),
            "its version v1alpha1 is not served, by Slime since v0.4 and by Trimtab",
            &["write it as v1alpha2: a target, and fill_interval in the action"],
        );
    }
    for limiter in objects.which("SmartLimiter", is_global) {
        report.decide(
            format!("SmartLimiter {}", place(limiter)),
            "strategy: global needs a rate limit service, which Trimtab does not have: its descriptors with that strategy limit nothing",
            &[
                "strategy: average: the quota is the whole service's, divided among its ready pods",
                "strategy: single: the quota is each pod's",
                "keep the rate limit service with an EnvoyFilter of your own",
            ],
        );
    }
}

/// Whether a descriptor of the limiter asks for a rate limit service.
fn is_global(limiter: &Value) -> bool {
    let sets = limiter["spec"]["sets"].as_object();
    sets.into_iter()
        .flatten()
        .flat_map(|(_, set)| set["descriptor"].as_array().into_iter().flatten())
        .any(|descriptor| descriptor["action"]["strategy"] == "global")
}

fn envoy_filters(objects: &Objects, report: &mut Report) {
    let of_limiters = objects.which("EnvoyFilter", |o| owner_kind(o) == "SmartLimiter");
    report.change(
        titled("EnvoyFilter", places(&of_limiters)),
        "taken over in place: its SmartLimiter owns it, so it stays in force until Trimtab has decided, and is then written in Trimtab's form",
    );
    let of_fallback = objects.which("EnvoyFilter", |o| OF_GLOBAL_SIDECAR.contains(&name(o)));
    report.change(
        titled("EnvoyFilter", places(&of_fallback)),
        "deleted when the fallback takes over",
    );
    let others = objects.which("EnvoyFilter", |o| {
        let of_plugin = ["PluginManager", "EnvoyPlugin"].contains(&owner_kind(o));
        owner_kind(o) != "SmartLimiter" && !OF_GLOBAL_SIDECAR.contains(&name(o)) && !of_plugin
    });
    report.stay(
        titled("EnvoyFilter", places(&others)),
        "not made by Slime: never changed",
    );
}
