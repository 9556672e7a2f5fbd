//! The MetaProtocolProxy filter, in protobuf's JSON form with lowerCamelCase names.

use serde_json::{Map, Value, json};
use trimtab_kit::envoyfilter::typed_struct;

use super::{limits, log};
use crate::input::{Protocol, inbound_cluster};
use crate::proto;
use crate::validate::Plan;

/// The caller's side.
pub(super) fn outbound(plan: &Plan<'_>) -> Value {
    build(
        plan,
        &plan.input.own_cluster(),
        &discovered(plan),
        Vec::new(),
    )
}

/// A gateway. The limits of a service are held by its own sidecars; a service without any is limited here.
pub(super) fn gateway(plan: &Plan<'_>) -> Value {
    let limits = if plan.input.workload_selector.is_empty() {
        limits::filters(plan)
    } else {
        Vec::new()
    };
    build(plan, &plan.input.own_cluster(), &discovered(plan), limits)
}

/// The service's side, for one port on its pods.
pub(super) fn inbound(plan: &Plan<'_>, port: u16) -> Value {
    let cluster = inbound_cluster(port);
    let routes = (
        "routeConfig",
        json!({"name": cluster, "routes": [{"route": {"cluster": cluster}}]}),
    );
    build(plan, &cluster, &routes, limits::filters(plan))
}

/// Routes over the wire, from the static cluster of Aeraki's bootstrap.
fn discovered(plan: &Plan<'_>) -> (&'static str, Value) {
    let source = json!({
        "resourceApiVersion": "V3",
        "apiConfigSource": {
            "apiType": "GRPC",
            "transportApiVersion": "V3",
            "grpcServices": [{"envoyGrpc": {"clusterName": plan.input.settings.aeraki_xds_cluster}}],
        },
    });
    (
        "rds",
        json!({"routeConfigName": plan.input.route_name(), "configSource": source}),
    )
}

fn build(plan: &Plan<'_>, stat_prefix: &str, routes: &(&str, Value), limits: Vec<Value>) -> Value {
    let settings = &plan.input.settings;
    let mut value = Map::new();
    value.insert("statPrefix".into(), json!(stat_prefix));
    if let Protocol::MetaProtocol {
        application_protocol,
        codec,
        multiplexing,
    } = &plan.input.protocol
    {
        let codec = json!({"name": codec});
        value.insert("applicationProtocol".into(), json!(application_protocol));
        if *multiplexing {
            let protocol =
                json!({"name": application_protocol, "codec": codec, "multiplexing": true});
            value.insert("protocol".into(), protocol);
        }
        value.insert("codec".into(), codec);
    }
    value.insert(routes.0.into(), routes.1.clone());
    let mut filters = limits;
    filters.extend([
        json!({"name": "aeraki.meta_protocol.filters.metadata_exchange"}),
        json!({
            "name": "aeraki.meta_protocol.filters.istio_stats",
            "config": {"@type": proto::ISTIO_STATS, "destinationService": plan.input.host},
        }),
        json!({"name": "aeraki.meta_protocol.filters.router"}),
    ]);
    value.insert("metaProtocolFilters".into(), json!(filters));
    if let Some(access_log) = &settings.access_log {
        value.insert("accessLog".into(), json!([log::file(access_log)]));
    }
    if let Some(tracing) = settings.tracing {
        let tracing = json!({
            "clientSampling": {"value": 100.0},
            "randomSampling": {"value": tracing.sampling},
            "overallSampling": {"value": 100.0},
        });
        value.insert("tracing".into(), tracing);
    }
    if let Some(idle) = settings.idle_timeout {
        value.insert("idleTimeout".into(), json!(idle.to_proto_json()));
    }
    json!({
        "name": proto::FILTER,
        "typed_config": typed_struct(proto::META_PROTOCOL_PROXY, &Value::Object(value)),
    })
}
