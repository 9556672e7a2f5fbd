//! Services as a proxy has them.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::scope::services::{HostEntry, Port, Registry};

/// A host as a proxy has it.
#[derive(Clone, Debug)]
pub struct Service {
    /// The host.
    pub entry: Arc<HostEntry>,
    /// Its addresses; of a ServiceEntry, which istiod takes for a service for each, one.
    pub addresses: Vec<IpNet>,
    /// Ports that the proxy has.
    pub ports: Vec<Port>,
    /// Hosts of ExternalNames that stand for it and that the proxy knows; sorted.
    pub aliases: Vec<Arc<HostEntry>>,
}

impl Service {
    /// Its host.
    pub fn host(&self) -> &Arc<str> {
        &self.entry.host
    }

    /// Those of an entry, without aliases: of a ServiceEntry one for each address.
    pub(super) fn of(entry: &Arc<HostEntry>) -> Vec<Self> {
        let with = |addresses: Vec<IpNet>| Self {
            addresses,
            ports: entry.ports.to_vec(),
            aliases: Vec::new(),
            entry: entry.clone(),
        };
        if entry.registry == Registry::Kubernetes || entry.addresses.len() < 2 {
            return vec![with(entry.addresses.to_vec())];
        }
        entry.addresses.iter().map(|a| with(vec![*a])).collect()
    }

    fn can_join(&self, other: &Self) -> bool {
        let key = |e: &HostEntry| {
            (
                e.namespace.clone(),
                e.resolution,
                e.registry,
                e.labels.clone(),
                e.selects,
                e.exports.written(),
            )
        };
        key(&self.entry) == key(&other.entry)
    }
}

/// Services that a proxy knows; of one host there is one, with the ports of all that are alike.
#[derive(Default)]
pub(super) struct Known {
    pub(super) services: Vec<Service>,
    by_host: HashMap<Arc<str>, usize>,
}

impl Known {
    pub(super) fn add(&mut self, service: Service) {
        let at = self.by_host.get(&service.entry.host);
        let Some(old) = at.and_then(|at| self.services.get_mut(*at)) else {
            self.by_host
                .insert(service.entry.host.clone(), self.services.len());
            self.services.push(service);
            return;
        };
        let (before, now) = (old.entry.registry, service.entry.registry);
        if before == Registry::Kubernetes && now != Registry::Kubernetes {
            return;
        }
        if before != Registry::Kubernetes && now == Registry::Kubernetes {
            *old = service;
            return;
        }
        if old.ports != service.ports && old.can_join(&service) {
            let more = service.ports.into_iter();
            let more: Vec<Port> = more
                .filter(|p| old.ports.iter().all(|o| o.number != p.number))
                .collect();
            old.ports.extend(more);
        }
    }
}
