//! The operator's settings that outputs depend on, and what proxies can do.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_kit::identity::XdsEndpoint;
use trimtab_mesh::Trust;
use trimtab_mesh::model::MeshConfig;

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Istio's root namespace.
    pub root_namespace: String,
    /// Namespaces whose objects decide on hosts of other namespaces too, besides the root namespace.
    pub trusted_namespaces: BTreeSet<String>,
    /// Namespaces into which nothing is written for services of others.
    pub closed_namespaces: BTreeSet<String>,
    /// Where outbound EnvoyFilters go when the router has no `exportTo`.
    pub scope: Scope,
    /// `exportTo` of VirtualServices without, by the MeshConfig.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_service_export_to: Vec<String>,
    /// Which ports are managed.
    pub ports: Ports,
    /// Data planes in use. With both, each proxy gets the output that it can run.
    pub data_planes: BTreeSet<DataPlane>,
    /// Which proxies have Aeraki's filter.
    pub aeraki_proxies: ProxySelector,
    /// What proxies with a stock Envoy can do.
    pub capabilities: Capabilities,
    /// Access logs; absent: none.
    pub access_log: Option<AccessLog>,
    /// Tracing; absent: none.
    pub tracing: Option<Tracing>,
    /// Idle connections are closed after this time; absent: never.
    pub idle_timeout: Option<Duration>,
    /// ApplicationProtocols whose requests share upstream connections; their codecs must carry a request id.
    pub multiplexing: BTreeSet<String>,
    /// Static cluster of the xDS server in the bootstrap of Aeraki's proxies.
    pub aeraki_xds_cluster: String,
    /// How proxies reach the xDS server; without an address nothing is delivered over xDS.
    pub xds: XdsEndpoint,
    /// Authority of `xdstp` names that the bootstrap of stock proxies knows.
    pub xds_authority: String,
    /// File of a Secret's field as callers' proxies have it mounted, with `{namespace}`, `{name}` and `{field}`; a proxy
    /// without the file refuses the listener. Empty: proxies mount no Secrets.
    pub secret_path: String,
    /// Passwords of Secrets may be written into EnvoyFilters, where there is no other way to proxies.
    pub secrets_inline: bool,
    /// Plain Envoys get no password: the xDS server does not know who asks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub withhold_secrets: bool,
    /// RE2 for `match.proxy.proxyVersion`; empty: none.
    pub proxy_version: String,
    /// Label `istio.io/rev` of generated objects; empty: none.
    pub revision: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: ROOT_NAMESPACE.to_owned(),
            trusted_namespaces: BTreeSet::new(),
            closed_namespaces: closed_namespaces(ROOT_NAMESPACE),
            scope: Scope::Root,
            virtual_service_export_to: Vec::new(),
            ports: Ports::All,
            data_planes: BTreeSet::from([DataPlane::Aeraki]),
            aeraki_proxies: ProxySelector::default(),
            capabilities: Capabilities::default(),
            access_log: None,
            tracing: None,
            idle_timeout: None,
            multiplexing: BTreeSet::new(),
            aeraki_xds_cluster: "aeraki-xds".to_owned(),
            xds: XdsEndpoint::plain("trimtab.istio-system.svc:15010"),
            xds_authority: "trimtab".to_owned(),
            secret_path: String::new(),
            secrets_inline: false,
            withhold_secrets: false,
            proxy_version: String::new(),
            revision: String::new(),
        }
    }
}

/// Where a tenant has nothing to do: the namespaces of Kubernetes, and the root namespace.
pub fn closed_namespaces(root: &str) -> BTreeSet<String> {
    let names = ["kube-system", "kube-public", "kube-node-lease", root];
    names.map(str::to_owned).into()
}

/// Istio's root namespace unless something else is said.
const ROOT_NAMESPACE: &str = "istio-system";

impl Settings {
    /// These settings, and what Istio's MeshConfig says of what they leave open. An access log without a path is none,
    /// whatever the MeshConfig says.
    #[must_use]
    pub fn over(&self, mesh: &MeshConfig) -> Self {
        let mut out = self.clone();
        out.access_log = out.access_log.filter(|log| !log.path.is_empty());
        if self.access_log.is_none() && !mesh.access_log_file.is_empty() {
            out.access_log = Some(AccessLog {
                path: mesh.access_log_file.clone(),
                format: mesh.access_log_format.clone(),
                encoding: match mesh.access_log_encoding.as_str() {
                    "JSON" => LogEncoding::Json,
                    _ => LogEncoding::Text,
                },
            });
        }
        if out.tracing.is_none()
            && let Some(sampling) = mesh.sampling()
        {
            out.tracing = Some(Tracing {
                sampling: sampling.clamp(0.0, 100.0),
            });
        }
        let default = mesh.export_defaults().virtual_services.written();
        out.virtual_service_export_to = default;
        if out.root_namespace == ROOT_NAMESPACE && !mesh.root_namespace.is_empty() {
            out.root_namespace.clone_from(&mesh.root_namespace);
            if out.closed_namespaces.remove(ROOT_NAMESPACE) {
                out.closed_namespaces.insert(mesh.root_namespace.clone());
            }
        }
        out
    }

