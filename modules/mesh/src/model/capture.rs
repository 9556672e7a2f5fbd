//! What stands between a pod and its callers: the proxy of its own, and the ports that traffic reaches without it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1;
use kube::ResourceExt;

use super::service::TargetPort;

/// Name of the proxy's container, in sidecars and in gateways.
const PROXY: &str = "istio-proxy";
/// Ports that go around the proxy.
const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Ports that go through the proxy; without it all of them.
const INCLUDED: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Templates of the injector that a pod asks for.
const TEMPLATES: &str = "inject.istio.io/templates";
/// Injects an agent without an Envoy.
const AGENT_ONLY: &str = "grpc-agent";
/// Set by Istio's CNI on a pod whose traffic the node's proxy carries.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Asks for that, on a pod or on its namespace.
pub(super) const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Who manages a gateway's pods.
const MANAGED: &str = "gateway.istio.io/managed";
/// Value of [`MANAGED`] for waypoints.
const MESH_CONTROLLER: &str = "istio.io-mesh-controller";

/// The Envoy of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proxy {
    /// None of its own.
    #[default]
    None,
    /// A sidecar.
    Sidecar,
    /// The pod is a gateway.
    Gateway,
    /// The pod is a waypoint of ambient mode.
    Waypoint,
    /// There is one, and its arguments do not say as what.
    Any,
}

/// What stands between a pod and its callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Its Envoy.
    pub proxy: Proxy,
    /// On the host's network, where no traffic is led to a sidecar.
    pub on_host: bool,
    /// The node's proxy carries its traffic (ambient mode).
    pub ambient: bool,
    /// Few pods choose ports.
    ports: Option<Box<Ports>>,
}

/// The choice of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ports {
    /// `None`: all.
    included: Option<BTreeSet<u16>>,
    excluded: BTreeSet<u16>,
    /// Container ports by name.
    named: Vec<(Box<str>, u16)>,
}

impl Capture {
    /// Of a pod.
    pub(super) fn of(pod: &v1::Pod) -> Self {
        let spec = pod.spec.as_ref();
        let annotation = |name: &str| pod.annotations().get(name).map(String::as_str);
        let mode = pod.labels().get(DATAPLANE_MODE).map(String::as_str);
        Self {
            proxy: proxy(pod),
            on_host: spec.and_then(|s| s.host_network).unwrap_or_default(),
            ambient: annotation(REDIRECTION) == Some("enabled") || mode == Some("ambient"),
            ports: ports(pod, annotation(INCLUDED), annotation(EXCLUDED)).map(Box::new),
        }
    }

    /// Whether traffic to a port of a Service, `number` with this target, reaches the pod without its proxy.
    pub fn bypasses(&self, number: u16, target: Option<&TargetPort>) -> bool {
        let Some(ports) = &self.ports else {
            return false;
        };
        let port = match target {
            None => number,
            Some(TargetPort::Number(number)) => *number,
            Some(TargetPort::Name(name)) => match ports.named.iter().find(|(n, _)| n == name) {
                Some((_, number)) => *number,
                None => return false,
            },
        };
        let included = ports.included.as_ref();
        ports.excluded.contains(&port) || included.is_some_and(|ports| !ports.contains(&port))
    }
}

/// A container of the proxy's name, or an init container of that name that goes on running.
fn proxy(pod: &v1::Pod) -> Proxy {
    let Some(spec) = &pod.spec else {
        return Proxy::None;
    };
    let native = spec.init_containers.iter().flatten();
    let native = native.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut all = spec.containers.iter().chain(native);
    let Some(container) = all.find(|c| c.name == PROXY) else {
        return Proxy::None;
    };
    let templates = pod.annotations().get(TEMPLATES);
    let mut templates = templates.iter().flat_map(|list| list.split(','));
    if templates.any(|template| template.trim() == AGENT_ONLY) {
        return Proxy::None;
    }
    let managed = pod.labels().get(MANAGED).map(String::as_str);
    let mut arguments = container.args.iter().flatten().map(String::as_str);
    let role = arguments.find(|a| ["sidecar", "router", "waypoint"].contains(a));
    if managed == Some(MESH_CONTROLLER) {
        return Proxy::Waypoint;
    }
    match role {
        Some("waypoint") => Proxy::Waypoint,
        Some("router") => Proxy::Gateway,
        Some("sidecar") => Proxy::Sidecar,
        _ => Proxy::Any,
    }
}

