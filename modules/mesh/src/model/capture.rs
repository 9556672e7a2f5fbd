//! What stands between a pod and its callers: the proxy of its own, and the ports that traffic reaches without it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1;
use kube::ResourceExt;

use super::mesh_config::{DNS_CAPTURE, ProxyConfig, is_true};
use super::service::TargetPort;

/// Name of the proxy's container, in sidecars and in gateways.
const PROXY: &str = "istio-proxy";
/// Ports that go around the proxy.
const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Ports that go through the proxy; without it all of them.
const INCLUDED: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Templates of the injector that a pod asks for.
const TEMPLATES: &str = "inject.istio.io/templates";
/// The template of gateways.
const GATEWAY: &str = "gateway";
/// Names the Gateway (of the Gateway API) that a pod is for.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label or annotation of a pod that takes no sidecar, or asks for one.
const INJECT: &str = "sidecar.istio.io/inject";
/// Configuration of the proxy, as YAML.
const PROXY_CONFIG: &str = "proxy.istio.io/config";
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

/// Why istiod gives a pod no Sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// It is a gateway.
    Gateway,
    /// It is a waypoint of ambient mode.
    Waypoint,
    /// It is on the host's network, where no sidecar is injected.
    HostNetwork,
    /// It asks for no sidecar.
    NotInjected,
    /// The node's proxy carries its traffic.
    Ambient,
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
    /// It asks for no sidecar.
    pub not_injected: bool,
    /// Whether its proxy answers its DNS queries; `None`: the mesh's default decides.
    pub dns: Option<bool>,
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
            not_injected: pod.labels().get(INJECT).map(String::as_str) == Some("false")
                || annotation(INJECT) == Some("false"),
            dns: dns(pod, annotation(PROXY_CONFIG)),
            ports: ports(pod, annotation(INCLUDED), annotation(EXCLUDED)).map(Box::new),
        }
    }

    /// Why istiod gives the pod no Sidecar; `None`: it does, or will when one is injected. `ambient`: for its namespace too.
    pub fn outside(&self, ambient: bool) -> Option<Outside> {
        match self.proxy {
            Proxy::Gateway => Some(Outside::Gateway),
            Proxy::Waypoint => Some(Outside::Waypoint),
            _ if self.on_host => Some(Outside::HostNetwork),
            Proxy::None if self.not_injected => Some(Outside::NotInjected),
            Proxy::None if ambient => Some(Outside::Ambient),
            _ => None,
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
fn container(pod: &v1::Pod) -> Option<&v1::Container> {
    let spec = pod.spec.as_ref()?;
    let native = spec.init_containers.iter().flatten();
    let native = native.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut all = spec.containers.iter().chain(native);
    all.find(|c| c.name == PROXY)
}

/// By the arguments of its container; a gateway is known by its template and its labels too, also before the injection.
fn proxy(pod: &v1::Pod) -> Proxy {
    let container = container(pod);
    let templates = pod.annotations().get(TEMPLATES);
    let templates = templates.iter().flat_map(|list| list.split(','));
    let templates: Vec<&str> = templates.map(str::trim).collect();
    if templates.contains(&AGENT_ONLY) {
        return Proxy::None;
    }
    let label = |name: &str| pod.labels().get(name).map(String::as_str);
    let arguments = container.iter().flat_map(|c| c.args.iter().flatten());
    let mut arguments = arguments.map(String::as_str);
    let role = arguments.find(|a| ["sidecar", "router", "waypoint"].contains(a));
    if label(MANAGED) == Some(MESH_CONTROLLER) {
        return Proxy::Waypoint;
    }
    match role {
        Some("waypoint") => Proxy::Waypoint,
        Some("router") => Proxy::Gateway,
        Some("sidecar") => Proxy::Sidecar,
        _ if templates.contains(&GATEWAY) || label(GATEWAY_NAME).is_some() => Proxy::Gateway,
        _ if container.is_none() => Proxy::None,
        _ => Proxy::Any,
    }
}

/// What the proxy's environment says of DNS, else the pod's own configuration of it.
fn dns(pod: &v1::Pod, config: Option<&str>) -> Option<bool> {
    let environment = container(pod)
        .into_iter()
        .flat_map(|c| c.env.iter().flatten());
    let mut values = environment.filter(|e| e.name == DNS_CAPTURE);
    let said = values.find_map(|e| e.value.as_deref()).map(is_true);
    said.or_else(|| ProxyConfig::parse(config?)?.captures_dns())
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
    fn fault_s18_pods_that_obey_no_sidecar() {
        let app = json!({"containers": [{"name": "app"}]});
        let meshed = json!({"containers": [{"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"]}]});
        let router = json!({"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]});
        let auto = json!({"containers": [{"name": "istio-proxy", "image": "auto"}]});
        let host = json!({"hostNetwork": true, "containers": [{"name": "app"}]});
        let template = json!({"annotations": {"inject.istio.io/templates": "gateway"}});
        let named = json!({"labels": {"gateway.networking.k8s.io/gateway-name": "edge"}});
        let waypoint = json!({"labels": {"gateway.networking.k8s.io/gateway-name": "w", "gateway.istio.io/managed": "istio.io-mesh-controller"}});
        let none = json!({});
        let refused = json!({"labels": {"sidecar.istio.io/inject": "false"}});
        let annotated = json!({"annotations": {"sidecar.istio.io/inject": "false"}});
        let ambient = json!({"labels": {"istio.io/dataplane-mode": "ambient"}});
        for (metadata, spec, wanted) in [
            (&none, &app, None),
            (&none, &meshed, None),
            (&ambient, &meshed, None),
            (&refused, &meshed, None),
            (&none, &router, Some(Outside::Gateway)),
            (&template, &auto, Some(Outside::Gateway)),
            (&named, &auto, Some(Outside::Gateway)),
            (&named, &meshed, None),
            (&waypoint, &auto, Some(Outside::Waypoint)),
            (&none, &host, Some(Outside::HostNetwork)),
            (&refused, &app, Some(Outside::NotInjected)),
            (&annotated, &app, Some(Outside::NotInjected)),
            (&ambient, &app, Some(Outside::Ambient)),
        ] {
            let capture = capture(metadata, spec);
            assert_eq!(
                capture.outside(capture.ambient),
                wanted,
                "{metadata} {spec}"
            );
        }
        assert_eq!(capture(&none, &app).outside(true), Some(Outside::Ambient));
    }

    #[test]
    fn fault_s9_who_says_that_dns_is_captured() {
        let config = |value: &str| json!({"annotations": {"proxy.istio.io/config": format!("proxyMetadata: {{ISTIO_META_DNS_CAPTURE: \"{value}\"}}")}});
        let app = json!({"containers": [{"name": "app", "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]}]});
        let proxy = |value: &str| json!({"containers": [{"name": "istio-proxy", "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": value}]}]});
        assert_eq!(capture(&json!({}), &app).dns, None, "of the application");
        assert_eq!(capture(&config("true"), &app).dns, Some(true));
        assert_eq!(capture(&json!({}), &proxy("true")).dns, Some(true));
        assert_eq!(
            capture(&config("true"), &proxy("false")).dns,
            Some(false),
            "as it was injected"
        );
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
