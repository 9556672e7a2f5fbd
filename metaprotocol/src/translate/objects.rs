//! EnvoyFilters around a network filter: names, places and scopes, the same for every filter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};
use trimtab_crds::istio::{EnvoyFilter, EnvoyFilterSpec, WorkloadSelector};
use trimtab_kit::envoyfilter::PatchContext;
use trimtab_kit::generated::{OWNER_NAMESPACE_LABEL, owned_labels, shortened};
use xxhash_rust::xxh3::xxh3_64;

use crate::input::{GatewayBinding, Protocol, ProxySelector, Scope};
use crate::validate::Plan;

/// Name of the filter that istiod puts for TCP.
pub(super) const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
/// Annotation with the host, which may be too long for a label.
pub const HOST_ANNOTATION: &str = "trimtab.io/host";
/// Addresses of a headless service in one object: each is about 1 KB, and an object must stay below 1.5 MB.
const ADDRESSES_PER_OBJECT: usize = 100;

/// What is done with the TCP proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The filter takes its place.
    Replace,
    /// The filter stands before it and only looks.
    InsertBefore,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "REPLACE",
            Self::InsertBefore => "INSERT_BEFORE",
        }
    }
}

/// Where a patch applies.
enum Place<'a> {
    Listener(&'a str),
    InboundPort(u16),
}

/// Makes the objects of one plan.
pub(super) struct Objects<'a> {
    plan: &'a Plan<'a>,
    operation: Operation,
    proxies: ProxySelector,
}

impl<'a> Objects<'a> {
    /// For filters that do `operation`.
    pub(super) fn new(plan: &'a Plan<'a>, operation: Operation) -> Self {
        let proxies = if plan.target.is_aeraki() {
            plan.input.settings.aeraki_proxies.clone()
        } else {
            ProxySelector::default()
        };
        Self {
            plan,
            operation,
            proxies,
        }
    }

    /// The caller's side: one object for each namespace in scope and address. `filter` is `{name, typed_config}`.
    pub(super) fn outbound(&self, filter: &Value) -> Vec<EnvoyFilter> {
        let input = self.plan.input;
        let mut out = Vec::new();
        for namespace in scopes(self.plan) {
            for (part, addresses) in self.addresses() {
                let patches = addresses
                    .iter()
                    .map(|address| {
                        let listener = listener_name(*address, input.port.number);
                        let place = Place::Listener(&listener);
                        self.patch(PatchContext::SidecarOutbound, &place, filter)
                    })
                    .collect();
                let name = format!(
                    "{}-outbound-{}-{part}-{}",
                    self.prefix(),
                    input.host,
                    input.port.number
                );
                let labels = self.proxies.labels.clone();
                out.push(self.object(&name, &namespace, labels, patches));
            }
        }
        out
    }

    /// The service's own side, in its namespace: pods are selected by labels, and other namespaces may use the same
    /// ones. One patch for each port on pods. `None`: no pods of it are in this cluster.
    pub(super) fn inbound(&self, filter: impl Fn(u16) -> Value) -> Option<EnvoyFilter> {
        let input = self.plan.input;
        if input.workload_selector.is_empty() {
            return None;
        }
        let ports = input.port.on_pods();
        let patches = ports
            .iter()
            .map(|port| {
                let place = Place::InboundPort(*port);
                self.patch(PatchContext::SidecarInbound, &place, &filter(*port))
            })
            .collect();
        let name = format!(
            "{}-inbound-{}-{}",
            self.prefix(),
            input.host,
            input.port.number
        );
        let mut labels = self.proxies.labels.clone();
        labels.extend(input.workload_selector.clone());
        Some(self.object(&name, &input.namespace, labels, patches))
    }

