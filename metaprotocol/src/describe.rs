//! `trimtab describe`: what is made of MetaRouters, and of Redis and Dubbo objects, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use trimtab_kit::describe::{Words, conditions, holders};

use crate::engine::{HostView, ObjectView, PortView, RouterView};
use crate::explain::{Explanation, explain};

const WORDS: Words = Words {
    yes: "IN FORCE",
    partly: "PARTLY IN FORCE",
    no: "NOT IN FORCE",
};

/// A Redis or Dubbo object, what is made of it, and who has it.
pub fn object(view: &ObjectView) -> String {
    let ObjectView {
        kind,
        namespace,
        name,
        ..
    } = view;
    let mut out = view
        .verdict
        .text(&format!("{kind} {namespace}/{name}"), WORDS);
    // A string takes whatever is written to it.
    let _ = writeln!(out, "  configures:");
    for line in &view.configures {
        let _ = writeln!(out, "    {line}");
    }
    for used in &view.used_by {
        let _ = writeln!(out, "  host {}", used.host);
        port(&used.port, &mut out);
    }
    if view.proxies.is_empty() {
        out.push_str("  proxies: none asks Trimtab for it; istiod does not tell who accepts an EnvoyFilter (istioctl proxy-status)\n");
    } else {
        out.push_str(&holders(&view.proxies));
    }
    out.push_str(&conditions(&view.conditions));
    out
}

fn port(port: &PortView, out: &mut String) {
    let _ = writeln!(
        out,
        "  port {} {}: {}",
        port.number,
        port.name,
        port.programs.join(", ")
    );
    for object in &port.objects {
        let _ = writeln!(out, "    object {object}");
    }
    for resource in &port.resources {
        let _ = writeln!(
            out,
            "    resource {} version {}",
            resource.name, resource.version
        );
    }
}

/// A MetaRouter, what is made of it, and which way a call with `attributes` takes.
pub fn text(view: &RouterView, attributes: &BTreeMap<String, String>) -> String {
    let mut out = format!("MetaRouter {}/{}\n", view.namespace, view.name);
    // A string takes whatever is written to it.
    match &view.host {
        None => out.push_str("  there is no host with a layer-7 port for it\n"),
        Some(host) => {
            let _ = writeln!(out, "{}", whose(host));
            if !view.in_force {
                let other = host.router.as_deref().unwrap_or("none");
                let _ = writeln!(
                    out,
                    "  not in force: the MetaRouter of this host is {other}"
                );
            }
            for described in &host.ports {
                port(described, &mut out);
            }
            for problem in &host.problems {
                let _ = writeln!(out, "  problem {problem}");
            }
        }
    }
    for condition in view.status["conditions"].as_array().into_iter().flatten() {
        let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        let (kind, status) = (field("type"), field("status"));
        let _ = writeln!(
            out,
            "  {kind} {status} {}: {}",
            field("reason"),
            field("message")
        );
    }
    if attributes.is_empty() {
        return out;
    }
    for input in &view.inputs {
        let _ = write!(out, "\nA call to port {} with", input.port.number);
        for (name, value) in attributes {
            let _ = write!(out, " {name}={value}");
        }
        out.push('\n');
        way(&explain(input, view.routes.as_ref(), attributes), &mut out);
    }
    out
}

/// The host, and what it is of.
fn whose(host: &HostView) -> String {
    if host.name.is_empty() {
        return format!("  no Service or ServiceEntry has the host {}", host.host);
    }
    let HostView {
        host,
        kind,
        namespace,
        name,
        ..
    } = host;
    format!("  host {host} of {kind} {namespace}/{name}")
}

fn way(explanation: &Explanation, out: &mut String) {
    for step in &explanation.steps {
        let name = if step.name.is_empty() {
            String::new()
        } else {
            format!(" \"{}\"", step.name)
        };
        let outcome = step
            .missed
            .as_ref()
            .map_or_else(|| "takes it".to_owned(), |why| format!("not: {why}"));
        let _ = writeln!(out, "  routes[{}]{name}: {outcome}", step.route);
    }
    if explanation.clusters.is_empty() {
        out.push_str("  no route takes it: the proxy refuses it\n");
    }
    let total: u32 = explanation.clusters.iter().map(|(_, weight)| weight).sum();
    for (cluster, weight) in &explanation.clusters {
        let share = 100.0 * f64::from(*weight) / f64::from(total.max(1));
        let _ = writeln!(out, "  {share:.0}% to {cluster}");
    }
}
