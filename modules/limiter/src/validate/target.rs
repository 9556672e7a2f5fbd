//! Rules of `target`: which routes and virtual hosts are patched.
//!
//! Names of virtual hosts and routes are istiod's: `inbound|http|<port>` with route `default`, and
//! `<host>:<port>` on the outbound side.

use trimtab_crds::limiter::{Descriptor, LimiterSpec, Target};
use trimtab_kit::envoyfilter::{PatchContext, RoutePlace};

use crate::error::Problem;

pub(super) fn check(
    spec: &LimiterSpec,
    d: &Descriptor,
    path: &str,
) -> Result<Vec<RoutePlace>, Problem> {
    let (target, path) = match (&d.target, &spec.target) {
        (Some(own), _) => (own.clone(), format!("{path}.target")),
        (None, Some(shared)) => (shared.clone(), "spec.target".to_owned()),
        (None, None) => (Target::default(), format!("{path}.target")),
    };
    let port = target.port.unwrap_or(0);
    if !(0..=65535).contains(&port) {
        return Err(Problem::new(
            format!("{path}.port"),
            "InvalidTarget",
            format!("{port} is no port: use 1 to 65535, or 0 for all inbound ports"),
        ));
    }
    match target.direction.as_deref() {
        None | Some("" | "inbound") => inbound(spec, port, &path),
        Some("outbound") => outbound(spec, &target, port, &path),
        Some(other) => Err(Problem::new(
            format!("{path}.direction"),
            "InvalidTarget",
            format!("\"{other}\" is no direction: use inbound or outbound"),
        )),
    }
}

fn inbound(spec: &LimiterSpec, port: i32, path: &str) -> Result<Vec<RoutePlace>, Problem> {
    if spec.gateway {
        return Err(Problem::new(
            format!("{path}.direction"),
            "InvalidTarget",
            "a gateway has no inbound side: set direction: outbound with route or host",
        ));
    }
    Ok(vec![RoutePlace {
        context: PatchContext::SidecarInbound,
        vhost: (port != 0).then(|| format!("inbound|http|{port}")),
        route: Some("default".to_owned()),
    }])
}

fn outbound(
    spec: &LimiterSpec,
    target: &Target,
    port: i32,
    path: &str,
) -> Result<Vec<RoutePlace>, Problem> {
    let context = if spec.gateway {
        PatchContext::Gateway
    } else {
        PatchContext::SidecarOutbound
    };
    let vhost = |name: &str| -> Option<String> {
        match (name, port) {
            ("", 0) => None,
            (name, 0) => Some(name.to_owned()),
            (name, port) => Some(format!("{name}:{port}")),
        }
    };
    if !target.route.is_empty() {
        return target
            .route
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let parts: Vec<&str> = text.split('/').collect();
                match parts.as_slice() {
                    [host, route] if !route.is_empty() => Ok(RoutePlace {
                        context,
                        vhost: vhost(host),
                        route: Some((*route).to_owned()),
                    }),
                    _ => Err(Problem::new(
                        format!("{path}.route[{i}]"),
                        "InvalidTarget",
                        format!("\"{text}\" is not <virtual host>/<route name>: write one / and a route name behind it"),
                    )),
                }
            })
            .collect();
    }
    if target.host.is_empty() {
        return Err(Problem::new(
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
            if host.is_empty() {
                return Err(Problem::new(
                    format!("{path}.host[{i}]"),
                    "InvalidTarget",
                    "a host is empty: write the virtual host's name",
                ));
            }
            Ok(RoutePlace {
                context,
                vhost: vhost(host),
                route: None,
            })
        })
        .collect()
}
