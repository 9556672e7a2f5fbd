//! What all filters of stock Envoy share: how a filter's configuration and its routes reach proxies.
//!
//! | delivery | in the EnvoyFilter | over xDS | a change reaches |
//! |---|---|---|---|
//! | route discovery | the filter, with the `xdstp` name of its routes | the routes | the next call of every connection |
//! | ECDS | the filter's name, and what holds until the server answers | the filter | new connections |
//! | inline | everything | nothing | new connections, after the listener was drained |
//!
//! The inbound side holds no routes of users and is always inline.

mod log;
mod matching;
pub(super) mod names;
mod wire;

use serde_json::{Map, Value, json};
use trimtab_kit::envoyfilter::typed_struct;
use trimtab_kit::problem::Problem;

use super::aeraki::{taken, virtual_service};
use super::objects::{Objects, Operation, readers};
use crate::features::{Feature, Support, Target, support};
use crate::input::{DataPlane, Delivery, Destination, Protocol, Route, ServicePortInput};
use crate::output::{Program, Refusal, Translation, XdsResource};
use crate::validate::Plan;

pub(super) use log::{access_log, tracing};
pub(super) use matching::{header_matchers, string_matcher};

/// How long a proxy that starts waits for the server before it takes what the EnvoyFilter holds.
const FETCH_TIMEOUT: &str = "5s";

/// A filter of Envoy.
pub(super) struct Filter {
    /// Name in the chain.
    pub(super) name: &'static str,
    /// Type of its configuration.
    pub(super) type_url: &'static str,
    /// Whether its configuration may be changed over ECDS while connections use it.
    pub(super) ecds: bool,
    /// How it finds routes; `None`: they are a part of its configuration.
    pub(super) discovery: Option<Discovery>,
}

/// Route discovery of a filter.
pub(super) struct Discovery {
    /// Field that names discovered routes.
    pub(super) field: &'static str,
    /// Field of routes that stand in the configuration.
    pub(super) inline: &'static str,
    /// Type of the routes.
    pub(super) type_url: &'static str,
}

/// One side's configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// Everything but routes.
    pub(super) config: Map<String, Value>,
    /// The routes without their name; `None`: the filter has no route discovery.
    pub(super) routes: Option<Map<String, Value>>,
}

/// The sides of one port.
pub(super) struct Sides<'a> {
    /// Callers.
    pub(super) outbound: Side,
    /// Gateways, where it differs from callers.
    pub(super) gateway: Option<Side>,
    /// What callers do before the server has answered, with ECDS; `None`: they close connections.
    pub(super) fallback: Option<Side>,
    /// The service's own sidecars, by port on the pod; `None`: the TCP proxy stays.
    pub(super) inbound: Option<Box<dyn Fn(u16) -> Side + 'a>>,
}

/// Outputs of a filter that takes the place of the TCP proxy.
pub(super) fn frame(plan: &Plan<'_>, filter: &Filter, sides: &Sides<'_>) -> Translation {
    let mut out = Translation::default();
    if plan.retained || plan.unusable {
        return out;
    }
    let delivery = delivery(plan, filter);
    let objects = Objects::new(plan, Operation::Replace);
    let fallback = sides.fallback.as_ref();
    let deliver = |way: &str, side: &Side| deliver(plan, filter, delivery, way, side, fallback);
    let made = deliver("outbound", &sides.outbound).and_then(|outbound| {
        let gateway = sides.gateway.as_ref().map(|side| deliver("gateway", side));
        Ok((outbound, gateway.transpose()?))
    });
    let (outbound, gateway) = match made {
        Ok(made) => made,
        Err(refusal) => {
            out.refusals.push(refusal);
            out.retained = true;
            return out;
        }
    };
    out.envoy_filters = objects.outbound(&outbound.0);
    if let Some(inbound) = &sides.inbound {
        let one = |port| inline(plan, filter, &inbound(port));
        out.envoy_filters.extend(objects.inbound(one));
    }
    let at_gateways = gateway.as_ref().unwrap_or(&outbound);
    gateways(plan, &objects, &at_gateways.0, &mut out);
    let used = !plan.input.gateways.is_empty();
    out.resources.extend(outbound.1);
    out.resources
        .extend(gateway.filter(|_| used).and_then(|g| g.1));
    out.programs.push(Program {
        target: plan.target,
        delivery,
    });
    out.refusals.extend(multiplexing(plan));
    out
}

/// The best way that the proxies and the filter have.
fn delivery(plan: &Plan<'_>, filter: &Filter) -> Delivery {
    let settings = &plan.input.settings;
    let mut wanted = Vec::new();
    if filter.discovery.is_some() && !settings.xds_authority.is_empty() {
        wanted.push(Delivery::RouteDiscovery);
    }
    if filter.ecds {
        wanted.push(Delivery::Ecds);
    }
    if settings.xds.address.is_empty() {
        wanted.clear();
    }
    settings.capabilities.best(&wanted)
}

