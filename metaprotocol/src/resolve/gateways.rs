//! Which servers of gateways lead to which service port.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use trimtab_crds::istio::Gateway;
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::Identity;

use super::Mesh;
use super::ports::{Registry, protocol};
use crate::input::{GatewayBinding, Protocol, Router, ServicePortInput};

/// Binds the inputs to the gateways that their routers name.
///
/// A server with a port of the service's protocol leads to the service port with its number; else to the port that the
/// router's destinations name by that number, as in Aeraki; else to the only port with that protocol. A TCP port of a
/// gateway leads to one host: the one whose router is oldest.
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
    let registry = Registry::new(&mesh.protocols);
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
            let bound = bind_one(gateway, name, &router, &registry, &list, inputs, &mut taken);
            if !bound {
                problems.push(Problem::new(&router.owner, "spec.gateways", "NoServer", format!(
                    "Gateway {name} has no server for a port of {}: add one whose port is named like the service's, for example {}",
                    inputs[list[0]].host, inputs[list[0]].port.name
                )));
            }
        }
    }
}

fn bind_one(
    gateway: &Gateway,
    name: &str,
    router: &Router,
    registry: &Registry,
    ports: &[usize],
    inputs: &mut [ServicePortInput],
    taken: &mut BTreeMap<(String, u16), String>,
) -> bool {
    let mut bound = false;
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
        let host = inputs[index].host.clone();
        let holder = taken
            .entry((name.to_owned(), number))
            .or_insert_with(|| host.clone());
        inputs[index].gateways.push(GatewayBinding {
            namespace: gateway.namespace().unwrap_or_default(),
            name: gateway.name_any(),
            selector: gateway.spec.selector.clone(),
            port: number,
            taken_by: (*holder != host).then(|| holder.clone()),
        });
        bound = true;
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
