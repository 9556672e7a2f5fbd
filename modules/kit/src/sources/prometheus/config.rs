//! Configuration of the Prometheus source. Slime's `metric.prometheus` block parses unchanged.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use trimtab_crds::Duration;

use crate::prometheus::{Access, BasicAuth, KeyError, MAX_BYTES, MAX_SERIES, Section};

/// Where this configuration stands.
pub(super) const SECTION: Section = Section {
    name: "metrics.prometheus",
    longest_timeout: Duration::from_secs(300),
};

/// Where Prometheus is and what to ask it. All keys of [`Access`] are here too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusConfig {
    /// See [`Access::address`].
    pub address: String,
    /// See [`Access::timeout`]. Default 5s.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// See [`Access::basic_auth`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// See [`Access::bearer_token_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
    /// See [`Access::ca_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// See [`Access::cert_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// See [`Access::key_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// See [`Access::headers`].
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// See [`Access::max_bytes`].
    #[serde(default = "default_max_bytes")]
    pub max_bytes: usize,
    /// See [`Access::max_series`].
    #[serde(default = "default_max_series")]
    pub max_series: usize,
    /// Queries that limiters bring themselves.
    #[serde(default)]
    pub own_queries: OwnQueries,
    /// The queries by the name that expressions use.
    #[serde(default)]
    pub handlers: BTreeMap<String, Handler>,
}

/// Queries that limiters bring themselves, in `spec.metrics`: whoever may write a limiter asks with Trimtab's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OwnQueries {
    /// False: they are refused.
    pub enabled: bool,
    /// Label with the namespace of a series: each selector of a query then has to match the limiter's namespace. Empty:
    /// they see all series.
    pub namespace_label: String,
    /// As [`Access::max_bytes`], for these.
    pub max_bytes: usize,
    /// As [`Access::max_series`], for these.
    pub max_series: usize,
}

impl Default for OwnQueries {
    fn default() -> Self {
        Self {
            enabled: true,
            namespace_label: String::new(),
            max_bytes: 256 << 10,
            max_series: 1000,
        }
    }
}

impl OwnQueries {
    fn check(&self) -> Result<(), KeyError> {
        let label = &self.namespace_label;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !label.bytes().all(allowed) || label.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SECTION.wrong(
                "ownQueries.namespaceLabel",
                format!("{label:?} is no name of a label"),
                "write letters, digits and '_', for example namespace",
            ));
        }
        SECTION.check_bounds("ownQueries.", self.max_bytes, self.max_series)
    }
}

/// One named query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handler {
    /// PromQL. `$namespace`, `$pod_name` (names joined with `|`, for `=~`) and `$service` are replaced.
    pub query: String,
    /// How the result becomes values.
    #[serde(default, rename = "type")]
    pub kind: HandlerType,
    /// The labels that name the pod or the service of a series.
    #[serde(default)]
    pub labels: Labels,
    /// How several series of one limiter become the value of the bare name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// Time limit of this query instead of the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Samples older than this are not used; Prometheus itself uses samples of up to five minutes of age. Costs a second
    /// query. Inside of functions it is obeyed by Prometheus 2.44 and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

impl Handler {
    /// A handler with defaults for everything but the query and its type.
    pub fn new(query: impl Into<String>, kind: HandlerType) -> Self {
        Self {
            query: query.into(),
            kind,
            labels: Labels::default(),
            aggregate: None,
            timeout: None,
            max_age: None,
        }
    }
}

/// How the result of a query becomes values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum HandlerType {
    /// Exactly one series is the value.
    #[default]
    Value,
    /// Each series is a metric named as Prometheus writes it, for example `{version="v1"}`.
    Group,
    /// One query for the mesh whose series are joined to the pods of each limiter.
    PerPod,
    /// One query for the mesh whose series are joined to the service of each limiter.
    PerService,
}

impl<'de> Deserialize<'de> for HandlerType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TypeVisitor;

        impl Visitor<'_> for TypeVisitor {
            type Value = HandlerType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of Value, Group, PerPod, PerService (or 0 for Value, 1 for Group)")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HandlerType, E> {
                match text {
                    "Value" | "0" => Ok(HandlerType::Value),
                    "Group" | "1" => Ok(HandlerType::Group),
                    "PerPod" => Ok(HandlerType::PerPod),
                    "PerService" => Ok(HandlerType::PerService),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<HandlerType, E> {
                match number {
                    0 => Ok(HandlerType::Value),
                    1 => Ok(HandlerType::Group),
                    other => Err(E::invalid_value(de::Unexpected::Unsigned(other), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<HandlerType, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(TypeVisitor)
    }
}

/// The labels that name the pod or the service of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Labels {
    /// Label with the namespace.
    pub namespace: String,
    /// Label with the name of the pod.
    pub pod: String,
    /// Label with the service: `svc`, or `svc.ns.svc.cluster.local`, which then also names the namespace.
    pub service: String,
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            namespace: "namespace".to_owned(),
            pod: "pod".to_owned(),
            service: "service".to_owned(),
        }
    }
}

/// How several numbers become one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Aggregate {
    /// The mean.
    #[default]
    Avg,
    /// The sum.
    Sum,
    /// The greatest.
    Max,
    /// The least.
    Min,
    /// How many numbers there are. Only as the suffix `.count`.
    #[serde(skip)]
    Count,
}

impl Aggregate {
    /// All aggregates, in the order of their suffixes.
    pub const ALL: [Self; 5] = [Self::Avg, Self::Count, Self::Max, Self::Min, Self::Sum];

