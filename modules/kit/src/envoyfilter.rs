//! Builder of EnvoyFilter patches: the parts that every module writes the same way.
//!
//! Patches are JSON in Envoy's protobuf JSON form, because an EnvoyFilter is JSON and istiod decodes it;
//! names and shapes follow Istio's EnvoyFilter reference.

use serde_json::{Map, Value, json};

/// Where a patch applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatchContext {
    /// Listeners of a gateway.
    Gateway,
    /// Inbound side of a sidecar.
    SidecarInbound,
    /// Outbound side of a sidecar.
    SidecarOutbound,
}

impl PatchContext {
    /// Istio's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "GATEWAY",
            Self::SidecarInbound => "SIDECAR_INBOUND",
            Self::SidecarOutbound => "SIDECAR_OUTBOUND",
        }
    }
}

/// Name of the HTTP connection manager filter.
pub const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// Name of the router filter, the last of every chain.
pub const ROUTER: &str = "envoy.filters.http.router";
const TYPED_STRUCT: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";

/// Where in the route configuration a patch applies: a route, or a whole virtual host when `route` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePlace {
    /// Side of the proxy.
    pub context: PatchContext,
    /// Virtual host; `None` = any.
    pub vhost: Option<String>,
    /// Route; `None` = the virtual host itself.
    pub route: Option<String>,
}

/// Builds patches, all with the same proxy version match.
#[derive(Clone, Debug, Default)]
pub struct PatchBuilder {
    /// RE2 put into every patch as `match.proxy.proxyVersion`; empty = none.
    pub proxy_version: String,
}

impl PatchBuilder {
    fn matched(&self, context: PatchContext, extra: Option<(&str, Value)>) -> Value {
        let mut map = Map::new();
        map.insert("context".into(), json!(context.as_str()));
        if !self.proxy_version.is_empty() {
            map.insert("proxy".into(), json!({"proxyVersion": self.proxy_version}));
        }
        if let Some((key, value)) = extra {
            map.insert(key.into(), value);
        }
        Value::Object(map)
    }

    /// `MERGE` of `value` into the routes or virtual hosts of `place`.
    pub fn merge_route(&self, place: &RoutePlace, value: &Value) -> Value {
        let mut vhost = Map::new();
        if let Some(name) = &place.vhost {
            vhost.insert("name".into(), json!(name));
        }
        if let Some(route) = &place.route {
            vhost.insert("route".into(), json!({"name": route}));
        }
        let apply_to = if place.route.is_some() {
            "HTTP_ROUTE"
        } else {
            "VIRTUAL_HOST"
        };
        json!({
            "applyTo": apply_to,
            "match": self.matched(place.context, Some(("routeConfiguration", json!({"vhost": vhost})))),
            "patch": {"operation": "MERGE", "value": value},
        })
    }

    /// `INSERT_BEFORE` the router of every HTTP filter chain.
    pub fn insert_http_filter(&self, context: PatchContext, filter: &Value) -> Value {
        let listener = json!({"filterChain": {"filter": {
            "name": HTTP_CONNECTION_MANAGER,
            "subFilter": {"name": ROUTER},
        }}});
        json!({
            "applyTo": "HTTP_FILTER",
            "match": self.matched(context, Some(("listener", listener))),
            "patch": {"operation": "INSERT_BEFORE", "value": filter},
        })
    }

    /// `MERGE` into the HTTP connection manager's own configuration.
    pub fn merge_connection_manager(&self, context: PatchContext, config: &Value) -> Value {
        let listener = json!({"filterChain": {"filter": {"name": HTTP_CONNECTION_MANAGER}}});
        let mut typed = config.clone();
        typed["@type"] = json!(
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        );
        json!({
            "applyTo": "NETWORK_FILTER",
            "match": self.matched(context, Some(("listener", listener))),
            "patch": {"operation": "MERGE", "value": {"name": HTTP_CONNECTION_MANAGER, "typed_config": typed}},
        })
    }
}

/// A configuration as a TypedStruct, which Envoy accepts wherever an Any of `type_url` is wanted.
pub fn typed_struct(type_url: &str, value: &Value) -> Value {
    json!({"@type": TYPED_STRUCT, "type_url": type_url, "value": value})
}
