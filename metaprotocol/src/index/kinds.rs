//! What the index keeps of each kind, and what others name its objects by.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, Gateway, ServiceEntry};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};

use trimtab_mesh::names::{full_host, meant, service_host};

use super::table::Kept;

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A gateway as routers name it. Hosts have no slash, so that the two are not mixed up.
pub(super) fn gateway_key(name: &str, namespace: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

impl Kept for Service {
    fn keys(&self, domain: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        vec![service_host(&self.name_any(), &namespace, domain)]
    }

    fn same(&self, other: &Self) -> bool {
        self.spec == other.spec && self.meta().uid == other.meta().uid
    }

    fn prune(&mut self) {
        self.status = None;
        self.metadata.labels = None;
        self.metadata.annotations = None;
        if let Some(spec) = self.spec.take() {
            self.spec = Some(k8s_openapi::api::core::v1::ServiceSpec {
                cluster_ip: spec.cluster_ip,
                cluster_ips: spec.cluster_ips,
                ports: spec.ports,
                selector: spec.selector,
                type_: spec.type_,
                ..Default::default()
            });
        }
    }
}

impl Kept for EndpointSlice {
    fn keys(&self, domain: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let service = self.labels().get(SERVICE_NAME);
        service
            .map(|name| service_host(name, &namespace, domain))
            .into_iter()
            .collect()
    }

    fn same(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.ports == other.ports
            && self.labels().get(SERVICE_NAME) == other.labels().get(SERVICE_NAME)
    }

    fn prune(&mut self) {
        self.metadata.annotations = None;
        for endpoint in &mut self.endpoints {
            *endpoint = k8s_openapi::api::discovery::v1::Endpoint {
                addresses: std::mem::take(&mut endpoint.addresses),
                conditions: endpoint.conditions.take(),
                ..Default::default()
            };
        }
    }
}

impl Kept for ServiceEntry {
    fn keys(&self, _domain: &str) -> Vec<String> {
        self.spec.hosts.clone()
    }
}

impl Kept for DestinationRule {
    fn keys(&self, domain: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let host = full_host(&self.spec.host, &namespace, domain);
        meant(&host, domain).into_iter().chain([host]).collect()
    }
}

impl Kept for Gateway {
    fn keys(&self, _domain: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        vec![gateway_key(&self.name_any(), &namespace)]
    }
}

impl Kept for MetaRouter {
    /// The host, and the gateways.
    fn keys(&self, _domain: &str) -> Vec<String> {
        let namespace = self.namespace().unwrap_or_default();
        let gateways = self
            .spec
            .gateways
            .iter()
            .map(|g| gateway_key(g, &namespace));
        gateways.chain([self.spec.host().to_owned()]).collect()
    }
}

impl Kept for ApplicationProtocol {
    /// The protocol.
    fn keys(&self, _domain: &str) -> Vec<String> {
        vec![self.spec.protocol.clone()]
    }
}

impl Kept for RedisService {
    fn keys(&self, _domain: &str) -> Vec<String> {
        self.spec.host.clone()
    }
}

impl Kept for RedisDestination {
    fn keys(&self, _domain: &str) -> Vec<String> {
        vec![self.spec.host.clone()]
    }
}

impl Kept for DubboAuthorizationPolicy {
    /// The namespace.
    fn keys(&self, _domain: &str) -> Vec<String> {
        vec![self.namespace().unwrap_or_default()]
    }
}
