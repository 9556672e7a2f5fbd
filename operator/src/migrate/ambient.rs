//! What of Trimtab's stops working in each namespace that moves to Istio's ambient mode.

use serde_json::Value;

use super::objects::{Objects, items, label, name, namespace, namespaces, place, places, text};
use super::report::{Report, titled};

/// Label of Namespaces and pods.
const MODE: &str = "istio.io/dataplane-mode";

/// What stops, what is not needed any more, and what goes on.
pub fn report(objects: &Objects) -> Report {
    let mut report = Report {
        title: "To ambient mode, namespace by namespace.".to_owned(),
        ..Report::default()
    };
    let kinds = [
        "SmartLimiter",
        "ServiceFence",
        "MetaRouter",
        "RedisService",
        "RedisDestination",
        "DubboAuthorizationPolicy",
        "Sidecar",
        "EnvoyFilter",
    ];
    let all: Vec<&Value> = kinds.iter().flat_map(|kind| objects.kind(kind)).collect();
    for of in namespaces(&all) {
        let here = Objects(
            all.iter()
                .filter(|o| namespace(o) == of)
                .map(|o| (*o).clone())
                .collect(),
        );
        let moved = objects
            .kind("Namespace")
            .iter()
            .any(|n| name(n) == of && label(n, MODE) == "ambient");
        let at = if moved {
            format!("{of} (ambient already)")
        } else {
            of.clone()
        };
        limiters(&at, &here, &mut report);
        fences(&at, &here, &mut report);
        routers(&at, &here, &mut report);
    }
    report
}

fn limiters(at: &str, here: &Objects, report: &mut Report) {
    let of_gateway = here.which("SmartLimiter", |o| o["spec"]["gateway"] == true);
    report.stay(
        titled("SmartLimiter", places(&of_gateway)),
        "goes on: its gateway keeps its own proxy",
    );
    for limiter in here.which("SmartLimiter", |o| o["spec"]["gateway"] != true) {
        let outbound = directions(limiter).any(|d| d == "outbound");
        let what = if outbound {
            "its calls leave pods without a sidecar, so that nothing limits them"
        } else {
            "its pods have no sidecar any more, so that nothing limits them (condition Programmed: NoProxy)"
        };
        report.decide(
            format!("{at}: SmartLimiter {}", place(limiter)),
            what,
            &[
                "leave these pods out of ambient mode: label istio.io/dataplane-mode: none, with sidecars as now",
                "limit at the gateway that the requests come through: gateway: true",
                "do without: limits on waypoints are not available",
            ],
        );
    }
}

fn directions(limiter: &Value) -> impl Iterator<Item = &str> {
    let sets = limiter["spec"]["sets"].as_object().into_iter().flatten();
    let descriptors = sets.flat_map(|(_, set)| items(set, "/descriptor"));
    let own = descriptors.map(|d| text(d, "/target/direction"));
    own.chain([text(limiter, "/spec/target/direction")])
}

fn fences(at: &str, here: &Objects, report: &mut Report) {
    let fences = places(&here.kind("ServiceFence"));
    report.change(titled(&format!("{at}: ServiceFence"), fences), "not needed: ztunnel has no list of services that could be narrowed; no Sidecar is written for its pods (condition NoSidecar). Delete it");
    for kind in ["Sidecar", "EnvoyFilter"] {
        let found = places(&here.kind(kind));
        report.change(titled(&format!("{at}: {kind}"), found), "acts on sidecars and gateways only: for pods in ambient mode it is as if it were not there");
    }
}

fn routers(at: &str, here: &Objects, report: &mut Report) {
    for kind in [
        "MetaRouter",
        "RedisService",
        "RedisDestination",
        "DubboAuthorizationPolicy",
    ] {
        for object in here.kind(kind) {
            report.decide(
                format!("{at}: {kind} {}", place(object)),
                "it acts in the sidecars of callers and servers: ztunnel passes their bytes on as TCP, without routes, limits and rules",
                &[
                    "leave callers and servers of this host out of ambient mode: label istio.io/dataplane-mode: none",
                    "do without: a host with one version and no rule needs none",
                ],
            );
        }
    }
}
