//! EnvoyFilters of others that limit requests, or change what limits them.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};

use super::{Identity, Labels};
use crate::table::{Known, Row};

/// Filter of connections that carries HTTP.
const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// Is in the names and types of all filters that limit.
const LIMIT: [&str; 2] = ["ratelimit", "rate_limit"];
/// Label with the revision whose istiod reads an object.
const REVISION: &str = "istio.io/rev";

/// An EnvoyFilter that Trimtab has not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitPatches {
    /// Which object.
    pub id: Identity,
    /// Order among EnvoyFilters of its namespace: what comes later counts.
    pub priority: i32,
    /// Labels of the pods that it is for; empty: all of its namespace.
    pub selector: Labels,
    /// Only istiod of this revision reads it.
    pub revision: Option<Box<str>>,
    /// Its patches that have to do with limits, in order.
    pub patches: Vec<LimitPatch>,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitPatch {
    /// Its place in `spec.configPatches`.
    pub index: usize,
    /// Side of the proxy, as in Istio; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Virtual host; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Route; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// It asks for more, such as a version of the proxy: whether that holds is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
    /// What it does.
    pub does: LimitChange,
}

/// What a patch does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum LimitChange {
    /// Inserts a filter of this name that limits.
    Inserts(String),
    /// Takes a filter away, or puts another in its place.
    Removes(String),
    /// Takes away all filters for HTTP.
    RemovesAll,
    /// Gives routes configurations of these filters.
    Routes(BTreeSet<String>),
    /// Gives virtual hosts configurations of these filters.
    VirtualHosts(BTreeSet<String>),
    /// Gives routes actions of their own: those of their virtual host count no more.
    RouteActions,
}

impl Row for LimitPatches {
    type Object = EnvoyFilter;
    type Index = ();

    /// `None`: it has nothing to do with limits, or is Trimtab's own.
    fn read(object: &Arc<EnvoyFilter>, _: &Known<'_, Self>) -> Option<Self> {
        let spec = &object.spec;
        let ours = object.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY);
        let targets = spec.others.get("targetRefs").and_then(Value::as_array);
        if ours || targets.is_some_and(|targets| !targets.is_empty()) {
            return None;
        }
        let all = spec.config_patches.iter().enumerate();
        let patches: Vec<LimitPatch> = all.flat_map(|(index, p)| read(index, p)).collect();
        let selector = spec.workload_selector.as_ref();
        (!patches.is_empty()).then(|| Self {
            id: Identity::of(object.as_ref()),
            priority: spec.priority.unwrap_or_default(),
            selector: selector.map(|s| s.labels.clone()).unwrap_or_default(),
            revision: object.labels().get(REVISION).map(|r| r.as_str().into()),
            patches,
        })
    }
}

fn read(index: usize, patch: &Value) -> Vec<LimitPatch> {
    let text = |pointer: &str| patch.pointer(pointer).and_then(Value::as_str);
    let operation = text("/patch/operation").unwrap_or_default();
    let value = patch.pointer("/patch/value").unwrap_or(&Value::Null);
    let does = match text("/applyTo").unwrap_or_default() {
        "HTTP_FILTER" => http_filter(patch, operation, value).into_iter().collect(),
        "NETWORK_FILTER" => {
            let named = text("/match/listener/filterChain/filter/name");
            let manager = named == Some(CONNECTION_MANAGER) || named.is_none();
            let gone = manager && ["REMOVE", "REPLACE"].contains(&operation);
            gone.then_some(LimitChange::RemovesAll)
                .into_iter()
                .collect()
        }
        "HTTP_ROUTE" if operation == "MERGE" => routes(value),
        "VIRTUAL_HOST" if operation == "MERGE" => {
            let filters = filters(value);
            let some = (!filters.is_empty()).then_some(LimitChange::VirtualHosts(filters));
            some.into_iter().collect()
        }
        _ => Vec::new(),
    };
    let routes = "/match/routeConfiguration/vhost";
    let owned = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(str::to_owned);
    let one = |does| LimitPatch {
        index,
        context: owned(text("/match/context").filter(|c| *c != "ANY")),
        vhost: owned(text(&format!("{routes}/name"))),
        route: owned(text(&format!("{routes}/route/name"))),
        conditional: is_conditional(patch),
        does,
    };
    does.into_iter().map(one).collect()
}