    /// A gateway's server.
    pub(super) fn gateway(&self, gateway: &GatewayBinding, filter: &Value) -> EnvoyFilter {
        let vips = &self.plan.input.vips;
        let only_v6 = !vips.is_empty() && vips.iter().all(IpAddr::is_ipv6);
        let wildcard = if only_v6 { "::" } else { "0.0.0.0" };
        let listener = format!("{wildcard}_{}", gateway.port);
        let place = Place::Listener(&listener);
        let patch = self.patch(PatchContext::Gateway, &place, filter);
        let name = format!(
            "{}-gateway-outbound-{}.{}-{}",
            self.prefix(),
            gateway.name,
            gateway.namespace,
            gateway.port
        );
        let mut labels = self.proxies.labels.clone();
        labels.extend(gateway.selector.clone());
        self.object(&name, &gateway.namespace, labels, vec![patch])
    }

    /// Names are Aeraki's, so that its objects are taken over. Where both data planes have a filter for one port, the
    /// second needs names of its own.
    fn prefix(&self) -> &'static str {
        let native = !matches!(self.plan.input.protocol, Protocol::MetaProtocol { .. });
        if native || self.plan.target.is_aeraki() {
            "aeraki"
        } else {
            "trimtab"
        }
    }

    /// Part of the name, and the addresses of that object.
    fn addresses(&self) -> Vec<(String, Vec<IpAddr>)> {
        let input = self.plan.input;
        if input.headless {
            let all: BTreeSet<IpAddr> = input.endpoints.iter().map(|e| e.address).collect();
            let all: Vec<IpAddr> = all.into_iter().collect();
            return all
                .chunks(ADDRESSES_PER_OBJECT)
                .enumerate()
                .map(|(i, part)| (format!("headless{i}"), part.to_vec()))
                .collect();
        }
        let all: BTreeSet<IpAddr> = input.vips.iter().copied().collect();
        all.into_iter()
            .map(|vip| (vip.to_string(), vec![vip]))
            .collect()
    }

    fn patch(&self, context: PatchContext, place: &Place<'_>, filter: &Value) -> Value {
        let filter_name = json!({"name": TCP_PROXY});
        let listener = match place {
            Place::Listener(name) => json!({"name": name, "filterChain": {"filter": filter_name}}),
            Place::InboundPort(port) => json!({
                "name": "virtualInbound",
                "filterChain": {"destinationPort": port, "filter": filter_name},
            }),
        };
        let mut matched = Map::new();
        matched.insert("context".into(), json!(context.as_str()));
        matched.insert("listener".into(), listener);
        let mut proxy = Map::new();
        if !self.plan.input.settings.proxy_version.is_empty() {
            let version = &self.plan.input.settings.proxy_version;
            proxy.insert("proxyVersion".into(), json!(version));
        }
        if !self.proxies.metadata.is_empty() {
            proxy.insert("metadata".into(), json!(self.proxies.metadata));
        }
        if !proxy.is_empty() {
            matched.insert("proxy".into(), Value::Object(proxy));
        }
        json!({
            "applyTo": "NETWORK_FILTER",
            "match": matched,
            "patch": {"operation": self.operation.as_str(), "value": filter},
        })
    }

    fn object(
        &self,
        name: &str,
        namespace: &str,
        labels: BTreeMap<String, String>,
        patches: Vec<Value>,
    ) -> EnvoyFilter {
        // With both data planes the narrower filter comes first: it takes the TCP proxy away, so that the other one
        // finds nothing to replace on the same proxy.
        let both = self.plan.input.settings.data_planes.len() > 1;
        let priority = (both && self.plan.target.is_aeraki()).then_some(-10);
        EnvoyFilter {
            metadata: metadata(self.plan, name, namespace),
            spec: EnvoyFilterSpec {
                workload_selector: (!labels.is_empty()).then_some(WorkloadSelector { labels }),
                config_patches: patches,
                priority,
                ..EnvoyFilterSpec::default()
            },
        }
    }
}

/// Istio's name of an outbound listener.
pub(super) fn listener_name(address: IpAddr, port: u16) -> String {
    format!("{address}_{port}")
}

/// Namespaces of the outbound objects. `exportTo` of the router decides, else the scope of the settings; and none that the
/// host itself is not exported to.
pub(super) fn scopes(plan: &Plan<'_>) -> BTreeSet<String> {
    let input = plan.input;
    let root = &input.settings.root_namespace;
    let wanted = wanted_scopes(plan);
    let Some(visible) = &input.visible_to else {
        return wanted;
    };
    // An object in the root namespace is for all proxies, of whatever namespace.
    let seen = visible.iter();
    let seen = seen.filter(|n| !input.closed.contains(*n) && *n != root);
    let here = seen.filter(|n| wanted.contains(root) || wanted.contains(*n));
    here.cloned().collect()
}