    /// The suffix in a metric name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
            Self::Count => "count",
        }
    }

    /// Splits `cpu.max` into `cpu` and the aggregate.
    pub(crate) fn split(name: &str) -> Option<(&str, Self)> {
        let (base, suffix) = name.rsplit_once('.')?;
        let aggregate = Self::ALL.into_iter().find(|a| a.suffix() == suffix)?;
        Some((base, aggregate))
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_max_bytes() -> usize {
    MAX_BYTES
}

fn default_max_series() -> usize {
    MAX_SERIES
}

impl PrometheusConfig {
    /// A source without handlers.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            timeout: default_timeout(),
            basic_auth: None,
            bearer_token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            headers: BTreeMap::new(),
            max_bytes: MAX_BYTES,
            max_series: MAX_SERIES,
            own_queries: OwnQueries::default(),
            handlers: BTreeMap::new(),
        }
    }

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

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), KeyError> {
        self.access().check(&SECTION)?;
        self.own_queries.check()?;
        for (name, handler) in &self.handlers {
            if name.is_empty() {
                return Err(SECTION.wrong(
                    "handlers",
                    "has a handler with an empty name",
                    "name it as expressions will, for example cpu",
                ));
            }
            handler.validate(&format!("handlers.{name}"))?;
        }
        Ok(())
    }
}

impl Handler {
    /// `path` names the handler in the error.
    fn validate(&self, path: &str) -> Result<(), KeyError> {
        if self.query.trim().is_empty() {
            let key = format!("{path}.query");
            return Err(SECTION.wrong(&key, "is empty", "write a PromQL query"));
        }
        if let Some(timeout) = self.timeout {
            SECTION.check_timeout(&format!("{path}.timeout"), timeout)?;
        }
        if self.max_age.is_some_and(|age| age < Duration::from_secs(1)) {
            return Err(SECTION.wrong(
                &format!("{path}.maxAge"),
                "is below 1s",
                "write at least two scrape intervals",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slime_block_parses() {
        let config: PrometheusConfig = serde_json::from_str(
            r#"{"address":"http://p:9090","handlers":{
                "cpu.sum":{"query":"sum(x{pod=~\"$pod_name\"})"},
                "a":{"query":"y","type":"Group"},"b":{"query":"y","type":1},"c":{"query":"y","type":0}}}"#,
        )
        .unwrap();
        assert_eq!(config.timeout, Duration::from_secs(5));
        let kinds: Vec<_> = config.handlers.values().map(|h| h.kind).collect();
        assert_eq!(
            kinds,
            [
                HandlerType::Group,
                HandlerType::Group,
                HandlerType::Value,
                HandlerType::Value
            ]
        );
        config.validate().unwrap();
    }

    #[test]
    fn all_fields_parse_and_round_trip() {
        let text = r#"{"address":"http://p:9090","timeout":"1m30s","bearerTokenFile":"/t","handlers":{"cpu":{"query":"q","type":"PerPod",
            "labels":{"pod":"pod_name"},"aggregate":"max","timeout":"500ms","maxAge":"30s"}}}"#;
        let config: PrometheusConfig = serde_json::from_str(text).unwrap();
        let cpu = &config.handlers["cpu"];
        assert_eq!(
            (config.timeout, cpu.timeout),
            (Duration::from_secs(90), Some(Duration::from_millis(500)))
        );
        assert_eq!(
            (cpu.aggregate, cpu.max_age),
            (Some(Aggregate::Max), Some(Duration::from_secs(30)))
        );
        assert_eq!(
            (cpu.labels.namespace.as_str(), cpu.labels.pod.as_str()),
            ("namespace", "pod_name")
        );
        let again: PrometheusConfig =
            serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn every_key_of_access_is_a_key_here() {
        let access = Access {
            address: "https://p/prom".to_owned(),
            timeout: Duration::from_secs(7),
            basic_auth: None,
            max_bytes: 7,
            max_series: 8,
            bearer_token_file: Some("/t".into()),
            ca_file: Some("/ca".into()),
            cert_file: Some("/cert".into()),
            key_file: Some("/key".into()),
            headers: BTreeMap::from([("X-Scope-OrgID".to_owned(), "a".to_owned())]),
        };
        let config: PrometheusConfig =
            serde_json::from_value(serde_json::to_value(&access).unwrap()).unwrap();
        config.validate().unwrap();
        assert_eq!(config.access(), access);
    }

    #[test]
    fn mistakes_are_refused() {
        for text in [
            r#"{"address":"x","handler":{}}"#,
            r#"{"address":"x","handlers":{"a":{"query":"q","type":2}}}"#,
            r#"{"address":"x","handlers":{"a":{"query":"q","type":"value"}}}"#,
            r#"{"address":"x","handlers":{"a":{"query":"q","aggregate":"count"}}}"#,
            r#"{"address":"x","timeout":"soon"}"#,
        ] {
            assert!(
                serde_json::from_str::<PrometheusConfig>(text).is_err(),
                "{text}"
            );
        }
        let mut config = PrometheusConfig::new("http://p");
        config
            .handlers
            .insert("a".into(), Handler::new(" ", HandlerType::Value));
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "metrics.prometheus.handlers.a.query is empty; write a PromQL query"
        );
        config.timeout = Duration::default();
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("metrics.prometheus.timeout is 0s")
        );
    }
}
