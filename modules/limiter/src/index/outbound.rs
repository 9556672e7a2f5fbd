//! Outbound virtual hosts that limiters name, and whether any proxy has them.
//!
//! istiod makes a virtual host `<host>:<port>` of each host of a Service, a ServiceEntry and a VirtualService.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use trimtab_crds::limiter::LimiterSpec;
use trimtab_mesh::model::{Service, VirtualService, port_protocol};
use trimtab_mesh::names::{covers, full_host, service_of};

use super::key::LimiterKey;
use super::targets::Targets;
use crate::input::Opaque;
use crate::validate::virtual_hosts;

/// Virtual hosts that istiod makes for calls to no known host.
const BUILT_IN: [&str; 2] = ["allow_any", "block_all"];

/// Limiters by the hosts that they name.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    limiters: HashMap<String, HashSet<LimiterKey>>,
    hosts: HashMap<LimiterKey, BTreeSet<String>>,
    /// Full hosts of VirtualServices, with their number.
    routed: HashMap<Arc<str>, usize>,
}

/// Host and port of a virtual host's name.
fn split(name: &str) -> Option<(&str, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

impl Outbound {
    /// Notes what a limiter names, and says which of it no proxy has.
    pub(super) fn resolve(
        &mut self,
        key: &LimiterKey,
        spec: &LimiterSpec,
        targets: &Targets,
    ) -> BTreeMap<String, String> {
        self.forget(key);
        let names = virtual_hosts(spec);
        let bare = |name: &String| {
            split(name)
                .map_or(name.as_str(), |(host, _)| host)
                .to_owned()
        };
        let hosts: BTreeSet<String> = names.iter().map(bare).collect();
        for host in &hosts {
            let keys = self.limiters.entry(host.clone()).or_default();
            keys.insert(key.clone());
        }
        if !hosts.is_empty() {
            self.hosts.insert(key.clone(), hosts);
        }
        let missing = names.into_iter().filter_map(|name| {
            let why = self.missing(&name, spec.gateway, key, targets)?;
            Some((name, why))
        });
        missing.collect()
    }

    /// A limiter is gone.
    pub(super) fn forget(&mut self, key: &LimiterKey) {
        for host in self.hosts.remove(key).unwrap_or_default() {
            if let Some(keys) = self.limiters.get_mut(&host) {
                keys.remove(key);
                if keys.is_empty() {
                    self.limiters.remove(&host);
                }
            }
        }
    }

    /// Limiters that name a host, or one under a wildcard.
    pub(super) fn naming(&self, host: &str) -> Vec<LimiterKey> {
        if host.starts_with('*') {
            let under = self
                .limiters
                .iter()
                .filter(|(named, _)| covers(host, named));
            return under.flat_map(|(_, keys)| keys).cloned().collect();
        }
        let keys = self.limiters.get(host).into_iter().flatten();
        keys.cloned().collect()
    }

    /// Notes the hosts of a VirtualService as it was and as it is.
    pub(super) fn route(&mut self, old: Option<&VirtualService>, new: Option<&VirtualService>) {
        for host in new.iter().flat_map(|rule| &rule.hosts) {
            *self.routed.entry(host.clone()).or_default() += 1;
        }
        for host in old.iter().flat_map(|rule| &rule.hosts) {
            if let Some(count) = self.routed.get_mut(host) {
                *count -= 1;
                if *count == 0 {
                    self.routed.remove(host);
                }
            }
        }
    }

    /// Why no proxy has a virtual host of the name; none: one has, as far as is known.
    fn missing(
        &self,
        name: &str,
        gateway: bool,
        key: &LimiterKey,
        targets: &Targets,
    ) -> Option<String> {
        if BUILT_IN.contains(&name) {
            return None;
        }
        let Some((host, port)) = split(name) else {
            return Some(format!(
                "virtual hosts are named <host>:<port>: write \"{name}:80\", or set target.port"
            ));
        };
        if self.routed.contains_key(host) {
            return None;
        }
        if gateway {
            let wild = self.routed.keys().filter(|h| h.starts_with('*'));
            let covered = wild.into_iter().any(|pattern| covers(pattern, host));
            return (!covered).then(|| {
                format!("no VirtualService has the host \"{host}\", and routes of the Gateway API are not known here")
            });
        }
        let domain = &targets.domain;
        if let Some((service, namespace)) = service_of(host, domain)
            && let Some(service) = targets.services.get(namespace, service)
        {
            return of_service(&service, port);
        }
        let entries = targets.entries.rows();
        let ports: Vec<(u16, Option<Opaque>)> = entries
            .of(host)
            .flat_map(|(_, entry)| &entry.spec.ports)
            .filter_map(|p| Some((u16::try_from(p.number).ok()?, Opaque::of(port_protocol(p)))))
            .collect();
        let known = entries.of(host).next().is_some();
        drop(entries);
        if known {
            return of_ports(&format!("the ServiceEntry of {host}"), &ports, port);
        }
        let full = full_host(host, &key.namespace, domain);
        let fix = if full == host {
            "correct it, or create what has it".to_owned()
        } else {
            format!("write \"{full}:{port}\" for the Service, as istiod names it")
        };
        Some(format!(
            "no Service, ServiceEntry or VirtualService has the host \"{host}\": {fix}"
        ))
    }
}

fn of_service(service: &Service, port: u16) -> Option<String> {
    let ports: Vec<(u16, Option<Opaque>)> = service
        .ports
        .iter()
        .map(|p| (p.number, Opaque::of(p.protocol())))
        .collect();
    let what = format!("Service {}/{}", service.id.namespace, service.id.name);
    of_ports(&what, &ports, port)
}

fn of_ports(what: &str, ports: &[(u16, Option<Opaque>)], port: u16) -> Option<String> {
    let own: Vec<Option<Opaque>> = ports
        .iter()
        .filter(|(number, _)| *number == port)
        .map(|(_, opaque)| *opaque)
        .collect();
    if own.iter().any(Option::is_none) {
        return None;
    }
    if let Some(opaque) = own.into_iter().flatten().next() {
        return Some(format!(
            "port {port} of {what} carries {}: proxies see no requests on it",
            opaque.title()
        ));
    }
    let numbers: BTreeSet<u16> = ports.iter().map(|(number, _)| *number).collect();
    let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
    Some(format!(
        "{what} has no port {port}: use {}",
        numbers.join(" or ")
    ))
}