fn wanted_scopes(plan: &Plan<'_>) -> BTreeSet<String> {
    let settings = &plan.input.settings;
    let router = plan.router.as_ref().filter(|r| !r.export_to.is_empty());
    let Some(router) = router else {
        let namespace = match settings.scope {
            Scope::Root => &settings.root_namespace,
            Scope::ServiceNamespace => &plan.input.namespace,
        };
        return BTreeSet::from([namespace.clone()]);
    };
    router
        .export_to
        .iter()
        .filter_map(|to| match to.as_str() {
            "~" => None,
            "*" => Some(settings.root_namespace.clone()),
            "." => Some(router.owner.namespace.clone()),
            name => Some(name.to_owned()),
        })
        .collect()
}

/// Namespaces whose proxies may read the routes; `None`: all. The service's own and those of its gateways always may.
pub(super) fn readers(plan: &Plan<'_>) -> Option<BTreeSet<String>> {
    let mut out = scopes(plan);
    if out.contains(&plan.input.settings.root_namespace) {
        return None;
    }
    out.insert(plan.input.namespace.clone());
    out.extend(plan.input.gateways.iter().map(|g| g.namespace.clone()));
    Some(out)
}

/// Metadata of a generated object.
pub(super) fn metadata(plan: &Plan<'_>, name: &str, namespace: &str) -> ObjectMeta {
    let input = plan.input;
    // The service, also when a router is in force: a router that comes or goes must not touch the objects.
    let revision = Some(input.settings.revision.as_str()).filter(|r| !r.is_empty());
    let kind = input.source.as_str();
    let mut labels = owned_labels(Some(MODULE), revision, kind, &input.service);
    labels.insert(OWNER_NAMESPACE_LABEL.to_owned(), input.namespace.clone());
    ObjectMeta {
        name: Some(object_name(name)),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(
            HOST_ANNOTATION.to_owned(),
            input.host.clone(),
        )])),
        ..ObjectMeta::default()
    }
}

/// Value of the label by which the module finds its objects.
pub const MODULE: &str = "metaprotocol";

/// Longest name of an object.
pub const LONGEST_NAME: usize = 253;

/// A text as an object's name: the signs of IPv6 addresses and wildcard hosts are not allowed in one. Other signs and
/// capitals neither; with them a hash follows, so that one host's name is not another's.
pub fn object_name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:*".contains(c);
    // What a sign is replaced by can be in another name as it is.
    let odd = !text.chars().all(plain) || text.contains("-any.");
    let clean: String = text
        .to_ascii_lowercase()
        .replace('*', "any")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '-'
            }
        })
        .collect();
    if odd {
        let hash = xxh3_64(text.as_bytes());
        return shortened(&format!("{clean}-{hash:016x}"), LONGEST_NAME);
    }
    shortened(&clean, LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_l14_names_are_valid_and_bounded_and_stay_apart() {
        assert_eq!(
            object_name("aeraki-outbound-*.shop-2001:db8::1-80"),
            "aeraki-outbound-any.shop-2001-db8--1-80"
        );
        let (one, other) = ("aeraki-inbound-A.shop-80", "aeraki-inbound-a.shop-80");
        assert_ne!(object_name(one), object_name(other));
        // Fault L14: what a sign is replaced by is not taken for the same sign.
        let (one, other) = ("aeraki-outbound-*.shop-80", "aeraki-outbound-any.shop-80");
        assert_ne!(object_name(one), object_name(other));
        assert_eq!(
            object_name("aeraki-outbound-company.shop-80"),
            "aeraki-outbound-company.shop-80"
        );
        let long = object_name(&"a".repeat(300));
        assert_eq!(long.len(), 253);
        assert_ne!(long, object_name(&format!("{}b", "a".repeat(299))));
    }
}
