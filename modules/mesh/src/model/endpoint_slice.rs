//! EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1;
use kube::ResourceExt;

use super::Labels;
use crate::addressed::{Addressed, KeysAndAddresses};
use crate::names::service_host;
use crate::table::{Keyed, Known, Row};

/// Label with the name of the Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of slices of Services without an address of their own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Label with what keeps the slice.
const KEEPER: &str = "endpointslice.kubernetes.io/managed-by";
/// What keeps the slices of Services that select pods.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Some endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Host of the Service; empty: it is of none.
    pub host: Arc<str>,
    /// Names and numbers of the ports; a name may be empty.
    pub ports: Box<[(Box<str>, u16)]>,
    /// Endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Labels, where an endpoint is no pod: a slice that a user wrote.
    pub labels: Labels,
    /// Kubernetes keeps it, by the pods that the Service selects.
    pub controlled: bool,
    /// Of a Service without an address of its own, so that callers use those of the endpoints; also where nothing says
    /// whether it is.
    pub headless: bool,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses as they are written: IP addresses or, in slices of names, host names.
    pub addresses: Box<[Box<str>]>,
    /// Whether it takes calls; without a word on that it does.
    pub ready: bool,
    /// Name of its pod, in the slice's namespace.
    pub pod: Option<Box<str>>,
}

impl EndpointSlice {
    /// Number of the port with a name.
    pub fn port(&self, name: &str) -> Option<u16> {
        let port = self.ports.iter().find(|(n, _)| **n == *name);
        port.map(|(_, number)| *number)
    }

    /// IP addresses of all endpoints, ready or not.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.endpoints.iter().flat_map(|e| &e.addresses);
        all.filter_map(|a| a.parse().ok())
    }
}

fn endpoint(endpoint: &v1::Endpoint, namespace: &str) -> Endpoint {
    let target = endpoint.target_ref.as_ref();
    let here = target.filter(|t| t.namespace.as_deref().is_none_or(|n| n == namespace));
    let conditions = endpoint.conditions.as_ref();
    Endpoint {
        addresses: endpoint
            .addresses
            .iter()
            .map(|a| a.as_str().into())
            .collect(),
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        pod: here.and_then(|t| t.name.as_deref()).map(Into::into),
    }
}

/// Addresses that callers use; those of pods behind an address of the Service are not indexed.
impl Addressed for EndpointSlice {
    fn single(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().filter(|_| self.headless)
    }
}

/// By the host of the Service.
impl Keyed for EndpointSlice {
    fn keys(&self) -> impl Iterator<Item = &str> {
        Some(&*self.host).into_iter().filter(|h| !h.is_empty())
    }
}

impl Row for EndpointSlice {
    type Object = v1::EndpointSlice;
    type Index = KeysAndAddresses<Self>;

    fn read(object: &Arc<v1::EndpointSlice>, known: &Known<'_, Self>) -> Option<Self> {
        let namespace = object.namespace().unwrap_or_default();
        let service = object.labels().get(SERVICE_NAME);
        let ports = object.ports.iter().flatten().filter_map(|p| {
            let number = p.port.and_then(|n| u16::try_from(n).ok())?;
            Some((p.name.as_deref().unwrap_or_default().into(), number))
        });
        let all = object.endpoints.iter();
        let endpoints: Box<[Endpoint]> = all.map(|e| endpoint(e, &namespace)).collect();
        let written = endpoints.iter().any(|e| e.pod.is_none());
        let labels = written.then(|| object.labels().clone().into_iter().collect());
        let controlled = object.labels().get(KEEPER).is_some_and(|v| v == CONTROLLER);
        Some(Self {
            controlled,
            headless: !controlled || object.labels().contains_key(HEADLESS),
            namespace: namespace.as_str().into(),
            host: service
                .map(|name| service_host(name, &namespace, known.domain).into())
                .unwrap_or_default(),
            ports: ports.collect(),
            endpoints,
            labels: labels.unwrap_or_default(),
        })
    }
}