/// `{name, ...}` for the EnvoyFilter, and the resource for the server.
fn deliver(
    plan: &Plan<'_>,
    filter: &Filter,
    delivery: Delivery,
    way: &str,
    side: &Side,
    fallback: Option<&Side>,
) -> Result<(Value, Option<XdsResource>), Refusal> {
    let input = plan.input;
    match (delivery, &filter.discovery) {
        (Delivery::RouteDiscovery, Some(discovery)) => {
            let path = format!("{way}/{}", input.route_name().replace('*', "any"));
            let message = discovery.type_url.rsplit('/').next().unwrap_or_default();
            let name = format!("xdstp://{}/{message}/{path}", input.settings.xds_authority);
            let mut config = side.config.clone();
            let source = json!({"ads": {}, "resourceApiVersion": "V3"});
            config.insert(
                discovery.field.into(),
                json!({"configSource": source, "routeConfigName": name}),
            );
            let mut routes = side.routes.clone().unwrap_or_default();
            routes.insert("name".into(), json!(name));
            let routes = Value::Object(routes);
            let resource = resource(plan, discovery.type_url, name, &routes)?;
            let config = Value::Object(config);
            Ok((
                named(
                    filter.name,
                    "typed_config",
                    typed_struct(filter.type_url, &config),
                ),
                Some(resource),
            ))
        }
        (Delivery::Ecds, _) => {
            let short = filter.name.rsplit('.').next().unwrap_or_default();
            let name = format!("metaprotocol/{short}/{way}/{}", input.route_name());
            let config = full(plan, filter, side);
            let content = |config: &Value| json!({"name": name, "typedConfig": extension(filter.type_url, config)});
            let message = content(&config);
            let resource = resource(plan, names::ECDS, name.clone(), &message)?;
            let default = fallback.map(|side| full(plan, filter, side));
            Ok((
                named(&name, "config_discovery", discovered(plan, filter, default)),
                Some(resource),
            ))
        }
        _ => Ok((inline(plan, filter, side), None)),
    }
}

fn named(name: &str, field: &str, value: Value) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(name));
    out.insert(field.into(), value);
    Value::Object(out)
}

/// A filter with its configuration in it.
pub(super) fn inline(plan: &Plan<'_>, filter: &Filter, side: &Side) -> Value {
    let config = typed_struct(filter.type_url, &full(plan, filter, side));
    named(filter.name, "typed_config", config)
}

/// The configuration with its routes.
fn full(plan: &Plan<'_>, filter: &Filter, side: &Side) -> Value {
    let mut config = side.config.clone();
    if let (Some(discovery), Some(routes)) = (&filter.discovery, &side.routes) {
        let mut routes = routes.clone();
        routes
            .entry("name")
            .or_insert_with(|| json!(plan.input.route_name()));
        config.insert(discovery.inline.into(), Value::Object(routes));
    }
    Value::Object(config)
}

/// The TypedStruct in protobuf's JSON form, for the encoder.
fn extension(type_url: &str, config: &Value) -> Value {
    json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "typeUrl": type_url, "value": config})
}

/// Where the filter's configuration comes from.
fn discovered(plan: &Plan<'_>, filter: &Filter, default: Option<Value>) -> Value {
    let mut out = json!({
        "config_source": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": FETCH_TIMEOUT,
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [plan.input.settings.xds.grpc_service()],
            },
        },
        "type_urls": [filter.type_url],
    });
    if let Some(default) = default {
        out["default_config"] = typed_struct(filter.type_url, &default);
    }
    out
}

fn resource(
    plan: &Plan<'_>,
    type_url: &str,
    name: String,
    message: &Value,
) -> Result<XdsResource, Refusal> {
    let origin = plan
        .router
        .as_ref()
        .map_or_else(|| plan.input.host.clone(), |r| r.owner.to_string());
    let body = wire::encode(type_url, message).map_err(|why| {
        let text = format!("the configuration cannot be written as {type_url}: {why}; report this");
        let problem = Problem::new(plan.input.object(), port_field(plan), "NotEncodable", text);
        Refusal::mistake(problem, true)
    })?;
    Ok(XdsResource {
        type_url: type_url.to_owned(),
        name,
        canonical: message.to_string(),
        body,
        origin,
        readers: readers(plan),
    })
}

