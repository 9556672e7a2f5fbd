//! The first call: what carries calls to hosts that are not in a workload's scope.
//!
//! ```text
//! application -> its sidecar --(catch-all route of port p)--> fallback -> the fallback's sidecar, all in scope -> server
//! ```
//!
//! [`filters()`] makes the EnvoyFilters of the first arrow, [`proxy`] the configuration of the fallback, a stock Envoy,
//! [`manifests()`] the objects that run it, [`ports`] says which ports are HTTP in the mesh. All of it is pure and sorted:
//! the same input gives the same bytes.
//!
//! Nothing of Istio's is removed: routes are put in front of the catch-all that Istio makes itself, in the virtual host
//! `allow_any` (ALLOW_ANY) or `block_all` (REGISTRY_ONLY), whichever a proxy has. So there is never a second `*` virtual
//! host, for which Envoy would refuse the route configuration, and deleting the EnvoyFilter restores what was.
//!
//! # One port number, several protocols
//!
//! Istio makes one listener `0.0.0.0_p` for all HTTP services of port `p`. It looks at the first bytes: what is no HTTP takes
//! the filter chain `PassthroughFilterChain`, to `PassthroughCluster` or `BlackHoleCluster`. A TCP service of port `p` that
//! is in scope has a listener for its own address, which wins. So a port that is HTTP somewhere and TCP elsewhere
//! stays usable for both; with `fallback.tcp` the filter chain for non-HTTP leads to the fallback as well.

mod dispatch;
mod envoy_filter;
mod manifests;
pub mod ports;
pub mod proxy;
mod routes;
mod tcp;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use trimtab_kit::generated::labels;
use trimtab_mesh::names::service_host;

use crate::config::{GlobalSidecarMode, LazyloadConfig};
use proxy::ProxyOptions;

pub use envoy_filter::{filters, own_policy};
pub use manifests::{Deploy, assumed, manifests, service_ports};
pub use routes::{
    DESTINATION_HEADER, SOURCE_HEADER, SOURCE_NAMESPACE_HEADER, is_needed, without_pods,
};
pub use tcp::TCP_CLUSTER;

/// Name of the fallback's Service, Deployment, ServiceAccount and DestinationRule; Slime's.
pub const NAME: &str = "global-sidecar";
/// Name of the EnvoyFilters; Slime's.
pub const FILTER_NAME: &str = "to-global-sidecar";
/// Value of [`trimtab_kit::generated::MODULE_LABEL`].
pub const MODULE: &str = "lazyload";
/// Node metadata of the fallback's own sidecars; Slime's. The pod sets it as `ISTIO_META_SLIME_APP`.
pub const PROXY_METADATA: (&str, &str) = ("SLIME_APP", "LAZYLOAD_GLOBAL_SIDECAR");
pub use crate::config::TCP_PORT;
/// The Service's port that all unknown HTTP calls are sent to, as in Slime.
pub const DEFAULT_PORT: u16 = 80;

/// All that the outputs depend on; the input of the golden cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FallbackInput {
    /// Configuration of the module; [`LazyloadConfig::check`] has accepted it.
    pub config: LazyloadConfig,
    /// HTTP ports of services, see [`ports`].
    pub ports: BTreeSet<u16>,
    /// The Service's port that unknown HTTP calls are sent to. It is in `ports` in any case.
    pub port: u16,
    /// Pods that are wired; empty: all of the EnvoyFilter's scope.
    pub workload_selector: BTreeMap<String, String>,
    /// The fallback's proxy.
    pub proxy: ProxyOptions,
    /// The fallback's objects.
    pub deploy: Deploy,
}

impl Default for FallbackInput {
    fn default() -> Self {
        Self {
            config: LazyloadConfig::default(),
            ports: BTreeSet::new(),
            port: DEFAULT_PORT,
            workload_selector: BTreeMap::new(),
            proxy: ProxyOptions::default(),
            deploy: Deploy::default(),
        }
    }
}

/// One fallback and who uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Namespace of the EnvoyFilter: Istio's root for the mesh, else that of the callers.
    filter_namespace: String,
    /// Namespace of the fallback.
    namespace: String,
    /// Namespace of the callers, when it is one.
    callers: Option<String>,
}

impl FallbackInput {
    /// Checks the configuration and the options. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        self.config.check()?;
        self.proxy.check().map_err(|e| format!("proxy.{e}"))?;
        if self.port == TCP_PORT {
            return Err(format!(
                "port {TCP_PORT} is the fallback's own for TCP: choose another"
            ));
        }
        if self.port == 0 {
            return Err("port is 0: write a port of the fallback's Service".to_owned());
        }
        Ok(())
    }

    /// All HTTP ports, that of the Service included.
    pub fn all_ports(&self) -> BTreeSet<u16> {
        let mut ports = self.ports.clone();
        ports.insert(self.port);
        ports.remove(&TCP_PORT);
        ports
    }

    /// The proxy's options with what the configuration adds.
    pub fn proxy_options(&self) -> ProxyOptions {
        let mut options = self.proxy.clone();
        if self.config.fallback.tcp && options.tcp.is_none() {
            options.tcp = Some(ProxyOptions::tcp_address(options.http.ip()));
        }
        options
    }

    /// Host name of the fallback of a namespace.
    fn host(&self, namespace: &str) -> String {
        service_host(NAME, namespace, &self.config.domain)
    }

    fn places(&self) -> Vec<Place> {
        let config = &self.config;
        if !config.fallback.enabled {
            return Vec::new();
        }
        match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => vec![Place {
                filter_namespace: config.istio_namespace.clone(),
                namespace: config.fallback_namespace().to_owned(),
                callers: None,
            }],
            GlobalSidecarMode::Namespace => {
                let namespaces: BTreeSet<&String> = config.fallback.namespace.iter().collect();
                let place = |name: &String| Place {
                    filter_namespace: name.clone(),
                    namespace: name.clone(),
                    callers: Some(name.clone()),
                };
                namespaces.into_iter().map(place).collect()
            }
        }
    }

    /// Labels of every object that is made.
    fn labels(&self) -> BTreeMap<String, String> {
        let revision = Some(self.config.revision.as_str()).filter(|r| !r.is_empty());
        labels(Some(MODULE), revision)
    }
}
