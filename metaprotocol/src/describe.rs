//! `trimtab describe metarouter`: what is made of a MetaRouter, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::engine::{HostView, RouterView};
use crate::explain::{Explanation, explain};

/// A MetaRouter, what is made of it, and which way a call with `attributes` takes.
pub fn text(view: &RouterView, attributes: &BTreeMap<String, String>) -> String {
    let mut out = format!("MetaRouter {}/{}\n", view.namespace, view.name);
    // A string takes whatever is written to it.
    let mut say = |line: String| {
        let _ = writeln!(out, "{line}");
    };
    match &view.host {
        None => say("  there is no host with a layer-7 port for it".to_owned()),
        Some(host) => {
            say(whose(host));
            if !view.in_force {
                let other = host.router.as_deref().unwrap_or("none");
                say(format!(
                    "  not in force: the MetaRouter of this host is {other}"
                ));
            }
            for port in &host.ports {
                say(format!(
                    "  port {} {}: {}",
                    port.number,
                    port.name,
                    port.programs.join(", ")
                ));
                for object in &port.objects {
                    say(format!("    object {object}"));
                }
                for resource in &port.resources {
                    say(format!(
                        "    resource {} version {}",
                        resource.name, resource.version
                    ));
                }
            }
            for problem in &host.problems {
                say(format!("  problem {problem}"));
            }
        }
    }
    for condition in view.status["conditions"].as_array().into_iter().flatten() {
        let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        let (kind, status) = (field("type"), field("status"));
        say(format!(
            "  {kind} {status} {}: {}",
            field("reason"),
            field("message")
        ));
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
