//! EnvoyFilters that lead unknown calls to the fallback.

use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};
use trimtab_crds::istio::{EnvoyFilter, EnvoyFilterSpec, WorkloadSelector};
use trimtab_kit::envoyfilter::{HTTP_CONNECTION_MANAGER, PatchContext, ROUTER};

use super::routes::{CatchAll, lua_filter, routes};
use super::{FILTER_NAME, FallbackInput, PROXY_METADATA, Place, tcp};

/// Without a priority `istioctl analyze` warns of relative patches (IST0151).
const PRIORITY: i32 = 10;

/// The EnvoyFilters, by namespace: one in Istio's root namespace in cluster mode, else one in each namespace. None when the
/// fallback is off.
pub fn filters(input: &FallbackInput) -> Vec<EnvoyFilter> {
    let places = input.places();
    places.iter().map(|place| filter(input, place)).collect()
}

/// The EnvoyFilter of a namespace whose own Sidecar says otherwise of unknown hosts than that of the fallback: its TCP is not
/// carried, for the fallback would send it where the namespace may not, or reject what it may.
pub fn own_policy(input: &FallbackInput, namespace: &str, registry_only: bool) -> EnvoyFilter {
    let mut patches = Patches {
        proxy_version: &input.config.fallback.proxy_version,
        all: Vec::new(),
    };
    tcp::undo(input, registry_only, &mut patches);
    object(input, namespace, patches.all)
}

fn filter(input: &FallbackInput, place: &Place) -> EnvoyFilter {
    let fallback = &input.config.fallback;
    let mut patches = Patches {
        proxy_version: &fallback.proxy_version,
        all: Vec::new(),
    };
    for port in input.all_ports() {
        if fallback.add_env_header_via_lua {
            patches.push(
                "HTTP_FILTER",
                None,
                "INSERT_BEFORE",
                &json!({"listener": {"portNumber": port, "filterChain": {"filter": {
                    "name": HTTP_CONNECTION_MANAGER,
                    "subFilter": {"name": ROUTER},
                }}}}),
                &lua_filter(),
            );
        }
        for catch_all in CatchAll::BOTH {
            // Each is put first, so that the last to be put is the first to be tried.
            for route in routes(input, place, catch_all).into_iter().rev() {
                patches.insert_route(port, catch_all, None, &route);
            }
            // A fallback must never be sent to itself: its own proxies keep what Istio does.
            let keep = catch_all.keep("trimtab-fallback-itself", None);
            patches.insert_route(port, catch_all, Some(PROXY_METADATA), &keep);
        }
    }
    if fallback.tcp {
        tcp::patches(input, place, &mut patches);
    }
    let namespace = &place.filter_namespace;
    object(input, namespace, patches.all)
}

fn object(input: &FallbackInput, namespace: &str, config_patches: Vec<Value>) -> EnvoyFilter {
    let selector = &input.workload_selector;
    let mut object = EnvoyFilter::new(
        FILTER_NAME,
        EnvoyFilterSpec {
            workload_selector: (!selector.is_empty()).then(|| WorkloadSelector {
                labels: selector.clone(),
            }),
            config_patches,
            priority: Some(PRIORITY),
            ..EnvoyFilterSpec::default()
        },
    );
    object.metadata = ObjectMeta {
        name: Some(FILTER_NAME.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(input.labels()),
        ..ObjectMeta::default()
    };
    object
}

/// Collects patches of outbound sides, all with the same proxy version.
pub(super) struct Patches<'a> {
    proxy_version: &'a str,
    all: Vec<Value>,
}

impl Patches<'_> {
    /// Adds a patch; `place` holds what is matched besides context and proxy.
    pub(super) fn push(
        &mut self,
        apply_to: &str,
        metadata: Option<(&str, &str)>,
        operation: &str,
        place: &Value,
        value: &Value,
    ) {
        let mut place = place.clone();
        place["context"] = json!(PatchContext::SidecarOutbound.as_str());
        let mut proxy = Map::new();
        if !self.proxy_version.is_empty() {
            proxy.insert("proxyVersion".to_owned(), json!(self.proxy_version));
        }
        if let Some((key, value)) = metadata {
            proxy.insert("metadata".to_owned(), json!({key: value}));
        }
        if !proxy.is_empty() {
            place["proxy"] = Value::Object(proxy);
        }
        self.all.push(json!({
            "applyTo": apply_to,
            "match": place,
            "patch": {"operation": operation, "value": value},
        }));
    }

    fn insert_route(
        &mut self,
        port: u16,
        catch_all: CatchAll,
        metadata: Option<(&str, &str)>,
        route: &Value,
    ) {
        let place = json!({"routeConfiguration": {
            "name": port.to_string(),
            "vhost": {"name": catch_all.vhost()},
        }});
        self.push("HTTP_ROUTE", metadata, "INSERT_FIRST", &place, route);
    }
}
