//! Checks of routes and of who gets them.

use std::collections::BTreeSet;
use std::time::Duration;

use trimtab_crds::ACCEPT_OBJECTS_LABEL;

use super::{Class, Diagnostics, values};
use crate::input::{Destination, Route, Router, ServicePortInput};

/// Tries of a call.
const MOST_RETRIES: u32 = 10;

/// All routes.
pub(super) fn check<'a>(
    object: &'a str,
    input: &ServicePortInput,
    router: &Router,
) -> Diagnostics<'a> {
    let mut out = Diagnostics::new(object);
    for (i, route) in router.routes.iter().enumerate() {
        let field = route.path(i);
        let tests = if route.field.is_empty() {
            format!("{field}.match.attributes")
        } else {
            format!("{field}.match")
        };
        values::matches(&mut out, &tests, &route.matches);
        for name in &route.unsupported {
            out.invalid(format!("{field}.{name}"), "NotSupported", format!(
                "ports of {} have nothing of the kind, and no route of this version is applied: remove the field, or write a MetaRouter",
                input.port.name
            ));
        }
        destinations(&mut out, &field, input, route);
        effects(&mut out, &field, input, route);
        if route.matches.is_empty() && i + 1 < router.routes.len() {
            out.add(Class::Doubtful, &field, "Unreachable", format!(
                "matches everything, so that the {} routes after it are never used: move it to the end, or give it a match",
                router.routes.len() - i - 1
            ));
        }
    }
    out
}

fn destinations(out: &mut Diagnostics<'_>, field: &str, input: &ServicePortInput, route: &Route) {
    let field = format!("{field}.route");
    if route.destinations.is_empty() {
        out.invalid(
            &field,
            "NoDestination",
            "the route leads nowhere: add a destination",
        );
    }
    let total = route
        .destinations
        .iter()
        .try_fold(0_u32, |sum, d| sum.checked_add(d.weight));
    if route.destinations.len() > 1 && total.is_none_or(|t| t == 0) {
        out.invalid(&field, "InvalidWeight", "the weights must have a sum from 1 to 4294967295: with several destinations give each its share, for example 90 and 10");
    }
    for (i, d) in route.destinations.iter().enumerate() {
        destination(
            out,
            &format!("{field}[{i}].destination"),
            input,
            &d.destination,
        );
    }
}

/// A destination, as it is written and whether it is there.
fn destination(out: &mut Diagnostics<'_>, field: &str, input: &ServicePortInput, to: &Destination) {
    if !values::is_host(&to.host) {
        out.invalid(
            format!("{field}.host"),
            "InvalidHost",
            format!(
                "\"{}\" is not a full DNS name: write for example reviews.shop.svc.cluster.local",
                to.host
            ),
        );
        return;
    }
    if !to.subset.is_empty() && !values::is_label(&to.subset) {
        out.invalid(
            format!("{field}.subset"),
            "InvalidSubset",
            format!(
                "\"{}\" is not a DNS label: use lower case letters, digits and -",
                to.subset
            ),
        );
        return;
    }
    if to.port == Some(0) {
        out.invalid(
            format!("{field}.port.number"),
            "InvalidPort",
            "must be from 1 to 65535",
        );
        return;
    }
    reference(out, field, input, to);
}

/// Whether a destination is there.
fn reference(out: &mut Diagnostics<'_>, field: &str, input: &ServicePortInput, to: &Destination) {
    let Some(facts) = input.hosts.get(&to.host) else {
        out.add(
            Class::Reference,
            format!("{field}.host"),
            "UnknownHost",
            format!(
                "no Service or ServiceEntry has the host \"{}\": create it, or correct the name",
                to.host
            ),
        );
        return;
    };
    let port = to.port.unwrap_or(input.port.number);
    if !facts.ports.contains_key(&port) {
        let known: Vec<String> = facts.ports.keys().map(u16::to_string).collect();
        out.add(
            Class::Reference,
            format!("{field}.port.number"),
            "UnknownPort",
            format!(
                "{} has no port {port}: it has {}",
                to.host,
                known.join(", ")
            ),
        );
    }
    if !to.subset.is_empty() && !facts.subsets.contains_key(&to.subset) {
        out.add(
            Class::Reference,
            format!("{field}.subset"),
            "UnknownSubset",
            format!(
                "no DestinationRule of {} has the subset \"{}\": create it, or correct the name{}",
                to.host,
                to.subset,
                misread(facts.misread.iter().next(), &to.host)
            ),
        );
    }
}

