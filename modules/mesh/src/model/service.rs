//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use trimtab_crds::fence::LAZY_XDS_ANNOTATION;

use super::{Identity, Labels, annotations};
use crate::addressed::{Addressed, ByAddress};
use crate::names::service_host;
use crate::table::{Known, Row};
use crate::{ExportDefaults, Exports, Protocol};

/// Annotation of Services in place of `exportTo`.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Which Service.
    pub id: Identity,
    /// Its host: `name.namespace.svc.domain`.
    pub host: Arc<str>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Annotations that modules read.
    pub annotations: Labels,
    /// Who sees it.
    pub exports: Exports,
    /// Host that an `ExternalName` stands for, in lower case; such a Service has no pods.
    pub external_name: Option<Arc<str>>,
    /// No virtual address: clients pick an endpoint themselves.
    pub headless: bool,
    /// Virtual addresses, sorted.
    pub addresses: Box<[IpAddr]>,
    /// Addresses of its load balancer.
    pub ingress: Box<[IpAddr]>,
    /// Addresses of `externalIPs`.
    pub external: Box<[IpAddr]>,
    /// Ports as they are written.
    pub ports: Box<[ServicePort]>,
    /// Labels of its pods; empty: it selects none.
    pub selector: Labels,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Port that callers use.
    pub number: u16,
    /// Name; empty: none.
    pub name: Box<str>,
    /// What carries it.
    pub transport: Transport,
    /// `appProtocol`.
    pub app_protocol: Option<Box<str>>,
    /// Port of the pods; `None`: the same. As for the API server, 0 and "" are no port.
    pub target: Option<TargetPort>,
}

/// A port of the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that each pod gives it.
    Name(Box<str>),
}

/// What carries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, also where nothing is written.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl ServicePort {
    /// What it speaks; `None`: Istio does not carry it.
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::of(
            self.transport.as_str(),
            &self.name,
            self.app_protocol.as_deref(),
        )
    }

    /// `None`: neither the port nor its target is a number from 1 to 65535.
    fn read(port: &v1::ServicePort) -> Option<Self> {
        let number = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
        Some(Self {
            number: number(port.port)?,
            name: port.name.as_deref().unwrap_or_default().into(),
            transport: match port.protocol.as_deref() {
                Some("UDP") => Transport::Udp,
                Some("SCTP") => Transport::Sctp,
                _ => Transport::Tcp,
            },
            app_protocol: port.app_protocol.as_deref().map(Into::into),
            target: match &port.target_port {
                None | Some(IntOrString::Int(0)) => None,
                Some(IntOrString::Int(n)) => Some(TargetPort::Number(number(*n)?)),
                Some(IntOrString::String(name)) if name.is_empty() => None,
                Some(IntOrString::String(name)) => Some(TargetPort::Name(name.as_str().into())),
            },
        })
    }
}

/// Addresses of the load balancer.
fn ingress(service: &v1::Service) -> Box<[IpAddr]> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|s| s.load_balancer.as_ref());
    let all = balancer.and_then(|b| b.ingress.as_ref());
    let all = all.into_iter().flatten().filter_map(|i| i.ip.as_deref());
    all.filter_map(|ip| ip.parse().ok()).collect()
}

impl Addressed for Service {
    fn single(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.addresses.iter().chain(&self.ingress);
        all.chain(&self.external).copied()
    }
}

impl Row for Service {
    type Object = v1::Service;
    type Index = ByAddress<Self>;

    fn read(object: &Arc<v1::Service>, known: &Known<'_, Self>) -> Option<Self> {
        let id = Identity::of(object.as_ref());
        let spec = object.spec.as_ref();
        let exports = object.annotations().get(EXPORT_TO);
        let exports = Exports::new(exports.iter().flat_map(|list| list.split(',')));
        let cluster_ip = spec.and_then(|s| s.cluster_ip.as_deref());
        let more = spec.and_then(|s| s.cluster_ips.as_ref());
        let all = more.into_iter().flatten().map(String::as_str);
        let all = cluster_ip.into_iter().chain(all);
        let addresses: BTreeSet<IpAddr> = all.clone().filter_map(|a| a.parse().ok()).collect();
        let external = spec.and_then(|s| s.external_ips.as_ref());
        let external = external.into_iter().flatten();
        let alias = spec.filter(|s| s.type_.as_deref() == Some("ExternalName"));
        let target = alias.map(|s| s.external_name.as_deref().unwrap_or_default());
        let ports = spec.and_then(|s| s.ports.as_ref());
        Some(Self {
            host: service_host(&id.name, &id.namespace, known.domain).into(),
            labels: Arc::new(object.labels().clone().into_iter().collect()),
            annotations: annotations(object.as_ref(), &[LAZY_XDS_ANNOTATION]),
            exports,
            external_name: target.map(|t| t.trim_end_matches('.').to_ascii_lowercase().into()),
            headless: all.clone().any(|a| a == "None"),
            addresses: addresses.into_iter().collect(),
            ingress: ingress(object),
            external: external.filter_map(|a| a.parse().ok()).collect(),
            ports: ports
                .into_iter()
                .flatten()
                .filter_map(ServicePort::read)
                .collect(),
            selector: spec.and_then(|s| s.selector.clone()).unwrap_or_default(),
            id,
        })
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        let exports = self.exports.under(&defaults.services)?;
        Some(Self {
            exports,
            ..self.clone()
        })
    }
}
