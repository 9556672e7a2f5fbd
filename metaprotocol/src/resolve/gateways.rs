//! Which servers of gateways lead to which service port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::istio::{Gateway, Server};
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::Identity;
use trimtab_mesh::names::covers;

use super::Mesh;
use super::ports::{Registry, protocol};
use crate::input::{GatewayBinding, Protocol, Router, ServicePortInput};

/// Binds the inputs to the gateways that their routers name.
///
/// A server with a port of the service's protocol leads to the service port with its number; else to the port that the
/// router's destinations name by that number, as in Aeraki; else to the only port with that protocol. A TCP port of a
/// gateway leads to one host: the one whose router is oldest. The `hosts` of a server bind: it leads to none that it does not
/// take.
pub(super) fn bind(mesh: &Mesh, inputs: &mut [ServicePortInput], problems: &mut Vec<Problem>) {
    let gateways: BTreeMap<String, &Arc<Gateway>> = mesh
        .gateways
        .iter()
        .map(|g| {
            (
                format!("{}/{}", g.namespace().unwrap_or_default(), g.name_any()),
                g,
            )
        })
        .collect();
    let hosts = by_age(mesh, inputs);
    let registry = mesh.registry();
    let mut taken: BTreeMap<(String, u16), String> = BTreeMap::new();
    for list in hosts {
        let Some(router) = inputs[list[0]].router.clone() else {
            continue;
        };
        for name in &router.gateways {
            let Some(gateway) = gateways.get(name) else {
                problems.push(Problem::new(
                    &router.owner,
                    "spec.gateways",
                    "GatewayNotFound",
                    format!("there is no Gateway {name}: create it, or correct the name"),
                ));
                continue;
            };
            let host = &inputs[list[0]];
            let (host, namespace) = (host.host.clone(), host.namespace.clone());
            let accepts = |s: &&Server| takes(s, gateway, &host, &namespace);
            let bound = bind_one(
                gateway, &router, &registry, &list, inputs, &mut taken, &accepts,
            );
            for server in bound.refused {
                problems.push(Problem::new(&router.owner, "spec.gateways", "NotOwner", format!(
                    "server {} of Gateway {name} takes {}, and {host} is of namespace {namespace}: have {namespace}/{host} added to the server's hosts, or use another Gateway",
                    server.port.number, taken_hosts(server, gateway)
                )));
            }
            if !bound.any {
                problems.push(Problem::new(&router.owner, "spec.gateways", "NoServer", format!(
                    "Gateway {name} has no server for a port of {}: add one whose port is named like the service's, for example {}",
                    inputs[list[0]].host, inputs[list[0]].port.name
                )));
            }
        }
    }
}

/// Inputs by host, those with the oldest router first.
fn by_age(mesh: &Mesh, inputs: &[ServicePortInput]) -> Vec<Vec<usize>> {
    let ages: BTreeMap<(String, String), _> = mesh
        .routers
        .iter()
        .map(|r| {
            (
                (r.namespace().unwrap_or_default(), r.name_any()),
                Identity::of(r.as_ref()).age(),
            )
        })
        .collect();
    // Inputs of one host are neighbours.
    let mut hosts: Vec<Vec<usize>> = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        match hosts.last_mut() {
            Some(list) if inputs[list[0]].host == input.host => list.push(i),
            _ => hosts.push(vec![i]),
        }
    }
    hosts.sort_by_key(|list| {
        let router = inputs[list[0]].router.as_ref();
        let key = router.map(|r| (r.owner.namespace.clone(), r.owner.name.clone()));
        key.and_then(|k| ages.get(&k).cloned())
    });
    hosts
}

/// What came of one gateway.
#[derive(Default)]
struct Bound<'a> {
    /// Whether a server fits, also one that does not take the host.
    any: bool,
    /// Servers that do not take the host.
    refused: Vec<&'a Server>,
}

/// Whether a server takes a host of a namespace: one of its `hosts` does, `namespace/name` or `name`, as istiod reads them. A
/// server without any cannot pass Istio's validation; it takes all.
fn takes(server: &Server, gateway: &Gateway, host: &str, namespace: &str) -> bool {
    let own = gateway.namespace().unwrap_or_default();
    let fits = |written: &String| {
        let (of, name) = written.split_once('/').unwrap_or(("*", written));
        let of_namespace = match of {
            "*" => true,
            "." => namespace == own,
            other => namespace == other,
        };
        let name = name.to_ascii_lowercase();
        let named = name == "*" || name == host || covers(&name, host) || covers(host, &name);
        of_namespace && named
    };
    server.hosts.is_empty() || server.hosts.iter().any(fits)
}

/// What a server takes, in words.
fn taken_hosts(server: &Server, gateway: &Gateway) -> String {
    let own = gateway.namespace().unwrap_or_default();
    let namespaces: BTreeSet<&str> = server
        .hosts
        .iter()
        .filter_map(|h| Some(h.split_once('/')?.0))
        .map(|of| if of == "." { own.as_str() } else { of })
        .collect();
    let all: Vec<&str> = server.hosts.iter().map(String::as_str).collect();
    let all = all.join(", ");
    let each = server.hosts.iter().all(|h| h.contains('/'));
    let some = each && !namespaces.contains("*");
    if some {
        let namespaces: Vec<&str> = namespaces.into_iter().collect();
        format!("hosts of {} only ({all})", namespaces.join(", "))
    } else {
        format!("{all} only")
    }
}

fn bind_one<'g>(
    gateway: &'g Gateway,
    router: &Router,
    registry: &Registry,
    ports: &[usize],
    inputs: &mut [ServicePortInput],
    taken: &mut BTreeMap<(String, u16), String>,
    accepts: &dyn Fn(&&Server) -> bool,
) -> Bound<'g> {
    let mut bound = Bound::default();
    let name = format!(
        "{}/{}",
        gateway.namespace().unwrap_or_default(),
        gateway.name_any()
    );
    for server in &gateway.spec.servers {
        let Ok(number) = u16::try_from(server.port.number) else {
            continue;
        };
        let Some(spoken) = protocol(&server.port.name, None, registry) else {
            continue;
        };
        let Some(index) = leads_to(number, &spoken, router, ports, inputs) else {
            continue;
        };
        bound.any = true;
        if !accepts(&server) {
            bound.refused.push(server);
            continue;
        }
        let host = inputs[index].host.clone();
        let holder = taken
            .entry((name.clone(), number))
            .or_insert_with(|| host.clone());
        inputs[index].gateways.push(GatewayBinding {
            namespace: gateway.namespace().unwrap_or_default(),
            name: gateway.name_any(),
            selector: gateway.spec.selector.clone(),
            port: number,
            taken_by: (*holder != host).then(|| holder.clone()),
        });
    }
    bound
}

/// The input that a server leads to.
fn leads_to(
    number: u16,
    spoken: &Protocol,
    router: &Router,
    ports: &[usize],
    inputs: &[ServicePortInput],
) -> Option<usize> {
    let same: Vec<usize> = ports
        .iter()
        .copied()
        .filter(|i| inputs[*i].protocol == *spoken)
        .collect();
    let by_number = |wanted: u16| {
        same.iter()
            .copied()
            .find(|i| inputs[*i].port.number == wanted)
    };
    let named = router.routes.iter().flat_map(|r| &r.destinations);
    let aeraki = named
        .filter(|d| d.destination.port == Some(number))
        .find_map(|d| by_number(d.destination.port?));
    let only = (same.len() == 1).then(|| same[0]);
    by_number(number).or(aeraki).or(only)
}
