//! Rules of `target`: which routes and virtual hosts are patched.
//!
//! Names of virtual hosts and routes are istiod's: `inbound|http|<port of the Service>` with route `default`, and
//! `<host>:<port>` on the outbound side.

use trimtab_crds::limiter::{Descriptor, LimiterSpec, Target};
use trimtab_kit::envoyfilter::{PatchContext, RoutePlace};
use trimtab_kit::problem::Problem;

use super::Scope;
use crate::input::ServicePort;

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
    if known.is_empty() || known.iter().any(|p| p.port == port) {
        return Ok(vec![port]);
    }
    let mut leading: Vec<u16> = known
        .iter()
        .filter(|p| p.target == Some(port))
        .map(|p| p.port)
        .collect();
    leading.dedup();
    if !leading.is_empty() {
        return Ok(leading);
    }
    if known.iter().any(|p| p.target.is_none()) {
        return Ok(vec![port]);
    }
    let owner = scope.owner;
    Err(Problem::of_field(
        format!("{path}.port"),
        "InvalidTarget",
        format!(
            "Service {}/{} has no port {port}: use {}, or leave port out for all ports",
            owner.namespace,
            owner.name,
            choices(known)
        ),
    ))
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
            Ok(RoutePlace {
                context,
                vhost: virtual_host(host, port, &field)?,
                route: None,
            })
        })
        .collect()
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