fn ports(pod: &v1::Pod, included: Option<&str>, excluded: Option<&str>) -> Option<Ports> {
    let list = |text: &str| -> BTreeSet<u16> {
        let parts = text.split(',').map(str::trim);
        parts.filter_map(|port| port.parse().ok()).collect()
    };
    let all = |text: &&str| text.split(',').any(|part| part.trim() == "*");
    let included = included.filter(|text| !all(text)).map(list);
    let excluded = excluded.map(list).unwrap_or_default();
    if included.is_none() && excluded.is_empty() {
        return None;
    }
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let named = containers.flat_map(|c| c.ports.iter().flatten());
    let named = named.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.as_deref()?.into(), number))
    });
    Some(Ports {
        included,
        excluded,
        named: named.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn capture(metadata: &Value, spec: &Value) -> Capture {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        Capture::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn fault_l7_what_counts_as_a_proxy() {
        let app = json!({"name": "app"});
        let proxy = json!({"name": "istio-proxy"});
        let with = |args: &[&str]| json!({"name": "istio-proxy", "args": args});
        let native = json!({"name": "istio-proxy", "restartPolicy": "Always"});
        let none = json!({});
        for (what, metadata, spec, wanted) in [
            ("alone", &none, json!({"containers": [app]}), Proxy::None),
            (
                "beside",
                &none,
                json!({"containers": [app, proxy]}),
                Proxy::Any,
            ),
            (
                "native",
                &none,
                json!({"containers": [app], "initContainers": [native]}),
                Proxy::Any,
            ),
            (
                "only initializes",
                &none,
                json!({"containers": [app], "initContainers": [proxy]}),
                Proxy::None,
            ),
            (
                "sidecar",
                &none,
                json!({"containers": [with(&["proxy", "sidecar"])]}),
                Proxy::Sidecar,
            ),
            (
                "gateway",
                &none,
                json!({"containers": [with(&["proxy", "router"])]}),
                Proxy::Gateway,
            ),
            (
                "waypoint",
                &none,
                json!({"containers": [with(&["proxy", "waypoint"])]}),
                Proxy::Waypoint,
            ),
            (
                "managed waypoint",
                &json!({"labels": {"gateway.istio.io/managed": "istio.io-mesh-controller"}}),
                json!({"containers": [with(&["proxy"])]}),
                Proxy::Waypoint,
            ),
            (
                "agent of proxyless gRPC",
                &json!({"annotations": {"inject.istio.io/templates": "grpc-agent"}}),
                json!({"containers": [app, proxy]}),
                Proxy::None,
            ),
        ] {
            assert_eq!(capture(metadata, &spec).proxy, wanted, "{what}");
        }
    }

    #[test]
    fn fault_l7_ports_that_go_around_the_proxy() {
        let spec = json!({"containers": [
            {"name": "app", "ports": [{"name": "web", "containerPort": 8081}]}, {"name": "istio-proxy"}]});
        let with = |name: &str, value: &str| {
            let name = format!("traffic.sidecar.istio.io/{name}");
            capture(&json!({"annotations": {name: value}}), &spec)
        };
        let (web, other) = (TargetPort::Name("web".into()), TargetPort::Number(9090));
        let excluded = with("excludeInboundPorts", "8081, 7000");
        assert!(excluded.bypasses(80, Some(&web)));
        assert!(excluded.bypasses(7000, None));
        assert!(!excluded.bypasses(80, None));
        assert!(
            !excluded.bypasses(8081, Some(&other)),
            "the pod's port counts"
        );
        let included = with("includeInboundPorts", "8081");
        assert!(!included.bypasses(80, Some(&web)));
        assert!(included.bypasses(80, Some(&other)));
        assert!(!with("includeInboundPorts", "*").bypasses(80, None));
        assert!(with("includeInboundPorts", "").bypasses(80, None), "none");
        assert!(!capture(&json!({}), &spec).bypasses(80, Some(&web)));
    }

    #[test]
    fn fault_l7_pods_outside_of_sidecars() {
        let none = json!({"containers": [{"name": "app"}]});
        let host = json!({"hostNetwork": true, "containers": [{"name": "app"}]});
        assert!(capture(&json!({}), &host).on_host);
        assert!(!capture(&json!({}), &none).on_host);
        let redirected = json!({"annotations": {"ambient.istio.io/redirection": "enabled"}});
        assert!(capture(&redirected, &none).ambient);
        let labelled = json!({"labels": {"istio.io/dataplane-mode": "ambient"}});
        assert!(capture(&labelled, &none).ambient);
        assert!(!capture(&json!({}), &none).ambient);
    }
}
