//! VirtualServices: whose calls they route, and where to.

use std::sync::Arc;

use trimtab_crds::istio;

use super::Identity;
use super::route::{HttpRule, Reader, SIDECARS, TcpRule};
use crate::table::{Known, Row};
use crate::{ExportDefaults, Exports};

/// Which kind of object routes are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// A VirtualService.
    #[default]
    VirtualService,
    /// An HTTPRoute of a Service.
    HttpRoute,
    /// A GRPCRoute of a Service.
    GrpcRoute,
}

impl RouteKind {
    /// Its name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
        }
    }

    /// Whether it is of the Gateway API: of a Service that is there, and for its namespace and the route's own.
    pub fn is_gateway_api(self) -> bool {
        self != Self::VirtualService
    }
}

/// A VirtualService, or what istiod makes of a route of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualService {
    /// Which object.
    pub id: Identity,
    /// What it was written as.
    pub kind: RouteKind,
    /// Full hosts, wildcards too, sorted; none of a delegate. A host `*` is left out: istiod refuses it for sidecars.
    pub hosts: Box<[Arc<str>]>,
    /// Whether sidecars get it.
    pub mesh: bool,
    /// Who sees it.
    pub exports: Exports,
    /// Full hosts of the destinations of all rules, mirrors too; sorted, each once.
    pub destinations: Box<[Arc<str>]>,
    /// Namespace and name of the VirtualServices that HTTP rules delegate to; sorted, each once.
    pub delegates: Box<[(Arc<str>, Arc<str>)]>,
    /// Number of rules.
    pub rules: usize,
    /// Rules for HTTP, in order.
    pub http: Box<[HttpRule]>,
    /// Rules for TLS, in order.
    pub tls: Box<[TcpRule]>,
    /// Rules for TCP, in order.
    pub tcp: Box<[TcpRule]>,
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Box<[T]> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items.dedup();
    items.into()
}

impl VirtualService {
    /// The same with what follows from its rules.
    pub(super) fn summed_up(mut self) -> Self {
        let http = self.http.iter().flat_map(HttpRule::destinations);
        let rest = self
            .tls
            .iter()
            .chain(&self.tcp)
            .flat_map(|rule| &rule.routes);
        let all = http.chain(rest.map(|route| &route.to)).map(|to| &to.host);
        self.destinations = sorted(all.filter(|host| !host.is_empty()).cloned());
        self.delegates = sorted(self.http.iter().filter_map(|rule| rule.delegate.clone()));
        self.rules = self.http.len() + self.tls.len() + self.tcp.len();
        self
    }
}

impl Row for VirtualService {
    type Object = istio::VirtualService;
    type Index = ();

    fn read(object: &Arc<istio::VirtualService>, known: &Known<'_, Self>) -> Option<Self> {
        let id = Identity::of(object.as_ref());
        let spec = &object.spec;
        let namespace = id.namespace.clone();
        let reader = Reader {
            namespace: &namespace,
            domain: known.domain,
        };
        let hosts = spec.hosts.iter().map(|h| reader.full(h));
        let read = Self {
            hosts: sorted(hosts.filter(|h| !h.is_empty() && **h != *"*")),
            mesh: spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == SIDECARS),
            exports: Exports::new(spec.export_to.iter().map(String::as_str)),
            http: spec.http.iter().map(|rule| reader.http(rule)).collect(),
            tls: spec.tls.iter().map(|rule| reader.tcp(rule)).collect(),
            tcp: spec.tcp.iter().map(|rule| reader.tcp(rule)).collect(),
            id,
            ..Self::default()
        };
        Some(read.summed_up())
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        let exports = self.exports.under(&defaults.virtual_services)?;
        Some(Self {
            exports,
            ..self.clone()
        })
    }
}
