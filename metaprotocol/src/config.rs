//! Configuration of the MetaProtocol module. Unknown keys are errors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_kit::envoy::re2::{self, Engine};
use trimtab_kit::identity::XdsEndpoint;

use crate::input::{
    AccessLog, Capabilities, DataPlane, Delivery, Ports, ProxySelector, Scope, Settings,
    StockFilter, Tracing, closed_namespaces,
};
use crate::validate::is_label;
use crate::vip::Ranges;

/// `metaprotocol:` in the operator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MetaprotocolConfig {
    /// Off: the module watches and writes nothing.
    pub enabled: bool,
    /// How long events are gathered, e.g. `20ms`: a relist or a roll-out is then one pass.
    pub debounce: Duration,
    /// Which proxies there are.
    pub data_plane: DataPlaneChoice,
    /// Istio's root namespace.
    pub root_namespace: String,
    /// Namespaces whose objects decide on hosts of other namespaces too, besides the root namespace.
    pub trusted_namespaces: BTreeSet<String>,
    /// Namespaces into which nothing is written for services of others; absent: those of Kubernetes and the root namespace.
    pub closed_namespaces: Option<BTreeSet<String>>,
    /// Where outbound EnvoyFilters go when a router has no `exportTo`.
    pub scope: Scope,
    /// Which ports are managed.
    pub ports: Ports,
    /// Which proxies have Aeraki's filter; empty: all of them.
    pub aeraki_proxies: ProxySelector,
    /// Static cluster of the xDS server in the bootstrap of Aeraki's proxies.
    pub aeraki_xds_cluster: String,
    /// Filters that stock proxies have.
    pub filters: BTreeSet<StockFilter>,
    /// Ways in which routes can reach stock proxies; the best of them is taken.
    pub deliveries: BTreeSet<Delivery>,
    /// Authority of `xdstp` names in the bootstrap of stock proxies.
    pub xds_authority: String,
    /// Access logs of the filters; absent: none.
    pub access_log: Option<AccessLog>,
    /// Tracing of the filters; absent: none.
    pub tracing: Option<Tracing>,
    /// Idle connections are closed after this time; absent: never.
    pub idle_timeout: Option<Duration>,
    /// ApplicationProtocols whose requests share upstream connections.
    pub multiplexing: BTreeSet<String>,
    /// File of a Secret's field in callers' proxies, with `{namespace}`, `{name}` and `{field}`; empty: none are mounted.
    pub secret_path: String,
    /// Read the Secrets that Redis objects name; costs the right to get Secrets.
    pub read_secrets: bool,
    /// Passwords that were read may stand in EnvoyFilters.
    pub secrets_inline: bool,
    /// RE2 for `match.proxy.proxyVersion`; empty: none.
    pub proxy_version: String,
    /// Label `istio.io/rev` of generated objects; empty: none.
    pub revision: String,
    /// Ranges of addresses for ServiceEntries that have none; empty: istiod's business.
    pub vips: Ranges,
    /// MetaRouters with their own series in `/metrics`, at most.
    pub export_routers: usize,
}

/// Which proxies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataPlaneChoice {
    /// Stock Envoy; besides, where [`MetaprotocolConfig::aeraki_proxies`] says which, Aeraki's proxies.
    #[default]
    Auto,
    /// Aeraki's proxies only.
    Aeraki,
    /// Stock Envoy only.
    Envoy,
}

impl Default for MetaprotocolConfig {
    fn default() -> Self {
        let Capabilities {
            filters,
            deliveries,
        } = Capabilities::default();
        Self {
            enabled: true,
            debounce: Duration::from_millis(20),
            data_plane: DataPlaneChoice::Auto,
            root_namespace: "istio-system".to_owned(),
            trusted_namespaces: BTreeSet::new(),
            closed_namespaces: None,
            scope: Scope::Root,
            // Traffic of somebody who asked for nothing is left alone.
            ports: Ports::Referenced,
            aeraki_proxies: ProxySelector::default(),
            aeraki_xds_cluster: "aeraki-xds".to_owned(),
            filters,
            deliveries,
            xds_authority: "trimtab".to_owned(),
            access_log: None,
            tracing: None,
            idle_timeout: None,
            multiplexing: BTreeSet::new(),
            secret_path: String::new(),
            read_secrets: false,
            secrets_inline: false,
            proxy_version: String::new(),
            revision: String::new(),
            vips: Ranges::default(),
            export_routers: 1000,
        }
    }
}

/// Longest gathering of events: a user waits for it after each change.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(5);

