//! Istio's MeshConfig: what modules take over from it where their own configuration says nothing.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use serde::Deserialize;

use crate::ExportDefaults;
use crate::table::{Known, Row};

/// Key of the ConfigMap.
const KEY: &str = "mesh";

/// The fields of the MeshConfig that modules read; the others are left aside.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// File of the access logs; empty: none.
    pub access_log_file: String,
    /// `TEXT` or `JSON`; empty: text.
    pub access_log_encoding: String,
    /// Format of the lines; empty: the default one.
    pub access_log_format: String,
    /// Whether requests are traced; absent: nothing is said.
    pub enable_tracing: Option<bool>,
    /// Defaults of proxies.
    pub default_config: ProxyConfig,
    /// Namespace whose objects hold for the whole mesh; empty: nothing is said.
    pub root_namespace: String,
    /// Of the identities of workloads; empty: nothing is said.
    pub trust_domain: String,
    /// `exportTo` of Services and ServiceEntries without.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of VirtualServices without.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of DestinationRules without.
    pub default_destination_rule_export_to: Vec<String>,
    /// Calls to what the mesh does not know.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
}

/// Calls to what the mesh does not know.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// `ALLOW_ANY` or `REGISTRY_ONLY`; empty: nothing is said.
    pub mode: String,
}

/// Defaults of proxies.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Tracing.
    pub tracing: Tracing,
}

/// Tracing of proxies.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Percent of requests.
    pub sampling: Option<f64>,
}

/// Istio's default percentage of traced requests.
const SAMPLING: f64 = 1.0;

impl MeshConfig {
    /// Reads the text of a MeshConfig.
    pub fn parse(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    /// Who sees objects that do not say it.
    pub fn export_defaults(&self) -> ExportDefaults {
        ExportDefaults::new(
            &self.default_service_export_to,
            &self.default_virtual_service_export_to,
            &self.default_destination_rule_export_to,
        )
    }

    /// Whether calls to what the mesh does not know are rejected.
    pub fn registry_only(&self) -> bool {
        self.outbound_traffic_policy.mode == "REGISTRY_ONLY"
    }

    /// Percent of requests that are traced; `None`: none.
    pub fn sampling(&self) -> Option<f64> {
        let sampling = self.default_config.tracing.sampling.unwrap_or(SAMPLING);
        (self.enable_tracing == Some(true)).then_some(sampling)
    }
}

impl Row for MeshConfig {
    type Object = v1::ConfigMap;
    type Index = ();

    /// What cannot be read leaves what was known, as in istiod.
    fn read(object: &Arc<v1::ConfigMap>, known: &Known<'_, Self>) -> Option<Self> {
        let text = object.data.as_ref()?.get(KEY)?;
        Self::parse(text).or_else(|| known.old.map(|row| (**row).clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_modules_take_over() {
        let text = "
accessLogFile: /dev/stdout
accessLogEncoding: JSON
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  tracing: {zipkin: {address: z:9411}, sampling: 12.5}
defaultProviders: {metrics: [prometheus]}
enableTracing: true
rootNamespace: istio-config
trustDomain: mesh.example
defaultServiceExportTo: [\".\"]
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
";
        let config = MeshConfig::parse(text).unwrap();
        assert_eq!(config.access_log_file, "/dev/stdout");
        assert_eq!(config.access_log_encoding, "JSON");
        assert_eq!(config.sampling(), Some(12.5));
        assert_eq!(config.root_namespace, "istio-config");
        assert_eq!(config.trust_domain, "mesh.example");
        assert!(config.registry_only() && !MeshConfig::default().registry_only());
        let defaults = config.export_defaults();
        assert!(!defaults.services.visible("a", "b"));
        assert!(defaults.virtual_services.visible("a", "b"));
        let sampling = |text: &str| MeshConfig::parse(text).unwrap().sampling();
        assert_eq!(sampling("enableTracing: true"), Some(1.0));
        assert_eq!(sampling("enableTracing: false"), None);
        assert_eq!(sampling("defaultConfig: {tracing: {sampling: 5}}"), None);
        assert_eq!(MeshConfig::parse("accessLogFile: ["), None);
    }
}