/// Whether it matches more than side, virtual host, route and filter.
fn is_conditional(patch: &Value) -> bool {
    let has_others = |pointer: &str, known: &[&str]| {
        let object = patch.pointer(pointer).and_then(Value::as_object);
        let mut keys = object.into_iter().flat_map(|o| o.keys());
        keys.any(|key| !known.contains(&key.as_str()))
    };
    has_others("/match", &["context", "routeConfiguration", "listener"])
        || has_others("/match/routeConfiguration", &["vhost"])
        || has_others("/match/routeConfiguration/vhost", &["name", "route"])
        || has_others("/match/routeConfiguration/vhost/route", &["name"])
        || has_others("/match/listener", &["filterChain"])
        || has_others("/match/listener/filterChain", &["filter"])
}

fn http_filter(patch: &Value, operation: &str, value: &Value) -> Option<LimitChange> {
    let named = patch
        .pointer("/match/listener/filterChain/filter/subFilter/name")
        .and_then(Value::as_str);
    match operation {
        "REMOVE" | "REPLACE" => {
            let name = named.filter(|name| limits(name))?;
            Some(LimitChange::Removes(name.to_owned()))
        }
        "MERGE" | "" => None,
        _ => {
            let name = value["name"].as_str().unwrap_or_default();
            let limiting = limits(name) || limits(&types(value));
            limiting.then(|| LimitChange::Inserts(name.to_owned()))
        }
    }
}

fn routes(value: &Value) -> Vec<LimitChange> {
    let mut out = Vec::new();
    let filters = filters(value);
    if !filters.is_empty() {
        out.push(LimitChange::Routes(filters));
    }
    let actions = field(&value["route"], "rate_limits", "rateLimits");
    if actions.is_some_and(|list| list.as_array().is_some_and(|l| !l.is_empty())) {
        out.push(LimitChange::RouteActions);
    }
    out
}

/// Names of the filters that limit and that a route or virtual host configures.
fn filters(value: &Value) -> BTreeSet<String> {
    let map = field(value, "typed_per_filter_config", "typedPerFilterConfig");
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter(|(name, config)| {
        limits(name) || limits(&types(&serde_json::json!({"typed_config": config})))
    })
    .map(|(name, _)| name.clone())
    .collect()
}

/// Protobuf JSON has both spellings.
fn field<'a>(value: &'a Value, snake: &str, camel: &str) -> Option<&'a Value> {
    value.get(snake).or_else(|| value.get(camel))
}

/// Types of a filter's configuration.
fn types(filter: &Value) -> String {
    let config = field(filter, "typed_config", "typedConfig").unwrap_or(&Value::Null);
    let discovery = field(filter, "config_discovery", "configDiscovery").unwrap_or(&Value::Null);
    let list = field(discovery, "type_urls", "typeUrls").and_then(Value::as_array);
    let list = list.into_iter().flatten().filter_map(Value::as_str);
    let own = [
        config["@type"].as_str(),
        field(config, "type_url", "typeUrl").and_then(Value::as_str),
    ];
    let all: Vec<&str> = own.into_iter().flatten().chain(list).collect();
    all.join(" ")
}

