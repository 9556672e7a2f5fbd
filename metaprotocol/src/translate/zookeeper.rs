//! Envoy's ZooKeeper filter: it stands before the TCP proxy and counts requests.

use serde_json::{Value, json};
use trimtab_kit::envoyfilter::typed_struct;

use super::objects::{Objects, Operation};
use super::stock;
use crate::input::{Delivery, inbound_cluster};
use crate::output::{Program, Translation};
use crate::validate::Plan;

const FILTER: &str = "envoy.filters.network.zookeeper_proxy";
const ZOOKEEPER_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy";

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    counting(plan, FILTER, ZOOKEEPER_PROXY)
}

/// A filter that only counts.
pub(super) fn counting(plan: &Plan<'_>, name: &str, type_url: &str) -> Translation {
    let mut out = Translation::default();
    if plan.unusable {
        return out;
    }
    let filter = |stat_prefix: &str| -> Value {
        let config = typed_struct(type_url, &json!({"statPrefix": stat_prefix}));
        json!({"name": name, "typed_config": config})
    };
    let objects = Objects::new(plan, Operation::InsertBefore);
    out.envoy_filters = objects.outbound(&filter(&plan.input.own_cluster()));
    out.envoy_filters
        .extend(objects.inbound(|port| filter(&inbound_cluster(port))));
    out.programs.push(Program {
        target: plan.target,
        delivery: Delivery::Inline,
    });
    let why = "it counts requests only; use a VirtualService with TCP routes for this port";
    out.refusals.extend(stock::routes_not_used(plan, why));
    out
}
