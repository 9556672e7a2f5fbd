//! VirtualServices: whose calls they route, and where to.

use std::sync::Arc;

use trimtab_crds::istio;

use super::Identity;
use crate::names::full_host;
use crate::table::{Known, Row};
use crate::{ExportDefaults, Exports};

/// A VirtualService, without what its rules say of single requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualService {
    /// Which VirtualService.
    pub id: Identity,
    /// Full hosts, wildcards too, sorted; none of a delegate. A host `*` is left out: istiod refuses it for sidecars.
    pub hosts: Box<[Arc<str>]>,
    /// Whether sidecars get it.
    pub mesh: bool,
    /// Who sees it.
    pub exports: Exports,
    /// Full hosts of the destinations of all rules, mirrors too; sorted, each once.
    pub destinations: Box<[Arc<str>]>,
    /// Namespace and name of the VirtualServices that HTTP rules delegate to; sorted.
    pub delegates: Box<[(Arc<str>, Arc<str>)]>,
    /// Number of rules.
    pub rules: usize,
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Box<[T]> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items.dedup();
    items.into()
}

impl Row for VirtualService {
    type Object = istio::VirtualService;
    type Index = ();

    fn read(object: &Arc<istio::VirtualService>, known: &Known<'_, Self>) -> Option<Self> {
        let id = Identity::of(object.as_ref());
        let spec = &object.spec;
        let full = |host: &str| -> Arc<str> { full_host(host, &id.namespace, known.domain).into() };
        let hosts = spec.hosts.iter().map(|h| full(h));
        let destinations = spec.destinations().filter(|d| !d.host.is_empty());
        let delegates = spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
        let delegates = delegates.filter(|d| !d.name.is_empty()).map(|d| {
            let own = d.namespace.is_empty();
            let namespace = if own {
                id.namespace.clone()
            } else {
                d.namespace.as_str().into()
            };
            (namespace, d.name.as_str().into())
        });
        Some(Self {
            hosts: sorted(hosts.filter(|h| !h.is_empty() && **h != *"*")),
            mesh: spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh"),
            exports: Exports::new(spec.export_to.iter().map(String::as_str)),
            destinations: sorted(destinations.map(|d| full(&d.host))),
            delegates: sorted(delegates),
            rules: spec.http.len() + spec.tls.len() + spec.tcp.len(),
            id,
        })
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        let exports = self.exports.under(&defaults.virtual_services)?;
        Some(Self {
            exports,
            ..self.clone()
        })
    }
}
