//! Configuration of the operator: one YAML file. Unknown keys are errors.
//!
//! The sections of modules are kept as they are written; each module checks and reads its own.

mod foreign;
mod leader;
mod mesh;
mod place;
mod xds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_dataplane::module::Proxies;
use trimtab_kit::identity::PortSecurity;
use trimtab_kit::module::{Factory, Module, read};
use trimtab_kit::sources::{MdsConfig, MetricsServerConfig, PrometheusConfig};

use crate::log::Log;
use crate::modules;

pub use leader::LeaderElection;
pub use mesh::{Mesh, MeshCertificate};
pub use xds::{Tls, Trust, Xds, XdsLimits, XdsTokens};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Metrics, health, status page and JSON API.
    pub http: Http,
    /// The xDS server.
    pub xds: Xds,
    /// Where metrics come from.
    pub metrics: Metrics,
    /// The mesh, for all modules.
    pub mesh: Mesh,
    /// Which of several replicas writes.
    pub leader_election: LeaderElection,
    /// What is logged.
    pub log: Log,
    /// Sections of modules, by name; absent: the default.
    #[serde(flatten)]
    pub modules: BTreeMap<String, Value>,
    /// The modules that there are: those of this binary, unless a program that embeds it adds some.
    #[serde(skip, default = "modules::all")]
    pub list: Vec<Factory>,
    /// The file itself, which is followed for changes; `None`: there is none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Set by the command line, not by the file: proxies are on other machines.
    #[serde(skip)]
    pub in_cluster: bool,
    /// Set by the command line: namespace and name of the pod that the process runs in.
    #[serde(skip)]
    pub pod: Option<(String, String)>,
    /// Set by the command line in standalone mode: what plain Envoys are told. `None`: they are served nothing.
    #[serde(skip)]
    pub data_plane: Option<Proxies>,
    /// Set by the command line in standalone mode: some of the folder could not be read.
    #[serde(skip)]
    pub unresolved: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Http::default(),
            xds: Xds::default(),
            metrics: Metrics::default(),
            mesh: Mesh::default(),
            leader_election: LeaderElection::default(),
            log: Log::default(),
            modules: BTreeMap::new(),
            list: modules::all(),
            file: None,
            in_cluster: false,
            pod: None,
            data_plane: None,
            unresolved: false,
        }
    }
}

/// The HTTP endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen. Loopback unless set; a cluster needs `0.0.0.0:8080`.
    pub address: SocketAddr,
    /// Names and addresses by which clients call it, for example of an Ingress; besides those of loopback, the pod's address
    /// and the Services of its namespace.
    pub hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
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
    /// Plain: whoever reaches the port may push for all. Mesh: mTLS with the mesh's certificates, and a workload pushes for
    /// its own namespace.
    pub security: PortSecurity,
    /// With security Mesh: namespaces, besides Istio's root namespace, whose workloads may push for all.
    pub trusted_namespaces: Vec<String>,
    /// Bounds of the store.
    pub store: MdsConfig,
}

