//! Look-ups of the learners.

use std::net::IpAddr;
use std::sync::Arc;

use super::Index;
use crate::object::{Caller, Directory};
use trimtab_mesh::names::normal;

use crate::scope::names::find;

impl Directory for Index {
    fn caller_at(&self, address: IpAddr) -> Option<Caller> {
        self.state.read().pods.rows().index().workload_at(address)
    }

    fn caller_of_pod(&self, namespace: &str, pod: &str) -> Option<Caller> {
        let pod = self.state.read().pods.get(namespace, pod)?;
        Some(pod.group.workload.clone())
    }

    fn pod_at(&self, namespace: &str, pod: &str, address: IpAddr) -> Option<Caller> {
        let pod = self.state.read().pods.get(namespace, pod)?;
        let own = pod.addresses.contains(&address.to_canonical());
        own.then(|| pod.group.workload.clone())
    }

    fn pod_as(&self, namespace: &str, pod: &str, account: &str) -> Option<Caller> {
        let pod = self.state.read().pods.get(namespace, pod)?;
        let own = *pod.group.account == *account;
        own.then(|| pod.group.workload.clone())
    }

    fn known_host(&self, host: &str) -> Option<Arc<str>> {
        let state = self.state.read();
        let exact = state.registry.known(host);
        // Hosts of VirtualServices and those under a wildcard are seldom the name of a cluster.
        exact.or_else(|| {
            find(&state.registry, host, "", &state.domain)
                .host
                .map(Into::into)
        })
    }

    fn host_of_name(&self, name: &str, namespace: &str) -> Option<Arc<str>> {
        let name = normal(name)?;
        let state = self.state.read();
        let found = find(&state.registry, &name, namespace, &state.domain);
        found.host.map(Into::into)
    }

    fn hosts_at(&self, address: IpAddr, port: u16) -> Vec<Arc<str>> {
        let state = self.state.read();
        state.addresses.find(address, port, &state.registry)
    }
}
