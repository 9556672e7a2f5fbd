//! Aeraki's data plane: the MetaProtocolProxy filter in EnvoyFilters, and routes in the HTTP carrier.
//!
//! Shapes and names are those that Aeraki's proxies and users know.

mod filter;
mod limits;
mod log;
mod routes;

use serde_json::{Value, json};
use trimtab_kit::problem::Problem;

use super::objects::{Objects, Operation, metadata};
use crate::input::{Delivery, GatewayBinding};
use crate::output::{Program, Refusal, Translation};
use crate::validate::Plan;

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    let mut out = Translation::default();
    if plan.unusable {
        return out;
    }
    let objects = Objects::new(plan, Operation::Replace);
    let outbound = filter::outbound(plan);
    out.envoy_filters = objects.outbound(&outbound);
    out.envoy_filters
        .extend(objects.inbound(|port| filter::inbound(plan, port)));
    for gateway in &plan.input.gateways {
        if let Some(other) = &gateway.taken_by {
            out.refusals.push(taken(plan, gateway, other));
            continue;
        }
        let filter = filter::gateway(plan);
        out.envoy_filters.push(objects.gateway(gateway, &filter));
        out.virtual_services.push(virtual_service(plan, gateway));
    }
    if !plan.retained {
        out.resources.push(routes::resource(plan));
    }
    out.programs.push(Program {
        target: plan.target,
        delivery: Delivery::RouteDiscovery,
    });
    out
}

/// Makes istiod build the gateway's listener.
pub(super) fn virtual_service(plan: &Plan<'_>, gateway: &GatewayBinding) -> Value {
    let input = plan.input;
    let name = format!(
        "aeraki-vs-{}.{}-{}",
        gateway.namespace, gateway.name, gateway.port
    );
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(plan, &name, &gateway.namespace),
        "spec": {
            "hosts": [input.host],
            "gateways": [format!("{}/{}", gateway.namespace, gateway.name)],
            "tcp": [{
                "match": [{"port": gateway.port}],
                "route": [{"destination": {"host": input.host, "port": {"number": input.port.number}}}],
            }],
        },
    })
}

/// The refusal of a gateway's port that another host has.
pub(super) fn taken(plan: &Plan<'_>, gateway: &GatewayBinding, other: &str) -> Refusal {
    let object = plan
        .router
        .as_ref()
        .map_or_else(|| plan.input.object(), |r| r.owner.to_string());
    let problem = Problem::new(
        object,
        "spec.gateways",
        "Conflict",
        format!(
            "port {} of Gateway {}/{} already leads to {other}, and a TCP port leads to one host: add a server with another port to the Gateway",
            gateway.port, gateway.namespace, gateway.name
        ),
    );
    Refusal::mistake(problem, false)
}
