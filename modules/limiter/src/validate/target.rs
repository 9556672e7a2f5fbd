//! Rules of `target`: which routes and virtual hosts are patched.
//!
//! Names of virtual hosts and routes are istiod's: `inbound|http|<port of the Service>` with route `default`, and
//! `<host>:<port>` on the outbound side.

use std::collections::BTreeSet;

use trimtab_crds::limiter::{Descriptor, LimiterSpec, Target};
use trimtab_kit::envoyfilter::{PatchContext, RoutePlace};
use trimtab_kit::problem::Problem;

use super::Scope;
use crate::input::{Opaque, ServicePort};

/// Ports that a refusal lists.
const LISTED: usize = 8;

pub(super) fn check(
    scope: Scope<'_>,
    d: &Descriptor,
    path: &str,
) -> Result<Vec<RoutePlace>, Problem> {
    let spec = scope.spec;
    let (target, path) = match (&d.target, &spec.target) {
        (Some(own), _) => (own.clone(), format!("{path}.target")),
        (None, Some(shared)) => (shared.clone(), "spec.target".to_owned()),
        (None, None) => (Target::default(), format!("{path}.target")),
    };
    let number = target.port.unwrap_or(0);
    let Ok(port) = u16::try_from(number) else {
        return Err(Problem::of_field(
            format!("{path}.port"),
            "InvalidTarget",
            format!("{number} is no port: use 1 to 65535, or 0 for all inbound ports"),
        ));
    };
    match target.direction.as_deref() {
        None | Some("" | "inbound") => inbound(scope, port, &path),
        Some("outbound") => outbound(spec, &target, port, &path),
        Some(other) => Err(Problem::of_field(
            format!("{path}.direction"),
            "InvalidTarget",
            format!("\"{other}\" is no direction: use inbound or outbound"),
        )),
    }
}

fn inbound(scope: Scope<'_>, port: u16, path: &str) -> Result<Vec<RoutePlace>, Problem> {
    if scope.spec.gateway {
        return Err(Problem::of_field(
            format!("{path}.direction"),
            "InvalidTarget",
            "a gateway has no inbound side: set direction: outbound with route or host",
        ));
    }
    let place = |vhost| RoutePlace {
        context: PatchContext::SidecarInbound,
        vhost,
        route: Some("default".to_owned()),
    };
    if port == 0 {
        requests_seen(scope, scope.ports.iter(), &format!("{path}.port"))?;
        return Ok(vec![place(None)]);
    }
    let ports = service_ports(scope, port, path)?;
    let named = |port: &u16| place(Some(format!("inbound|http|{port}")));
    Ok(ports.iter().map(named).collect())
}

/// The Service ports that `port` stands for: itself, or those that lead to it when it is the workload's.
///
/// `port` stays as it is where the ports are not known, or where one has a named target that may be it.
fn service_ports(scope: Scope<'_>, port: u16, path: &str) -> Result<Vec<u16>, Problem> {
    let known = scope.ports;
    if known.is_empty() {
        return Ok(vec![port]);
    }
    let field = format!("{path}.port");
    let own = known.iter().filter(|p| p.port == port);
    if own.clone().next().is_some() {
        requests_seen(scope, own, &field)?;
        return Ok(vec![port]);
    }
    let leading = known.iter().filter(|p| p.target == Some(port));
    if leading.clone().next().is_some() {
        requests_seen(scope, leading.clone(), &field)?;
        let leading = leading.filter(|p| p.opaque.is_none());
        let mut leading: Vec<u16> = leading.map(|p| p.port).collect();
        leading.dedup();
        return Ok(leading);
    }
    if known.iter().any(|p| p.target.is_none()) {
        return Ok(vec![port]);
    }
    let owner = scope.owner;
    Err(Problem::of_field(
        field,
        "InvalidTarget",
        format!(
            "Service {}/{} has no port {port}: use {}, or leave port out for all ports",
            owner.namespace,
            owner.name,
            choices(known)
        ),
    ))
}

/// Refuses ports of which none carries HTTP: no proxy sees a request there. Ports that are not known are taken, and those of
/// protocols that MetaRouters route, whose proxies have filters of their own: the condition Programmed tells of them.
fn requests_seen<'a>(
    scope: Scope<'_>,
    ports: impl Iterator<Item = &'a ServicePort>,
    field: &str,
) -> Result<(), Problem> {
    let mut said: Vec<String> = Vec::new();
    for port in ports {
        let Some(opaque) = port.opaque.filter(|o| *o != Opaque::Layer7) else {
            return Ok(());
        };
        said.push(format!("{} carries {}", port.port, opaque.title()));
    }
    if said.is_empty() {
        return Ok(());
    }
    said.truncate(LISTED);
    let owner = scope.owner;
    Err(Problem::of_field(
        field,
        "PortNotHTTP",
        format!(
            "proxies see no requests here: of Service {}/{}, port {}; if it is HTTP, name the port http-... or set its appProtocol to http",
            owner.namespace,
            owner.name,
            said.join(", ")
        ),
    ))
}