impl Default for Mds {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8084)),
            security: PortSecurity::Plain,
            trusted_namespaces: Vec::new(),
            store: MdsConfig::default(),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let mut config = match Self::parse(&text) {
            Ok(config) => config,
            Err(error) => match foreign::advice(path, &text) {
                Some(advice) => bail!(advice),
                None => return Err(error.context(format!("configuration {}", path.display()))),
            },
        };
        config.file = Some(path.to_owned());
        Ok(config)
    }

    /// Reads and checks the text of a file. A mistake is named by its key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = serde_saphyr::with_deserializer_from_str(text, |yaml| {
            serde_path_to_error::deserialize(yaml)
                .map_err(|e| serde::de::Error::custom(format!("{}: {}", e.path(), e.inner())))
        })?;
        config.check().map_err(|error| {
            let told = format!("{error:#}");
            let key = told.split_once(": ").map_or("", |(key, _)| key);
            let line = Some(key).filter(|key| !key.contains(' '));
            match line.and_then(|key| place::line_of(text, key)) {
                Some(line) => anyhow::anyhow!("{told} (line {line})"),
                None => error,
            }
        })?;
        Ok(config)
    }

    /// The section of a module as written; null when there is none.
    pub fn section(&self, factory: &Factory) -> &Value {
        self.modules.get(factory.name).unwrap_or(&Value::Null)
    }

    /// The configuration of one module. A section that cannot be read, which [`Self::check`] refuses, is the default.
    pub fn of<M: Module>(&self) -> M::Config {
        let section = self.modules.get(M::NAME).unwrap_or(&Value::Null);
        read(section).unwrap_or_default()
    }

    /// The same with all keys of all modules, defaults filled in.
    #[must_use]
    pub fn effective(&self) -> Self {
        let mut out = self.clone();
        for factory in &self.list {
            let section = factory.effective(self.section(factory));
            out.modules.insert(factory.name.to_owned(), section);
        }
        out
    }

    /// Changes the configuration of one module.
    pub fn edit<M: Module>(&mut self, change: impl FnOnce(&mut M::Config)) {
        let mut config = self.of::<M>();
        change(&mut config);
        let section = serde_json::to_value(config).unwrap_or_default();
        self.modules.insert(M::NAME.to_owned(), section);
    }

    /// Whether a document is a configuration and no object: it has sections and nothing else. Whoever keeps the file beside
    /// the objects gives the folder to `-f` and the file to `--config`.
    pub fn is_one(document: &Value) -> bool {
        let own = ["http", "xds", "metrics", "mesh", "leaderElection"];
        let modules = modules::all();
        let known = |key: &str| own.contains(&key) || modules.iter().any(|m| m.name == key);
        document
            .as_object()
            .is_some_and(|keys| !keys.is_empty() && keys.keys().all(|key| known(key)))
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> anyhow::Result<()> {
        let factories = &self.list;
        let names: Vec<&str> = factories.iter().map(|f| f.name).collect();
        for name in self.modules.keys() {
            if !names.contains(&name.as_str()) {
                bail!(
                    "{name}: unknown section: known are http, xds, metrics, mesh, leaderElection, log, {}",
                    names.join(", ")
                );
            }
        }
        if let Some(prometheus) = &self.metrics.prometheus {
            prometheus.validate()?;
        }
        self.xds.check().map_err(anyhow::Error::msg)?;
        self.log.check().map_err(anyhow::Error::msg)?;
        self.leader_election.check().map_err(anyhow::Error::msg)?;
        if let Some(host) = self
            .http
            .hosts
            .iter()
            .find(|h| h.is_empty() || h.contains('/'))
        {
            bail!("http.hosts: {host:?} is no name: write a host without scheme and path");
        }
        for factory in factories {
            if let Some(domain) = self.section(factory).get("domain") {
                bail!(
                    "{}.domain: there is one cluster domain for all modules: write mesh: {{domain: {domain}}}",
                    factory.name
                );
            }
            let checked = factory.check(self.section(factory));
            checked.map_err(anyhow::Error::msg)?;
        }
        let mesh = self.mesh.check(&modules::mesh_ports(self));
        mesh.map_err(anyhow::Error::msg)?;
        let mds = self.metrics.mds.iter();
        let own = [
            ("http.address", self.http.address),
            ("xds.address", self.xds.address),
        ];
        let of_modules = factories.iter();
        let of_modules = of_modules.flat_map(|f| f.addresses(self.section(f)));
        let mut taken = BTreeSet::new();
        for (key, address) in own
            .into_iter()
            .chain(mds.map(|m| ("metrics.mds.address", m.address)))
            .chain(of_modules)
        {
            if address.port() != 0 && !taken.insert(address) {
                bail!("{key}: {address} is used twice: choose another port");
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
        let mistake = |text: &str, words: &[&str]| {
            let parsed = Config::parse(text);
            let error = parsed.and_then(|c| c.check()).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error}");
            }
        };
        mistake(
            "limiter: {refesh: 5s}",
            &["limiter", "unknown field `refesh`"],
        );
        mistake("limitr: {refresh: 5s}", &["limitr: unknown section"]);
        mistake(
            "http: {address: '127.0.0.1:1'}\nxds: {address: '127.0.0.1:1'}",
            &["xds.address", "twice"],
        );
        for key in DURATIONS {
            let (text, closed) = nested(key, "soon");
            mistake(
                &format!("{text}{closed}"),
                &[key, "\"soon\"", "write for example 100ms, 1.5s"],
            );
        }
        for section in ["metrics", "lazyload.learn"] {
            let key = format!("{section}.prometheus");
            let (text, closed) = nested(&key, "{address: 'https://p', keyFile: f}");
            mistake(
                &format!("{text}{closed}"),
                &[&format!("{key}.keyFile is set without certFile")],
            );
            let (text, closed) = nested(&key, "{address: 'https://p', tokenFile: f}");
            mistake(
                &format!("{text}{closed}"),
                &[&key, "unknown field `tokenFile`", "bearerTokenFile"],
            );
        }
        mistake("log: {level: verbose}", &["log.level", "\"verbose\""]);
        mistake("log: {format: xml}", &["log.format", "`xml`", "json"]);
        mistake(
            "limiter: {refresh: 99ms}",
            &["limiter.refresh", "99ms", "shorter than 100ms"],
        );
        mistake(
            "leaderElection: {leaseDuration: 10s}",
            &["leaderElection.leaseDuration", "more than 14s"],
        );
        mistake(
            "xds: {maxConnectionAge: 1ms}",
            &["xds.maxConnectionAge", "30m"],
        );
    }

    /// Every duration of the file.
    const DURATIONS: [&str; 17] = [
        "leaderElection.leaseDuration",
        "leaderElection.renewDeadline",
        "leaderElection.retryPeriod",
        "xds.maxConnectionAge",
        "limiter.refresh",
        "limiter.holdFor",
        "lazyload.learn.prometheus.interval",
        "lazyload.learn.prometheus.timeout",
        "lazyload.retention.min",
        "lazyload.retention.grace",
        "lazyload.retention.remember",
        "lazyload.writes.gather",
        "metaprotocol.debounce",
        "metaprotocol.idleTimeout",
        "metrics.prometheus.timeout",
        "metrics.metricsServer.timeout",
        "metrics.metricsServer.maxAge",
    ];

    /// `a.b.c` and a value as YAML.
    fn nested(key: &str, value: &str) -> (String, String) {
        let depth = key.matches('.').count() + 1;
        (
            format!("{{{}: {value}", key.replace('.', ": {")),
            "}".repeat(depth),
        )
    }

    #[test]
    fn fault_o26_one_grammar_for_each_duration_of_the_file() {
        for text in ["1m30s", "1.5s", "500ms"] {
            for key in DURATIONS {
                let (text, closed) = nested(key, text);
                let address = if key.starts_with("metrics.prometheus") {
                    ", address: 'http://p'"
                } else {
                    ""
                };
                let text = format!("{text}{address}{closed}");
                let config: Config = serde_saphyr::from_str(&text).unwrap();
                let again = serde_saphyr::to_string(&config).unwrap();
                assert_eq!(serde_saphyr::from_str::<Config>(&again).unwrap(), config);
            }
        }
    }

    #[test]
    fn slime_handlers_are_read() {
        let text = "metrics: {prometheus: {address: 'http://p:9090', handlers: {cpu.sum: {query: 'sum(x{pod=~\"$pod_name\"})', type: 0}}}}";
        let config = Config::parse(text).unwrap();
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