/// A hint about a DestinationRule with a host that Istio reads otherwise than was meant.
fn misread(written: Option<&String>, host: &str) -> String {
    written.map_or_else(String::new, |written| {
        format!("; Istio takes the host \"{written}\" of a DestinationRule as it is: write {host}")
    })
}

fn effects(out: &mut Diagnostics<'_>, field: &str, input: &ServicePortInput, route: &Route) {
    if let Some(mirror) = &route.mirror {
        destination(out, &format!("{field}.mirror"), input, &mirror.destination);
        // Less than a millionth cannot be expressed to proxies.
        if !(mirror.percent >= 0.0001 && mirror.percent <= 100.0) {
            out.invalid(
                format!("{field}.mirrorPercentage.value"),
                "InvalidPercentage",
                format!(
                    "{} is not a percentage: write a number from 0.0001 to 100, or remove mirror",
                    mirror.percent
                ),
            );
        }
    }
    values::mutations(
        out,
        &format!("{field}.requestMutation"),
        &route.request_mutation,
    );
    values::mutations(
        out,
        &format!("{field}.responseMutation"),
        &route.response_mutation,
    );
    if let Some(timeout) = &route.timeout {
        values::span(out, &format!("{field}.timeout"), timeout, Duration::ZERO);
    }
    if let Some(retries) = &route.retries
        && !(1..=MOST_RETRIES).contains(&retries.attempts)
    {
        out.invalid(
            format!("{field}.retries.attempts"),
            "InvalidRetries",
            format!(
                "{} attempts: write a number from 1 to {MOST_RETRIES}",
                retries.attempts
            ),
        );
    }
}

/// `exportTo`.
pub(super) fn exports<'a>(object: &'a str, router: &Router) -> Diagnostics<'a> {
    let mut out = Diagnostics::new(object);
    let mut seen = BTreeSet::new();
    for (i, to) in router.export_to.iter().enumerate() {
        let field = format!("spec.exportTo[{i}]");
        let name = if to == "." {
            &router.owner.namespace
        } else {
            to
        };
        if (to == "*" || to == "~") && router.export_to.len() > 1 {
            out.invalid(
                &field,
                "InvalidExport",
                format!("\"{to}\" must stand alone: remove the other entries"),
            );
        } else if !["*", "~", "."].contains(&to.as_str()) && !values::is_label(to) {
            out.invalid(
                &field,
                "InvalidExport",
                format!("\"{to}\" is not a namespace: write a name, \".\", \"*\" or \"~\""),
            );
        } else if !seen.insert(name) {
            out.invalid(
                &field,
                "InvalidExport",
                format!("{name} is named twice: remove one of the two"),
            );
        }
    }
    out
}

/// Namespaces of `exportTo` that take no objects for services of others.
pub(super) fn closed<'a>(
    object: &'a str,
    input: &ServicePortInput,
    router: &Router,
) -> Diagnostics<'a> {
    let mut out = Diagnostics::new(object);
    let named = router.export_to.iter().enumerate();
    for (i, to) in named.filter(|(_, to)| input.closed.contains(*to)) {
        let fix = if *to == input.settings.root_namespace {
            "write \"*\" for all namespaces"
        } else {
            "remove the entry"
        };
        out.invalid(format!("spec.exportTo[{i}]"), "NamespaceClosed", format!(
            "namespace {to} takes no objects for services of other namespaces, and the rest is applied without it: {fix}, or open it by its label {ACCEPT_OBJECTS_LABEL} and metaprotocol.closedNamespaces"
        ));
    }
    out
}
