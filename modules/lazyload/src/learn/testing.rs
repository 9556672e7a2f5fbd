//! A directory for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::object::{Caller, Directory};

/// Pods `front-1` and `back-1` in `shop`, services `a` and `b` in `shop` and `redis` in `data`.
#[derive(Debug, Default)]
pub(crate) struct Small {
    pods: BTreeMap<(&'static str, &'static str), Caller>,
    addresses: BTreeMap<IpAddr, Caller>,
    hosts: BTreeMap<(IpAddr, u16), Vec<Arc<str>>>,
}

pub(crate) fn front() -> Caller {
    Caller::new("shop", "front")
}

pub(crate) fn small() -> Small {
    let mut small = Small::default();
    for (pod, workload, address) in [
        ("front-1", "front", "10.0.0.1"),
        ("back-1", "back", "10.0.0.2"),
        ("v6.dotted-1", "dotted", "fd00::1"),
    ] {
        let caller = Caller::new("shop", workload);
        small.pods.insert(("shop", pod), caller.clone());
        small.addresses.insert(address.parse().unwrap(), caller);
    }
    for (namespace, address) in [("mesh", "10.0.0.8"), ("shop", "10.0.0.9")] {
        let caller = Caller::new(namespace, crate::fallback::NAME);
        small.addresses.insert(address.parse().unwrap(), caller);
    }
    for (address, port, hosts) in [
        ("10.1.0.1", 80, &["a.shop.svc.cluster.local"][..]),
        (
            "10.1.0.2",
            6379,
            &[
                "redis.data.svc.cluster.local",
                "cache.data.svc.cluster.local",
            ],
        ),
        (
            "10.1.0.9",
            80,
            &["global-sidecar.trimtab.svc.cluster.local"],
        ),
        ("fd00::8", 80, &["a.shop.svc.cluster.local"]),
    ] {
        let mut hosts: Vec<Arc<str>> = hosts.iter().map(|h| Arc::from(*h)).collect();
        hosts.sort();
        small.hosts.insert((address.parse().unwrap(), port), hosts);
    }
    small
}

impl Directory for Small {
    fn caller_at(&self, address: IpAddr) -> Option<Caller> {
        self.addresses.get(&address).cloned()
    }

    fn caller_of_pod(&self, namespace: &str, pod: &str) -> Option<Caller> {
        let key = self
            .pods
            .keys()
            .find(|(ns, name)| *ns == namespace && *name == pod)?;
        self.pods.get(key).cloned()
    }

    /// All run as `default`.
    fn pod_as(&self, namespace: &str, pod: &str, account: &str) -> Option<Caller> {
        let caller = self.caller_of_pod(namespace, pod);
        caller.filter(|_| account == "default")
    }

    fn host_of_name(&self, name: &str, namespace: &str) -> Option<Arc<str>> {
        if name.ends_with(".wild.example") {
            return Some("*.wild.example".into());
        }
        let name = name.trim_end_matches(".cluster.local");
        let name = name.trim_end_matches(".svc");
        let (name, namespace) = name.split_once('.').unwrap_or((name, namespace));
        let known = [("a", "shop"), ("b", "shop"), ("redis", "data")];
        known
            .contains(&(name, namespace))
            .then(|| format!("{name}.{namespace}.svc.cluster.local").into())
    }

    fn hosts_at(&self, address: IpAddr, port: u16) -> Vec<Arc<str>> {
        let hosts = self.hosts.get(&(address, port));
        hosts.cloned().unwrap_or_default()
    }
}