impl MetaprotocolConfig {
    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        if self.debounce > LONGEST_DEBOUNCE {
            return Err(format!(
                "metaprotocol.debounce: {} is longer than {LONGEST_DEBOUNCE}: write for example 20ms",
                self.debounce
            ));
        }
        re2::check_key(
            "metaprotocol.proxyVersion",
            &self.proxy_version,
            Engine::Istiod,
        )?;
        if let Some(tracing) = &self.tracing
            && !(0.0..=100.0).contains(&tracing.sampling)
        {
            return Err(format!(
                "metaprotocol.tracing.sampling: {} is not a percentage: write a number from 0 to 100",
                tracing.sampling
            ));
        }
        if self.secrets_inline && !self.read_secrets {
            return Err(
                "metaprotocol.secretsInline needs metaprotocol.readSecrets: true: what is not read cannot be written"
                    .to_owned(),
            );
        }
        for (key, text) in [
            ("rootNamespace", &self.root_namespace),
            ("xdsAuthority", &self.xds_authority),
        ] {
            if text.is_empty() {
                return Err(format!(
                    "metaprotocol.{key} is empty: leave it out, or write a name"
                ));
            }
        }
        let closed = self.closed_namespaces.iter().flatten();
        for (key, names) in [
            (
                "trustedNamespaces",
                self.trusted_namespaces.iter().collect(),
            ),
            ("closedNamespaces", closed.collect::<Vec<&String>>()),
        ] {
            if let Some(bad) = names.into_iter().find(|name| !is_label(name)) {
                return Err(format!(
                    "metaprotocol.{key}: \"{bad}\" is no name of a namespace: write each name, patterns are not known"
                ));
            }
        }
        Ok(())
    }

    /// What outputs depend on. `xds`: how proxies reach the xDS server.
    pub fn settings(&self, xds: &XdsEndpoint) -> Settings {
        let selected =
            !self.aeraki_proxies.labels.is_empty() || !self.aeraki_proxies.metadata.is_empty();
        let planes: &[DataPlane] = match self.data_plane {
            DataPlaneChoice::Aeraki => &[DataPlane::Aeraki],
            DataPlaneChoice::Auto if selected => &[DataPlane::Aeraki, DataPlane::Envoy],
            // Without a selector nobody knows which proxies have the filter, and one without it refuses its listeners.
            DataPlaneChoice::Auto | DataPlaneChoice::Envoy => &[DataPlane::Envoy],
        };
        Settings {
            root_namespace: self.root_namespace.clone(),
            trusted_namespaces: self.trusted_namespaces.clone(),
            closed_namespaces: self
                .closed_namespaces
                .clone()
                .unwrap_or_else(|| closed_namespaces(&self.root_namespace)),
            virtual_service_export_to: Vec::new(),
            scope: self.scope,
            ports: self.ports,
            data_planes: planes.iter().copied().collect(),
            aeraki_proxies: self.aeraki_proxies.clone(),
            capabilities: Capabilities {
                filters: self.filters.clone(),
                deliveries: self.deliveries.clone(),
            },
            access_log: self.access_log.clone(),
            tracing: self.tracing,
            idle_timeout: self.idle_timeout,
            multiplexing: self.multiplexing.clone(),
            aeraki_xds_cluster: self.aeraki_xds_cluster.clone(),
            xds: xds.clone(),
            xds_authority: self.xds_authority.clone(),
            secret_path: self.secret_path.clone(),
            secrets_inline: self.secrets_inline,
            withhold_secrets: false,
            proxy_version: self.proxy_version.clone(),
            revision: self.revision.clone(),
        }
    }
}

/// Fields of the Secrets that were read, by namespace and name.
pub type Secrets = BTreeMap<(String, String), BTreeMap<String, String>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_data_planes_only_where_proxies_can_be_told_apart() {
        let mut config = MetaprotocolConfig::default();
        let planes = |c: &MetaprotocolConfig| c.settings(&XdsEndpoint::default()).data_planes;
        assert_eq!(planes(&config), [DataPlane::Envoy].into());
        let label = ("aeraki".to_owned(), "yes".to_owned());
        config.aeraki_proxies.labels = [label].into();
        assert_eq!(
            planes(&config),
            [DataPlane::Aeraki, DataPlane::Envoy].into()
        );
        config.data_plane = DataPlaneChoice::Aeraki;
        assert_eq!(planes(&config), [DataPlane::Aeraki].into());
    }

    #[test]
    fn bad_values_are_errors_that_name_the_key() {
        let bad = |text: &str, key: &str| {
            let config: MetaprotocolConfig = serde_saphyr::from_str(text).unwrap();
            let error = config.check().unwrap_err();
            assert!(error.contains(key), "{error}");
        };
        bad("debounce: 10s", "metaprotocol.debounce");
        bad("tracing: {sampling: 200}", "metaprotocol.tracing.sampling");
        bad("secretsInline: true", "metaprotocol.readSecrets");
        bad("trustedNamespaces: ['*']", "metaprotocol.trustedNamespaces");
        bad("closedNamespaces: [a/b]", "metaprotocol.closedNamespaces");
        for text in ["dataplane: Auto", "debounce: soon", "idleTimeout: never"] {
            assert!(serde_saphyr::from_str::<MetaprotocolConfig>(text).is_err());
        }
        assert_eq!(MetaprotocolConfig::default().check(), Ok(()));
    }
}