    /// Which namespaces decide on hosts of others.
    pub fn trust(&self) -> Trust<'_> {
        Trust {
            root: &self.root_namespace,
            further: &self.trusted_namespaces,
        }
    }
}

/// Which namespaces get the outbound side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// All: objects are in the root namespace.
    #[default]
    Root,
    /// The namespace of the service.
    ServiceNamespace,
}

/// Which ports are managed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ports {
    /// Those named `tcp-metaprotocol-*`, and of the others those whose host an object of a user names: a port that is only
    /// called `tcp-redis` keeps Istio's TCP proxy.
    Referenced,
    /// All whose name or `appProtocol` says a protocol, as Aeraki does.
    #[default]
    All,
}

/// A family of proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataPlane {
    /// Aeraki's MetaProtocol proxies.
    Aeraki,
    /// Stock Envoy.
    Envoy,
}

/// Tells proxies apart. Both parts must hold; empty: all proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxySelector {
    /// Labels of pods, as `workloadSelector`.
    pub labels: BTreeMap<String, String>,
    /// Node metadata with exact values, as `match.proxy.metadata`.
    pub metadata: BTreeMap<String, String>,
}

/// What stock proxies have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Capabilities {
    /// Filters that are compiled in.
    pub filters: BTreeSet<StockFilter>,
    /// Ways in which routes can reach the proxies.
    pub deliveries: BTreeSet<Delivery>,
}

impl Default for Capabilities {
    /// Those of stock Envoy since 1.36 and a bootstrap without changes.
    fn default() -> Self {
        use StockFilter::{DubboProxy, GenericProxy, RedisProxy, ThriftProxy, ZookeeperProxy};
        Self {
            filters: BTreeSet::from([
                DubboProxy,
                GenericProxy,
                RedisProxy,
                ThriftProxy,
                ZookeeperProxy,
            ]),
            deliveries: BTreeSet::from([Delivery::Ecds, Delivery::Inline]),
        }
    }
}

impl Capabilities {
    /// The best way that all proxies have, of `wanted` (best first); inline always works.
    pub fn best(&self, wanted: &[Delivery]) -> Delivery {
        let known = |d: &&Delivery| self.deliveries.contains(d);
        wanted
            .iter()
            .find(known)
            .copied()
            .unwrap_or(Delivery::Inline)
    }
}

/// A network filter of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StockFilter {
    /// `envoy.filters.network.dubbo_proxy`.
    DubboProxy,
    /// `envoy.filters.network.generic_proxy` with the Dubbo codec.
    GenericProxy,
    /// `envoy.filters.network.kafka_broker`, which is not in ordinary builds.
    KafkaBroker,
    /// `envoy.filters.network.redis_proxy`.
    RedisProxy,
    /// `envoy.filters.network.thrift_proxy`.
    ThriftProxy,
    /// `envoy.filters.network.zookeeper_proxy`.
    ZookeeperProxy,
}

/// How routes reach stock proxies, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Delivery {
    /// A route resource by `xdstp` name from our server: live connections follow a change.
    RouteDiscovery,
    /// The network filter's configuration from our server: new connections follow.
    Ecds,
    /// In the EnvoyFilter: a change drains the listener.
    Inline,
}

/// Access logs of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// File, e.g. `/dev/stdout`.
    pub path: String,
    /// The mesh's own format; empty: the default. JSON text with encoding JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Text or JSON.
    #[serde(default)]
    pub encoding: LogEncoding,
}

/// Encoding of access logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LogEncoding {
    /// Lines of text.
    #[default]
    Text,
    /// JSON objects.
    Json,
}

/// Tracing of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// Percent of requests.
    pub sampling: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_m20_the_mesh_config_counts_where_nothing_is_set() {
        let mesh = |text: &str| MeshConfig::parse(text).expect("a MeshConfig");
        let open = Settings::default();
        let all = mesh("{accessLogFile: /dev/stdout, enableTracing: true, rootNamespace: root}");
        let over = open.over(&all);
        let log = over.access_log.expect("a log");
        assert_eq!(
            (log.path.as_str(), log.encoding),
            ("/dev/stdout", LogEncoding::Text)
        );
        assert_eq!(over.tracing, Some(Tracing { sampling: 1.0 }));
        assert_eq!(over.root_namespace, "root");
        assert_eq!(open.over(&MeshConfig::default()), open);
        assert_eq!(
            open.over(&mesh("{accessLogFormat: x}")),
            open,
            "no file, no log"
        );
        assert_eq!(
            open.over(&mesh("{defaultConfig: {tracing: {sampling: 5}}}")),
            open
        );
        let set = Settings {
            access_log: Some(AccessLog {
                path: "/own".to_owned(),
                ..AccessLog::default()
            }),
            tracing: Some(Tracing { sampling: 0.0 }),
            root_namespace: "own".to_owned(),
            ..Settings::default()
        };
        assert_eq!(set.over(&all), set);
    }
}