/// Names of the outbound virtual hosts of all descriptors; those that are refused are left out.
pub(crate) fn virtual_hosts(spec: &LimiterSpec) -> BTreeSet<String> {
    let own = spec
        .sets
        .values()
        .flatten()
        .filter_map(|d| d.target.as_ref());
    let targets = own.chain(&spec.target).filter(|t| t.is_outbound());
    let mut out = BTreeSet::new();
    for target in targets {
        let port = u16::try_from(target.port.unwrap_or(0)).unwrap_or(0);
        let hosts = target
            .route
            .iter()
            .filter_map(|route| route.split('/').next());
        let hosts: Vec<&str> = if target.route.is_empty() {
            target.host.iter().map(String::as_str).collect()
        } else {
            hosts.collect()
        };
        let names = hosts
            .into_iter()
            .filter_map(|host| virtual_host(host, port, "").ok().flatten());
        out.extend(names);
    }
    out
}

fn choices(ports: &[ServicePort]) -> String {
    let mut out: Vec<String> = ports
        .iter()
        .take(LISTED)
        .map(|p| match p.target {
            Some(target) if target != p.port => format!("{} (workload port {target})", p.port),
            _ => p.port.to_string(),
        })
        .collect();
    if let Some(more) = ports.len().checked_sub(LISTED).filter(|more| *more > 0) {
        out.push(format!("{more} others"));
    }
    out.join(" or ")
}

fn outbound(
    spec: &LimiterSpec,
    target: &Target,
    port: u16,
    path: &str,
) -> Result<Vec<RoutePlace>, Problem> {
    let context = if spec.gateway {
        PatchContext::Gateway
    } else {
        PatchContext::SidecarOutbound
    };
    if !target.route.is_empty() {
        return target
            .route
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let field = format!("{path}.route[{i}]");
                let parts: Vec<&str> = text.split('/').collect();
                match parts.as_slice() {
                    [host, route] if !route.is_empty() => Ok(RoutePlace {
                        context,
                        vhost: virtual_host(host, port, &field)?,
                        route: Some((*route).to_owned()),
                    }),
                    _ => Err(Problem::of_field(
                        field,
                        "InvalidTarget",
                        format!("\"{text}\" is not <virtual host>/<route name>: write one / and a route name behind it"),
                    )),
                }
            })
            .collect();
    }
    if target.host.is_empty() {
        return Err(Problem::of_field(
            path,
            "InvalidTarget",
            "an outbound target needs route or host: add route: [\"<virtual host>/<route name>\"] or host: [\"<virtual host>\"]",
        ));
    }
    target
        .host
        .iter()
        .enumerate()
        .map(|(i, host)| {
            let field = format!("{path}.host[{i}]");
            if host.is_empty() {
                return Err(Problem::of_field(
                    field,
                    "InvalidTarget",
                    "a host is empty: write the virtual host's name",
                ));
            }
            no_url(host, &field)?;
            Ok(RoutePlace {
                context,
                vhost: virtual_host(host, port, &field)?,
                route: None,
            })
        })
        .collect()
}

/// The name of a virtual host is never a URL.
fn no_url(host: &str, field: &str) -> Result<(), Problem> {
    if !host.contains(['/', '?', '#', '@']) && !host.contains(char::is_whitespace) {
        return Ok(());
    }
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest);
    let bare = bare
        .trim()
        .split(['/', '?', '#'])
        .next()
        .unwrap_or_default();
    Err(Problem::of_field(
        field,
        "InvalidTarget",
        format!(
            "\"{host}\" is no virtual host: write <host>:<port>, for example \"{}\"",
            if bare.contains(':') {
                bare.to_owned()
            } else {
                format!("{bare}:80")
            }
        ),
    ))
}

/// The virtual host's name, `<host>:<port>` when a port is given in either way; none for every virtual host.
fn virtual_host(name: &str, port: u16, field: &str) -> Result<Option<String>, Problem> {
    let written = name
        .rsplit_once(':')
        .map(|(_, digits)| digits)
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    match (name, port, written) {
        ("", 0, _) => Ok(None),
        (name, 0, _) => Ok(Some(name.to_owned())),
        (name, port, None) => Ok(Some(format!("{name}:{port}"))),
        (name, port, Some(digits)) if digits.parse() == Ok(port) => Ok(Some(name.to_owned())),
        (name, port, Some(digits)) => Err(Problem::of_field(
            field,
            "InvalidTarget",
            format!(
                "\"{name}\" ends in port {digits} and target.port is {port}: leave one of the two out"
            ),
        )),
    }
}
