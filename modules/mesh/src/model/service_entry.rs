//! ServiceEntries.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kube::ResourceExt;
use trimtab_crds::istio::{self, ServiceEntryPort, ServiceEntrySpec};

use super::{Identity, Labels, annotations};
use crate::addressed::{Addressed, KeysAndAddresses};
use crate::table::{Keyed, Known, Row};
use crate::{ExportDefaults, Exports, Protocol};

/// Annotation with the labels of the workload, as Aeraki reads it.
const SELECTOR_ANNOTATION: &str = "workloadSelector";

/// A ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEntry {
    /// Which ServiceEntry.
    pub id: Identity,
    /// `metadata.resourceVersion`, for writes that must not overtake a change.
    pub version: Option<Box<str>>,
    /// Labels.
    pub labels: Labels,
    /// Annotations that modules read.
    pub annotations: Labels,
    /// Who sees it.
    pub exports: Exports,
    /// Addresses that Istio gave to its hosts, in `status.addresses`.
    pub allocated: Box<[IpAddr]>,
    /// The rest.
    pub spec: ServiceEntrySpec,
}

/// What a port of a ServiceEntry speaks; `None`: Istio does not carry it. Its `protocol` counts, not its name.
pub fn port_protocol(port: &ServiceEntryPort) -> Option<Protocol> {
    Protocol::of(&port.protocol, "", Some(&port.protocol))
}

impl ServiceEntry {
    /// Single addresses, also written as networks of one address.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.spec.addresses.iter().filter_map(|a| address(a))
    }

    /// Where in `spec.addresses` an address stands.
    pub fn position(&self, of: IpAddr) -> Option<usize> {
        let mut written = self.spec.addresses.iter();
        written.position(|a| address(a) == Some(of))
    }

    /// Networks that stand in place of addresses.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        let written = self.spec.addresses.iter();
        let written = written.filter(|a| address(a).is_none());
        written.filter_map(|a| a.parse().ok())
    }

    /// Whether each address is a single one: no network stands in place of addresses.
    pub fn has_single_addresses(&self) -> bool {
        self.addresses().count() == self.spec.addresses.len()
    }

    /// `workloadSelector.labels`; empty: nothing is selected.
    pub fn selector(&self) -> Labels {
        let selector = self.spec.workload_selector.as_ref();
        selector.map(|s| s.labels.clone()).unwrap_or_default()
    }

    /// Labels of the pods: the selector, else Aeraki's annotation (`value` for the label app, or `key: value`).
    pub fn workload_labels(&self) -> Labels {
        let selector = self.selector();
        if !selector.is_empty() {
            return selector;
        }
        let Some(text) = self.annotations.get(SELECTOR_ANNOTATION) else {
            return Labels::new();
        };
        let text = text.replace(' ', "");
        let (key, value) = text.split_once(':').unwrap_or(("app", &text));
        if value.is_empty() {
            return Labels::new();
        }
        Labels::from([(key.to_owned(), value.to_owned())])
    }
}

/// An address, also as a network of one address.
fn address(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (prefix.is_empty() || prefix == whole).then_some(address)
}

impl Addressed for ServiceEntry {
    fn single(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().chain(self.allocated.iter().copied())
    }

    fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.networks()
    }
}

/// By the hosts as they are written.
impl Keyed for ServiceEntry {
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.spec.hosts.iter().map(String::as_str)
    }
}

impl Row for ServiceEntry {
    type Object = istio::ServiceEntry;
    type Index = KeysAndAddresses<Self>;

    fn read(object: &Arc<istio::ServiceEntry>, _: &Known<'_, Self>) -> Option<Self> {
        let exports = object.spec.export_to.iter();
        let allocated = object.status.iter().flat_map(|s| &s.addresses);
        Some(Self {
            id: Identity::of(object.as_ref()),
            version: object.resource_version().map(Into::into),
            labels: object.labels().clone().into_iter().collect(),
            annotations: annotations(object.as_ref(), &[SELECTOR_ANNOTATION]),
            exports: Exports::new(exports.map(String::as_str)),
            allocated: allocated.filter_map(|a| a.value.parse().ok()).collect(),
            spec: object.spec.clone(),
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
