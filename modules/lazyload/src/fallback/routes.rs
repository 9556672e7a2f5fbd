//! The routes that are put in front of Istio's catch-all.

use serde_json::{Value, json};

use super::dispatch::{ordered, route_match};
use super::{FallbackInput, Place};
use crate::config::Fallback;

/// Request header with the address that the application called, `ip:port`; Slime's.
pub const DESTINATION_HEADER: &str = "Slime-Orig-Dest";
/// Request header with the namespace of the caller, or `-` when its proxy does not know; Slime's.
pub const SOURCE_NAMESPACE_HEADER: &str = "Slime-Source-Ns";
/// Request header with the caller's pod, `namespace/name`; a part that its proxy does not know is `-`.
pub const SOURCE_HEADER: &str = "trimtab-source";

/// Stands for the fallback in `dispatches[].cluster`.
const FALLBACK_WORD: &str = "_GLOBAL_SIDECAR";
/// Istio's cluster that goes to where the application wanted.
const PASSTHROUGH: &str = "PassthroughCluster";
/// Name of the Lua source in its filter, as Slime's.
pub(super) const LUA_SOURCE: &str = "add.lua";
/// Name of the Lua filter: its own, so that it meets no other.
pub(super) const LUA_FILTER: &str = "trimtab.lazyload.source";
const LUA_PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute";
const PREVIOUS_HOSTS: &str =
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// Addresses that mean another machine on each machine: credentials of the node are served there. They never leave the
/// caller's pod for the fallback's.
const LINK_LOCAL: &str = r"(?i)(169\.254\.[0-9]+\.[0-9]+|metadata\.google\.internal|\[fd00:ec2::254\]|\[fe80:[0-9a-f:%a-z]*\])(:[0-9]+)?";

/// Whether any call is led to the fallback.
pub fn is_needed(fallback: &Fallback) -> bool {
    let mut dispatches = fallback.dispatches.iter();
    fallback.enabled
        && (!fallback.passthrough_by_default
            || fallback.tcp
            || dispatches.any(|d| d.cluster == FALLBACK_WORD))
}

/// What can be wired of `passthroughByDefault` as long as there is no fallback: its hosts pass as those do that no dispatch
/// names.
pub fn without_pods(fallback: &Fallback) -> Fallback {
    let mut out = fallback.clone();
    out.tcp = false;
    for dispatch in &mut out.dispatches {
        if dispatch.cluster == FALLBACK_WORD {
            PASSTHROUGH.clone_into(&mut dispatch.cluster);
        }
    }
    out
}

/// What Istio's catch-all does, by the policy of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchAll {
    /// ALLOW_ANY: to where the application wanted.
    AllowAny,
    /// REGISTRY_ONLY: refused.
    BlockAll,
}

impl CatchAll {
    /// Both: a proxy has one of them.
    pub(super) const BOTH: [Self; 2] = [Self::AllowAny, Self::BlockAll];

    /// Istio's name of the virtual host.
    pub(super) fn vhost(self) -> &'static str {
        match self {
            Self::AllowAny => "allow_any",
            Self::BlockAll => "block_all",
        }
    }

    /// A route that does what Istio's does.
    pub(super) fn keep(self, name: &str, regex: Option<&str>) -> Value {
        let mut route = json!({"name": name, "match": route_match(regex)});
        match self {
            Self::AllowAny => {
                route["route"] = json!({"cluster": PASSTHROUGH, "timeout": "0s"});
            }
            Self::BlockAll => route["direct_response"] = json!({"status": 502}),
        }
        route
    }
}

/// The routes in the order in which they are tried.
pub(super) fn routes(input: &FallbackInput, place: &Place, catch_all: CatchAll) -> Vec<Value> {
    let fallback = &input.config.fallback;
    let mut all = vec![catch_all.keep("trimtab-link-local", Some(LINK_LOCAL))];
    for (dispatch, regex) in ordered(&fallback.dispatches) {
        let name = format!("trimtab-dispatch-{}", dispatch.name);
        all.push(if dispatch.cluster == FALLBACK_WORD {
            to_fallback(input, place, &name, regex.as_deref())
        } else {
            to_cluster(&name, regex.as_deref(), &dispatch.cluster)
        });
    }
    all.push(if fallback.passthrough_by_default {
        to_cluster("trimtab-passthrough", None, PASSTHROUGH)
    } else {
        to_fallback(input, place, "trimtab-fallback", None)
    });
    all
}

fn to_cluster(name: &str, regex: Option<&str>, cluster: &str) -> Value {
    json!({
        "name": name,
        "match": route_match(regex),
        "route": {"cluster": cluster, "timeout": "0s"},
    })
}

fn to_fallback(input: &FallbackInput, place: &Place, name: &str, regex: Option<&str>) -> Value {
    let cluster = format!("outbound|{}||{}", input.port, input.host(&place.namespace));
    let mut route = json!({
        "name": name,
        "match": route_match(regex),
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": "0s",
            // Only what has reached nobody is sent again, so that a fallback pod can go at any time.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": PREVIOUS_HOSTS},
                }],
                "host_selection_retry_max_attempts": "5",
            },
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        },
        "request_headers_to_add": headers(input, place),
    });
    if input.config.fallback.add_env_header_via_lua {
        route["typed_per_filter_config"] =
            json!({LUA_FILTER: {"@type": LUA_PER_ROUTE, "name": LUA_SOURCE}});
    }
    route
}

fn headers(input: &FallbackInput, place: &Place) -> Value {
    let mut headers = vec![header(DESTINATION_HEADER, "%DOWNSTREAM_LOCAL_ADDRESS%")];
    let by_lua = input.config.fallback.add_env_header_via_lua;
    match (&place.callers, by_lua) {
        (Some(namespace), _) => headers.push(header(SOURCE_NAMESPACE_HEADER, namespace)),
        (None, false) => headers.push(header(
            SOURCE_NAMESPACE_HEADER,
            "%ENVIRONMENT(POD_NAMESPACE)%",
        )),
        (None, true) => {}
    }
    if !by_lua {
        headers.push(header(
            SOURCE_HEADER,
            "%ENVIRONMENT(POD_NAMESPACE)%/%ENVIRONMENT(POD_NAME)%",
        ));
    }
    Value::Array(headers)
}

/// Overwritten, never appended: what an application sends under these names counts for nothing.
fn header(name: &str, value: &str) -> Value {
    json!({"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
}

/// The Lua filter that sets the headers of the source, for proxies that do not know `%ENVIRONMENT()%`. It does nothing but
/// on routes that ask for it.
pub(super) fn lua_filter() -> Value {
    let script = format!(
        "function envoy_on_request(handle)\n  \
           local namespace = os.getenv(\"POD_NAMESPACE\") or \"-\"\n  \
           local pod = os.getenv(\"POD_NAME\") or \"-\"\n  \
           local headers = handle:headers()\n  \
           headers:replace(\"{SOURCE_NAMESPACE_HEADER}\", namespace)\n  \
           headers:replace(\"{SOURCE_HEADER}\", namespace .. \"/\" .. pod)\n\
         end\n"
    );
    json!({
        "name": LUA_FILTER,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "source_codes": {LUA_SOURCE: {"inline_string": script}},
        },
    })
}
