//! From a resolved input to objects and resources. Pure and total; the same input gives the same bytes.

mod aeraki;
mod dubbo;
mod generic;
mod kafka;
mod objects;
mod redis;
mod stock;
mod thrift;
mod zookeeper;

use trimtab_kit::problem::Problem;

use crate::features::{Target, support, wanted};
use crate::input::{DataPlane, Protocol, ServicePortInput};
use crate::output::{Refusal, Translation};
use crate::validate::{Plan, plan};

pub use objects::{HOST_ANNOTATION, LONGEST_NAME, MODULE, object_name};

/// Translates one service port for all data planes in use; nothing comes of a port that is not managed.
pub fn translate(input: &ServicePortInput) -> Translation {
    let mut out = Translation::default();
    if !input.managed() {
        return out;
    }
    let mut accepted = Vec::new();
    for target in targets(input, &mut out) {
        let plan = plan(input, target);
        let mut one = of_target(&plan);
        one.refusals.splice(0..0, plan.refusals.iter().cloned());
        one.retained |= plan.retained;
        accepted.push(plan.accepted);
        out.extend(one);
    }
    // Only what every data plane has taken is good to go back to.
    let all = accepted.iter().all(Option::is_some);
    let first = accepted.into_iter().next().flatten();
    out.in_force = match first {
        Some(router) if all => Some(router),
        _ if input.router.is_some() => input.last_good.as_deref().cloned(),
        _ => None,
    };
    out.sort();
    out
}

fn of_target(plan: &Plan<'_>) -> Translation {
    match plan.target {
        Target::AerakiDubbo | Target::AerakiThrift | Target::AerakiOther => aeraki::translate(plan),
        Target::ThriftProxy => thrift::translate(plan),
        Target::DubboProxy => dubbo::translate(plan),
        Target::GenericProxyDubbo => generic::translate(plan),
        Target::RedisProxy => redis::translate(plan),
        Target::ZookeeperProxy => zookeeper::translate(plan),
        Target::KafkaBroker => kafka::translate(plan),
    }
}

/// The filters to make: one for each data plane in use that has one for the protocol.
fn targets(input: &ServicePortInput, out: &mut Translation) -> Vec<Target> {
    let planes = &input.settings.data_planes;
    let aeraki = Target::of_aeraki(&input.protocol);
    if let Protocol::MetaProtocol { codec: None, .. } = &input.protocol {
        // Nobody knows the protocol: the plan of any filter says so.
        return aeraki.into_iter().collect();
    }
    let mut targets = Vec::new();
    if planes.contains(&DataPlane::Aeraki) {
        targets.extend(aeraki);
    }
    // Ports of Envoy's own protocols need Envoy's filters on either kind of proxy.
    if planes.contains(&DataPlane::Envoy) || aeraki.is_none() {
        match choose(input) {
            Ok(target) => targets.push(target),
            Err(problem) => {
                let refusal = Refusal::mistake(problem, targets.is_empty());
                out.refusals.push(refusal);
            }
        }
    }
    targets
}

/// The filter of stock Envoy that can do most of what the router asks for: first no route is lost, then least else.
fn choose(input: &ServicePortInput) -> Result<Target, Problem> {
    let known = Target::of_envoy(&input.protocol);
    let filters = &input.settings.capabilities.filters;
    let has = |t: &&Target| t.stock_filter().is_some_and(|f| filters.contains(&f));
    let uses = input
        .router
        .as_ref()
        .map(|r| wanted(input, r))
        .unwrap_or_default();
    let cost = |target: Target| -> (usize, usize) {
        let lost = uses.iter().filter(|u| !support(u.feature, target).usable());
        let (blocking, other): (Vec<_>, Vec<_>) = lost
            .partition(|u| u.feature.loss() == crate::features::UnsupportedEffect::BlocksRoutes);
        (blocking.len(), other.len())
    };
    let best = known.iter().filter(has).min_by_key(|t| cost(**t));
    best.copied().ok_or_else(|| no_filter(input, &known))
}

fn no_filter(input: &ServicePortInput, known: &[Target]) -> Problem {
    let field = format!("spec.ports[{}].name", input.port.name);
    let message = if known.is_empty() {
        "stock Envoy has no filter for this protocol: use proxies with Aeraki's MetaProtocol filter"
            .to_owned()
    } else {
        let names: Vec<&str> = known.iter().map(|t| t.title()).collect();
        format!(
            "the proxies have no {}: use a build with it, or name the port without the protocol",
            names.join(" and no ")
        )
    };
    Problem::new(input.object(), field, "FilterMissing", message)
}
