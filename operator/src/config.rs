//! Configuration of the operator: one YAML file. Unknown keys are errors.

mod xds;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use trimtab_crds::limiter::duration_millis;
use trimtab_dataplane::controller::Proxies;
use trimtab_kit::sources::{MdsConfig, MetricsServerConfig, PrometheusConfig};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_limiter::config::LimiterConfig;
use trimtab_metaprotocol::config::MetaprotocolConfig;

pub use xds::{Tls, Trust, Xds, XdsLimits};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Metrics, health, status page and JSON API.
    pub http: Http,
    /// The xDS server.
    pub xds: Xds,
    /// Where metrics come from.
    pub metrics: Metrics,
    /// The limiter module.
    pub limiter: LimiterConfig,
    /// The lazyload module.
    pub lazyload: LazyloadConfig,
    /// The MetaProtocol module.
    pub metaprotocol: MetaprotocolConfig,
    /// The file itself, which is followed for changes; `None`: there is none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Set by the command line, not by the file: proxies are on other machines.
    #[serde(skip)]
    pub in_cluster: bool,
    /// Set by the command line in standalone mode: what plain Envoys are told. `None`: they are served nothing.
    #[serde(skip)]
    pub data_plane: Option<Proxies>,
}

/// The HTTP endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen. Loopback unless set; a cluster needs `0.0.0.0:8080`.
    pub address: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
        }
    }
}

/// Metric sources, in this order of precedence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metrics {
    /// Prometheus; absent: none.
    pub prometheus: Option<PrometheusConfig>,
    /// The Kubernetes metrics API; absent: not asked.
    pub metrics_server: Option<MetricsServerConfig>,
    /// Pushed metrics; absent: the port stays closed.
    pub mds: Option<Mds>,
}

/// Pushed metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Mds {
    /// Where to listen.
    pub address: SocketAddr,
    /// Bounds of the store.
    pub store: MdsConfig,
}

impl Default for Mds {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8084)),
            store: MdsConfig::default(),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let mut config: Self = serde_saphyr::from_str(&text)
            .map_err(|e| anyhow::anyhow!("configuration {}: {e}", path.display()))?;
        config.file = Some(path.to_owned());
        config
            .check()
            .with_context(|| format!("configuration {}", path.display()))?;
        Ok(config)
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> anyhow::Result<()> {
        for (field, value) in [
            ("limiter.refresh", &self.limiter.refresh),
            ("limiter.holdFor", &self.limiter.hold_for),
        ] {
            match duration_millis(value) {
                Some(ms) if ms >= 100 => {}
                _ => bail!(
                    "{field}: \"{value}\" is not a duration of 100 ms or more: write for example 5s"
                ),
            }
        }
        if let Some(prometheus) = &self.metrics.prometheus {
            prometheus.validate()?;
        }
        self.xds.check().map_err(anyhow::Error::msg)?;
        self.lazyload.check().map_err(anyhow::Error::msg)?;
        self.metaprotocol.check().map_err(anyhow::Error::msg)?;
        let mut taken = BTreeSet::new();
        let mds = self
            .metrics
            .mds
            .as_ref()
            .map(|m| ("metrics.mds.address", m.address));
        let access_log = self.lazyload.learn.access_log.as_ref();
        let access_log = access_log.map(|l| ("lazyload.learn.accessLog.address", l.address));
        for (field, address) in [
            ("http.address", self.http.address),
            ("xds.address", self.xds.address),
        ]
        .into_iter()
        .chain(mds)
        .chain(access_log)
        {
            if address.port() != 0 && !taken.insert(address) {
                bail!("{field}: {address} is used twice: choose another port");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_durations_are_errors() {
        let unknown = serde_saphyr::from_str::<Config>("limiter: {refesh: 5s}")
            .unwrap_err()
            .to_string();
        assert!(unknown.contains("refesh"), "{unknown}");
        let config: Config = serde_saphyr::from_str("limiter: {refresh: soon}").unwrap();
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("limiter.refresh")
        );
        let config: Config =
            serde_saphyr::from_str("http: {address: '127.0.0.1:1'}\nxds: {address: '127.0.0.1:1'}")
                .unwrap();
        assert!(config.check().is_err());
    }

    #[test]
    fn slime_handlers_are_read() {
        let text = "metrics: {prometheus: {address: 'http://p:9090', handlers: {cpu.sum: {query: 'sum(x{pod=~\"$pod_name\"})', type: 0}}}}";
        let config: Config = serde_saphyr::from_str(text).unwrap();
        config.check().unwrap();
        assert!(
            config
                .metrics
                .prometheus
                .unwrap()
                .handlers
                .contains_key("cpu.sum")
        );
    }
}