fn gateways(plan: &Plan<'_>, objects: &Objects<'_>, filter: &Value, out: &mut Translation) {
    // Where both data planes serve the port, the other one has made istiod's listener already.
    let made = plan.input.settings.data_planes.contains(&DataPlane::Aeraki)
        && Target::of_aeraki(&plan.input.protocol).is_some();
    for gateway in &plan.input.gateways {
        if let Some(other) = &gateway.taken_by {
            out.refusals.push(taken(plan, gateway, other));
            continue;
        }
        out.envoy_filters.push(objects.gateway(gateway, filter));
        if !made {
            out.virtual_services.push(virtual_service(plan, gateway));
        }
    }
}

/// The field of the user's Service that asks for the filter.
pub(super) fn port_field(plan: &Plan<'_>) -> String {
    format!("spec.ports[{}].name", plan.input.port.name)
}

/// A lack of the filter, in an object of the user.
pub(super) fn lacking(
    plan: &Plan<'_>,
    feature: Feature,
    object: &str,
    field: &str,
    effect: &str,
) -> Refusal {
    let (reason, fix) = match support(feature, plan.target) {
        Support::No { reason, fix } => (reason, fix),
        Support::Partly(only) => (only, "write it so, or remove the field"),
        _ => ("the protocol has nothing of the kind", "remove the field"),
    };
    let title = plan.target.title();
    let message = format!("{} on {title}: {reason}; {effect}: {fix}", feature.title());
    Refusal {
        target: Some(plan.target),
        feature: Some(feature),
        ..Refusal::mistake(Problem::new(object, field, "NotSupported", message), false)
    }
}

fn multiplexing(plan: &Plan<'_>) -> Option<Refusal> {
    let Protocol::MetaProtocol {
        multiplexing: true, ..
    } = plan.input.protocol
    else {
        return None;
    };
    let object = plan.input.object();
    let effect = "requests are sent as the filter does it";
    let field = port_field(plan);
    Some(lacking(
        plan,
        Feature::Multiplexing,
        &object,
        &field,
        effect,
    ))
}

/// The refusal of a MetaRouter's routes, where the filter takes routes from elsewhere or has none.
pub(super) fn routes_not_used(plan: &Plan<'_>, why: &str) -> Option<Refusal> {
    let router = plan.router.as_ref().filter(|r| !r.routes.is_empty())?;
    let title = plan.target.title();
    let problem = Problem::new(
        &router.owner,
        "spec.routes",
        "NotSupported",
        format!("{title} does not use them: {why}"),
    );
    Some(Refusal {
        target: Some(plan.target),
        ..Refusal::mistake(problem, true)
    })
}

/// The routes in force; without routes of a user, everything goes to the service itself.
pub(super) fn routes(plan: &Plan<'_>) -> Vec<Route> {
    match &plan.router {
        Some(router) if !router.routes.is_empty() => router.routes.clone(),
        _ => vec![own_route(plan.input)],
    }
}

/// Everything to the service itself.
pub(super) fn own_route(input: &ServicePortInput) -> Route {
    let mut own = crate::input::WeightedDestination::default();
    own.destination.host.clone_from(&input.host);
    Route {
        name: "default".to_owned(),
        destinations: vec![own],
        ..Route::default()
    }
}

/// Where a route leads.
pub(super) enum Clusters {
    One(String),
    Weighted(Vec<(String, u32)>),
}

/// The clusters of a route. Filters refuse the weight 0, which means that nothing goes there.
pub(super) fn clusters(input: &ServicePortInput, route: &Route) -> Clusters {
    let name = |to: &Destination| input.cluster(to);
    let used: Vec<_> = route
        .destinations
        .iter()
        .filter(|d| d.weight > 0 || route.destinations.len() == 1)
        .collect();
    match used.as_slice() {
        [only] => Clusters::One(name(&only.destination)),
        [] => Clusters::One(input.own_cluster()),
        several => Clusters::Weighted(
            several
                .iter()
                .map(|d| (name(&d.destination), d.weight))
                .collect(),
        ),
    }
}

/// `cluster` or `weightedClusters` of a route action.
pub(super) fn insert_clusters(action: &mut Map<String, Value>, to: Clusters) {
    match to {
        Clusters::One(cluster) => action.insert("cluster".into(), json!(cluster)),
        Clusters::Weighted(list) => {
            let list: Vec<Value> = list
                .into_iter()
                .map(|(name, weight)| json!({"name": name, "weight": weight}))
                .collect();
            action.insert("weightedClusters".into(), json!({"clusters": list}))
        }
    };
}

/// A percentage as Envoy's runtime fraction.
pub(super) fn fraction(percent: f64) -> Value {
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    // Between 0 and a million after the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let parts = parts as u32;
    json!({"defaultValue": {"numerator": parts, "denominator": "MILLION"}})
}
