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
