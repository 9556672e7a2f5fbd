//! Istio's MeshConfig: what modules take over from it where their own configuration says nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::ExportDefaults;
use crate::table::{Known, Row};

/// Key of the ConfigMap.
const KEY: &str = "mesh";
/// Key of the metadata of a proxy that captures DNS.
pub(super) const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
/// Providers that every mesh has, and that have no server.
const BUILT_IN: [&str; 3] = ["envoy", "prometheus", "stackdriver"];

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
    /// Servers that proxies ask or report to.
    pub extension_providers: Vec<ExtensionProvider>,
    /// Those of whom nothing else is said.
    pub default_providers: DefaultProviders,
    /// The text cannot be read; the rest is as it was before.
    #[serde(skip)]
    pub unreadable: bool,
}

/// A server that proxies ask or report to, or a way to report without one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExtensionProvider {
    /// Name.
    pub name: String,
    /// By the kind of the provider.
    #[serde(flatten)]
    kinds: BTreeMap<String, Kind>,
}

/// What is said of a provider of one kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Kind {
    Server { service: String },
    Other(IgnoredAny),
}

impl ExtensionProvider {
    /// Its server, `HOST` or `NAMESPACE/HOST`, as it is written.
    pub fn service(&self) -> Option<&str> {
        self.kinds.values().find_map(|kind| match kind {
            Kind::Server { service } => Some(service.trim()).filter(|s| !s.is_empty()),
            Kind::Other(_) => None,
        })
    }
}

/// Names of providers of whom nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    /// Of traces; the first counts.
    pub tracing: Vec<String>,
    /// Of access logs.
    pub access_logging: Vec<String>,
    /// Of metrics.
    pub metrics: Vec<String>,
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
    /// Environment of proxies.
    proxy_metadata: BTreeMap<String, Text>,
}

/// A text, which some write as a truth value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Truth(bool),
    Other(IgnoredAny),
}

/// Whether a text says yes, as Go reads it.
pub(super) fn is_true(text: &str) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].contains(&text)
}

impl ProxyConfig {
    /// Reads the text of an annotation `proxy.istio.io/config`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    /// Whether proxies answer the DNS queries of their pods; `None`: nothing is said.
    pub fn captures_dns(&self) -> Option<bool> {
        Some(match self.proxy_metadata.get(DNS_CAPTURE)? {
            Text::Plain(text) => is_true(text),
            Text::Truth(truth) => *truth,
            Text::Other(_) => false,
        })
    }
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

    /// The provider of a name; istiod does not mind its case.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        let mut all = self.extension_providers.iter();
        all.find(|p| p.name.eq_ignore_ascii_case(name))
    }

    /// Whether every mesh has a provider of this name.
    pub fn is_built_in(name: &str) -> bool {
        BUILT_IN.iter().any(|own| own.eq_ignore_ascii_case(name))
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
        Some(Self::parse(text).unwrap_or_else(|| Self {
            unreadable: true,
            ..known.old.map(|row| (**row).clone()).unwrap_or_default()
        }))
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

    #[test]
    fn fault_s3_providers_with_a_server() {
        let text = "
extensionProviders:
- {name: doorman, envoyExtAuthzHttp: {service: a.b.svc.cluster.local, port: 9000, includeRequestHeadersInCheck: [x]}}
- {name: spans, opentelemetry: {service: watch/spans.watch.svc.cluster.local, port: 4317, http: {path: /v1}}}
- {name: file, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {a: b}}}}
- {name: prometheus, prometheus: {}}
defaultProviders: {tracing: [spans], accessLogging: [file]}
";
        let config = MeshConfig::parse(text).unwrap();
        let service = |name: &str| config.provider(name).unwrap().service();
        assert_eq!(service("doorman"), Some("a.b.svc.cluster.local"));
        assert_eq!(
            service("Spans"),
            Some("watch/spans.watch.svc.cluster.local")
        );
        assert_eq!(service("file"), None);
        assert_eq!(service("prometheus"), None);
        assert_eq!(config.provider("other"), None);
        assert_eq!(config.default_providers.tracing, ["spans"]);
        assert!(MeshConfig::is_built_in("prometheus") && !MeshConfig::is_built_in("spans"));
    }

    #[test]
    fn fault_s9_whether_proxies_capture_dns() {
        let of = |text: &str| ProxyConfig::parse(text).unwrap().captures_dns();
        assert_eq!(
            of("proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}"),
            Some(true)
        );
        assert_eq!(
            of("proxyMetadata: {ISTIO_META_DNS_CAPTURE: true}"),
            Some(true)
        );
        assert_eq!(
            of("proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"false\"}"),
            Some(false)
        );
        assert_eq!(
            of("{\"proxyMetadata\": {\"ISTIO_META_DNS_CAPTURE\": \"1\"}}"),
            Some(true)
        );
        assert_eq!(of("holdApplicationUntilProxyStarts: true"), None);
    }
}