fn limits(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    LIMIT.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn done(patch: &Value) -> Vec<LimitChange> {
        read(0, patch).into_iter().map(|p| p.does).collect()
    }

    fn per_filter(key: &str) -> Value {
        json!({key: {"envoy.filters.http.local_ratelimit": {"@type": "x"}, "envoy.filters.http.cors": {"@type": "y"}}})
    }

    const LOCAL: &str = "envoy.filters.http.local_ratelimit";

    fn told(apply: &str, matched: &Value, patch: &Value, wanted: &[LimitChange]) {
        let whole = json!({"applyTo": apply, "match": matched, "patch": patch});
        assert_eq!(done(&whole), wanted, "{whole}");
    }

    #[test]
    fn what_patches_do_to_filters() {
        let any = json!({});
        let sub = json!({"listener": {"filterChain": {"filter": {"name": CONNECTION_MANAGER, "subFilter": {"name": LOCAL}}}}});
        let global = json!({"operation": "INSERT_BEFORE", "value": {"name": "mine", "typed_config":
            {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "x/envoy.extensions.filters.http.ratelimit.v3.RateLimit"}}});
        let lua = json!({"operation": "INSERT_FIRST", "value": {"name": "envoy.filters.http.lua"}});
        let merge = json!({"operation": "MERGE", "value": {"name": LOCAL}});
        let remove = json!({"operation": "REMOVE"});
        let mine = LimitChange::Inserts("mine".to_owned());
        let gone = LimitChange::Removes(LOCAL.to_owned());
        told("HTTP_FILTER", &any, &global, &[mine]);
        told("HTTP_FILTER", &any, &lua, &[]);
        told("HTTP_FILTER", &sub, &remove, &[gone]);
        told("HTTP_FILTER", &sub, &merge, &[]);
        told("NETWORK_FILTER", &any, &remove, &[LimitChange::RemovesAll]);
        told("NETWORK_FILTER", &any, &merge, &[]);
        told("CLUSTER", &any, &remove, &[]);
    }

    #[test]
    fn what_patches_do_to_routes() {
        let any = json!({});
        let merge = |value: Value| json!({"operation": "MERGE", "value": value});
        let named = BTreeSet::from([LOCAL.to_owned()]);
        let camel = merge(per_filter("typedPerFilterConfig"));
        let snake = merge(per_filter("typed_per_filter_config"));
        let actions = merge(json!({"route": {"rate_limits": [{"actions": []}]}}));
        let timeout = merge(json!({"route": {"timeout": "1s"}}));
        let routes = LimitChange::Routes(named.clone());
        told("HTTP_ROUTE", &any, &camel, &[routes]);
        let hosts = LimitChange::VirtualHosts(named);
        told("VIRTUAL_HOST", &any, &snake, &[hosts]);
        told("HTTP_ROUTE", &any, &actions, &[LimitChange::RouteActions]);
        told("HTTP_ROUTE", &any, &timeout, &[]);
    }

    #[test]
    fn what_a_patch_is_for_is_read_and_what_is_not_known_is_told() {
        let with = |matched: Value| {
            let patch = json!({"applyTo": "HTTP_ROUTE", "match": matched,
                "patch": {"operation": "MERGE", "value": per_filter("typed_per_filter_config")}});
            read(3, &patch).remove(0)
        };
        let plain = with(
            json!({"context": "SIDECAR_INBOUND", "routeConfiguration": {"vhost": {"name": "a:80", "route": {"name": "r"}}}}),
        );
        assert_eq!(plain.index, 3);
        assert_eq!(plain.context.as_deref(), Some("SIDECAR_INBOUND"));
        assert_eq!(plain.vhost.as_deref(), Some("a:80"));
        assert_eq!(plain.route.as_deref(), Some("r"));
        assert!(!plain.conditional);
        assert_eq!(with(json!({"context": "ANY"})).context, None);
        for matched in [
            json!({"proxy": {"proxyVersion": "1.*"}}),
            json!({"routeConfiguration": {"portNumber": 80}}),
            json!({"routeConfiguration": {"vhost": {"route": {"action": "ANY"}}}}),
        ] {
            assert!(with(matched.clone()).conditional, "{matched}");
        }
    }
}
