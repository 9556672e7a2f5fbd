//! `lazyload.learn`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trimtab_crds::Duration;
use trimtab_kit::identity::PortSecurity;
use trimtab_kit::prometheus::{Access, BasicAuth, Section};

use super::HOUR;

/// Where [`PrometheusLearning`] stands.
pub(crate) const PROMETHEUS: Section = Section {
    name: "lazyload.learn.prometheus",
    longest_timeout: Duration::from_secs(HOUR),
};

/// Where calls are learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Learn {
    /// The access log server; absent: the port stays closed.
    pub access_log: Option<AccessLog>,
    /// Queries to Prometheus; absent: none. Only with them learned dependencies can expire.
    pub prometheus: Option<PrometheusLearning>,
    /// Backends of routes, principals of policies, host names in pod templates.
    pub hints: bool,
    /// Hosts that one workload is remembered to have called, at most; calls of more are counted and not kept.
    pub hosts_per_caller: usize,
}

impl Default for Learn {
    fn default() -> Self {
        Self {
            access_log: None,
            prometheus: None,
            hints: true,
            hosts_per_caller: 2000,
        }
    }
}

/// The access log server (`envoy.service.accesslog.v3`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessLog {
    /// Where to listen. Loopback unless set; a cluster needs `0.0.0.0:8082`.
    pub address: SocketAddr,
    /// Plain, or mTLS with the mesh's certificates; then peers are known by those and not by their addresses.
    pub security: PortSecurity,
    /// On a plain port: addresses and ranges whose logs are believed about all callers, besides pods that speak of themselves and the
    /// fallback's pods.
    #[serde(with = "ranges")]
    pub trusted: Vec<IpNet>,
}

/// Ranges, or addresses for ranges of one.
mod ranges {
    use super::{Deserialize, Deserializer, IpAddr, IpNet, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let range = |text: &String| {
            let address = text.parse::<IpAddr>().ok();
            let range = address.map(IpNet::from).or_else(|| text.parse().ok());
            range.ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "{text:?} is no address: write for example 10.1.2.3 or 10.1.0.0/16"
                ))
            })
        };
        texts.iter().map(range).collect()
    }

    pub(super) fn serialize<S: Serializer>(
        ranges: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ranges.iter().map(ToString::to_string))
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8082)),
            security: PortSecurity::Plain,
            trusted: Vec::new(),
        }
    }
}

/// Learning from Istio's telemetry. All keys of [`Access`] are here too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PrometheusLearning {
    /// See [`Access::address`].
    pub address: String,
    /// See [`Access::timeout`].
    pub timeout: Duration,
    /// See [`Access::basic_auth`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// See [`Access::bearer_token_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
    /// See [`Access::ca_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// See [`Access::cert_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// See [`Access::key_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// See [`Access::headers`].
    pub headers: BTreeMap<String, String>,
    /// See [`Access::max_bytes`]. Answers are by caller and host for the whole mesh, so they may be larger than others.
    pub max_bytes: usize,
    /// See [`Access::max_series`].
    pub max_series: usize,
    /// Pause between queries.
    pub interval: Duration,
    /// Label that the scrape sets to the namespace of the pod that it scrapes. With it only series count that the caller's
    /// own proxy tells. Empty: all count.
    pub namespace_label: String,
    /// Query for HTTP calls; its answer must have the labels `source_workload`, `source_workload_namespace` and
    /// `destination_service`. Empty: the one for the mesh.
    pub requests: String,
    /// The same for TCP connections.
    pub connections: String,
}

impl Default for PrometheusLearning {
    fn default() -> Self {
        Self {
            address: "http://prometheus.istio-system:9090".to_owned(),
            timeout: Duration::from_secs(10),
            basic_auth: None,
            bearer_token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            headers: BTreeMap::new(),
            max_bytes: 16 << 20,
            max_series: 50_000,
            interval: Duration::from_secs(15),
            namespace_label: String::new(),
            requests: String::new(),
            connections: String::new(),
        }
    }
}

impl PrometheusLearning {
    /// How to reach it.
    pub fn access(&self) -> Access {
        Access {
            address: self.address.clone(),
            timeout: self.timeout,
            basic_auth: self.basic_auth.clone(),
            bearer_token_file: self.bearer_token_file.clone(),
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            headers: self.headers.clone(),
            max_bytes: self.max_bytes,
            max_series: self.max_series,
        }
    }
}
