//! What pods need whatever they call: servers that their filters, providers and tracing ask, and names that only their
//! proxies resolve. istiod imports no service for these.
//!
//! Each object is looked at when it changes, and touches the fences of its namespace, or all when it is in the root one.

mod dns;
mod follow;
mod needs;
mod providers;
mod tables;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{Labels, MeshConfig};

use crate::config::LazyloadConfig;
use dns::Names;
pub use needs::{Needs, Touched};
use tables::{Place, Tables};

/// What changes leave for the next look.
#[derive(Debug, Default)]
struct State {
    istio_namespace: String,
    dns_hosts: bool,
    remote_jwks: bool,
    touched: Touched,
    names: Names,
}

/// What all pods need.
#[derive(Debug)]
pub struct Requirements {
    tables: Tables,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

impl Requirements {
    /// Nothing is known yet. `wake` is notified when something may be needed by others.
    pub fn new(config: &LazyloadConfig, mesh: &Mesh, wake: Arc<Notify>) -> Arc<Self> {
        let new = Self {
            tables: Tables::new(mesh),
            state: Mutex::default(),
            wake,
        };
        new.reconfigure(config);
        Arc::new(new)
    }

    /// Takes a changed configuration over; who calls computes all fences again.
    pub fn reconfigure(&self, config: &LazyloadConfig) {
        let mut state = self.state.lock();
        state.istio_namespace.clone_from(&config.istio_namespace);
        state.dns_hosts = config.dns_hosts;
        state.remote_jwks = config.remote_jwks;
    }

    /// Fences that changes touch.
    pub fn drain_changes(&self) -> Touched {
        std::mem::take(&mut self.state.lock().touched)
    }

    /// What the pods of a fence need. Without pods: what pods with the labels of its selector would.
    pub fn of(&self, namespace: &str, selector: Option<&Labels>) -> Needs {
        let mut out = Needs::default();
        let Some(selector) = selector else {
            return out;
        };
        let tables = &self.tables;
        let mesh = tables.mesh_config();
        let mesh = mesh.as_deref();
        let pods = &tables.pods_of(namespace, selector);
        let root = &self.root(mesh);
        let place = Place {
            namespace,
            root,
            pods,
        };
        tables.clusters(&place, &mut out);
        let asked = providers::asked(tables, &place, mesh);
        providers::resolve(&asked, mesh, &mut out);
        if let Some(name) = tables.unreadable() {
            out.remarks.insert(format!(
                "the MeshConfig in ConfigMap {name} cannot be read, so that servers which proxies ask for policies and telemetry may be out of scope: correct its key mesh"
            ));
        }
        let mut state = self.state.lock();
        if state.remote_jwks {
            tables.keys(&place, &mut out);
        }
        let wanted = state.dns_hosts;
        dns::add(&mut state.names, namespace, (pods, mesh), wanted, &mut out);
        out
    }

    /// Istio's root namespace: as the MeshConfig says, else the configuration.
    fn root(&self, mesh: Option<&MeshConfig>) -> String {
        let said = mesh.map(|mesh| &mesh.root_namespace);
        match said.filter(|root| !root.is_empty()) {
            Some(root) => root.clone(),
            None => self.state.lock().istio_namespace.clone(),
        }
    }

    fn touch(&self, namespace: &str) {
        let root = self.root(self.tables.mesh_config().as_deref());
        let mut state = self.state.lock();
        if namespace == root {
            state.touched.all = true;
        } else {
            state.touched.namespaces.insert(namespace.to_owned());
        }
        drop(state);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
