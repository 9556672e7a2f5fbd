//! Ports of MetaRouters' protocols, made of the same translation as in a mesh.
//!
//! A proxy without Istio stands alone between callers and servers, as a gateway does; there are no sidecars of the
//! service. So the gateway's side of the translation is taken, which has the limits that sidecars would hold, and routes
//! come by `xdstp` name from the authority that the bootstrap knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::Value;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::envoyfilter::PatchContext;
use trimtab_kit::identity::XdsEndpoint;
use trimtab_kit::problem::Problem;
use trimtab_metaprotocol::input::{
    DataPlane, Delivery, GatewayBinding, Router, Scope, ServicePortInput,
};
use trimtab_metaprotocol::output::{Refusal, XdsResource};
use trimtab_metaprotocol::translate::translate;

use crate::bootstrap::{OWN_AUTHORITY, XDS_CLUSTER};
use crate::listeners::tcp_proxy;

/// What one port gives.
#[derive(Default)]
pub(super) struct Made {
    /// Network filters of the listener.
    pub(super) filters: Vec<Value>,
    /// Routes.
    pub(super) resources: Vec<XdsResource>,
    /// Patches of clusters.
    pub(super) clusters: Vec<Value>,
    pub(super) refusals: Vec<Refusal>,
    /// What is in force must stay.
    pub(super) retained: bool,
    /// The router that is good to go back to.
    pub(super) in_force: Option<Router>,
}

/// Translates a port; `last` is the router that was in force before, where the input knows none.
pub(super) fn make(input: &ServicePortInput, last: Option<&Router>) -> Made {
    let mut here = alone(input);
    if here.last_good.is_none() {
        here.last_good = last.cloned().map(Box::new);
    }
    let out = translate(&here);
    let mut made = Made {
        refusals: out.refusals,
        retained: out.retained,
        in_force: out.in_force,
        clusters: patches(&out.envoy_filters, "CLUSTER").cloned().collect(),
        ..Made::default()
    };
    made.refusals.extend(policies(input));
    if input.settings.withhold_secrets && out.envoy_filters.iter().any(has_password) {
        made.refusals.push(withheld(input));
        made.retained = true;
        return made;
    }
    if out.retained {
        return made;
    }
    let own = tcp_proxy(&input.own_cluster());
    let of = |context: PatchContext| {
        let wanted = context.as_str();
        patches(&out.envoy_filters, "NETWORK_FILTER").find(move |p| p["match"]["context"] == wanted)
    };
    let patch = of(PatchContext::Gateway).or_else(|| of(PatchContext::SidecarOutbound));
    if let Some(patch) = patch {
        made.filters.push(patch["patch"]["value"].clone());
    }
    let replaced = patch.is_some_and(|p| p["patch"]["operation"] == "REPLACE");
    if !replaced {
        made.filters.push(own);
    }
    // The translation has routes for sidecars too, which nobody asks for here.
    let text = Value::from(made.filters.clone()).to_string();
    let used = |r: &XdsResource| text.contains(&Value::from(r.name.as_str()).to_string());
    made.resources = out.resources.into_iter().filter(used).collect();
    made
}

/// The port as a gateway would see it, with a proxy of ours.
fn alone(input: &ServicePortInput) -> ServicePortInput {
    let mut settings = (*input.settings).clone();
    settings.data_planes = [DataPlane::Envoy].into();
    settings.capabilities.deliveries = [Delivery::RouteDiscovery].into();
    settings.scope = Scope::Root;
    // Only whether there is one counts: routes come over the stream of the bootstrap.
    settings.xds = XdsEndpoint::plain(XDS_CLUSTER);
    OWN_AUTHORITY.clone_into(&mut settings.xds_authority);
    // Listeners go to the proxies over xDS and are in no object that others can read.
    settings.secrets_inline = true;
    settings.proxy_version.clear();
    settings.revision.clear();
    let mut out = input.clone();
    out.settings = Arc::new(settings);
    // A place to put the filter; where the proxy really listens is decided apart.
    out.vips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    out.headless = false;
    out.endpoints.clear();
    out.workload_selector = BTreeMap::new();
    out.gateways = vec![GatewayBinding {
        namespace: input.namespace.clone(),
        name: OWN_AUTHORITY.to_owned(),
        port: input.port.number,
        ..GatewayBinding::default()
    }];
    out.dubbo_policies.clear();
    // Namespaces of callers are not known here.
    out.visible_to = None;
    out.closed.clear();
    for router in out.router.iter_mut().chain(out.last_good.as_deref_mut()) {
        router.export_to.clear();
    }
    out
}

/// Whether a patch has a password in it, and not only the name of a file with one.
fn has_password(filter: &EnvoyFilter) -> bool {
    fn search(value: &Value, within: bool) -> bool {
        match value {
            Value::Object(fields) => fields.iter().any(|(name, value)| {
                let name = name.to_lowercase().replace('_', "");
                let text = name == "inlinestring" || name == "inlinebytes";
                (within && text) || search(value, within || name.contains("authpassword"))
            }),
            Value::Array(items) => items.iter().any(|item| search(item, within)),
            _ => false,
        }
    }
    let mut patches = filter.spec.config_patches.iter();
    patches.any(|patch| search(patch, false))
}

/// The port stays as it is: without its passwords it would be open to all.
fn withheld(input: &ServicePortInput) -> Refusal {
    let callers = input.redis.as_ref().filter(|r| r.settings.auth.is_some());
    let servers = input.redis_destinations.values().find(|d| d.auth.is_some());
    let (object, field) = match (callers, servers) {
        (Some(callers), _) => (callers.owner.to_string(), "spec.settings.auth"),
        (None, Some(servers)) => {
            let field = "spec.trafficPolicy.connectionPool.redis.auth";
            (servers.owner.to_string(), field)
        }
        (None, None) => (format!("Service {}", input.host), "spec.ports"),
    };
    let text = format!(
        "port {} of {} is not served: the xDS server does not know who asks it, and would hand the password to anybody; set xds.tls, mount the Secret and set metaprotocol.secretPath, or allow it with xds.plaintextSecrets: true",
        input.port.number, input.host
    );
    let problem = Problem::new(object, field, "SecretsWithheld", text);
    Refusal::mistake(problem, true)
}

/// Policies tell callers apart by the identity of the mesh.
fn policies(input: &ServicePortInput) -> impl Iterator<Item = Refusal> {
    input.dubbo_policies.iter().map(|policy| {
        let text = "a proxy without Istio does not know who calls and enforces no policy: delete the policy, or serve the port in a mesh";
        let problem = Problem::new(&policy.owner, "spec.rules", "NotSupported", text);
        Refusal::mistake(problem, false)
    })
}

fn patches<'a>(
    filters: &'a [EnvoyFilter],
    apply_to: &'static str,
) -> impl Iterator<Item = &'a Value> {
    let all = filters.iter().flat_map(|f| &f.spec.config_patches);
    all.filter(move |p| p["applyTo"] == apply_to)
}
