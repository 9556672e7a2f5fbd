//! Bootstrap configurations of a proxy that looks, to an `EnvoyFilter`, like one that Istio configured.
//!
//! The names that patches match on are Istio's: listener contexts, route configurations (`inbound|9080||`, `9080`,
//! `http.80`), virtual hosts (`inbound|http|9080`, `reviews.default.svc.cluster.local:9080`), routes, clusters and
//! filters. How traffic gets there is not: every listener has a loopback port of its own instead of the iptables
//! redirection of a sidecar, and clusters are static.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use trimtab_lab::envoy;

use crate::merge::Context;

/// The key of a listener's metadata under which its context and port are kept for [`crate::merge`].
pub(crate) const METADATA: &str = "trimtab.lab";

/// Name of the bootstrap cluster that leads to Trimtab's xDS server.
pub const XDS_CLUSTER: &str = "trimtab-xds";

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const STATS_LOGGER: &str = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config";

/// One proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.metadata`; Istio puts `LABELS` and `NAMESPACE` there.
    pub metadata: Value,
    /// Where the admin interface listens.
    pub admin: SocketAddr,
    /// The listeners, each with a route configuration.
    pub listeners: Vec<Listener>,
    /// Adds the static HTTP/2 cluster [`XDS_CLUSTER`].
    pub xds: Option<SocketAddr>,
    /// Makes the members of this proxy's own workload known, for `local_cluster_rate_limit`.
    pub local_cluster: Option<LocalCluster>,
    /// More clusters as Envoy JSON, for example one for a rate limit service.
    pub clusters: Vec<Value>,
}

/// The cluster that a proxy belongs to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCluster {
    /// Its name.
    pub name: String,
    /// Its members; only their number matters.
    pub members: Vec<SocketAddr>,
}

/// A listener with one HTTP connection manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What `match.context` compares with.
    pub context: Context,
    /// The mesh's port: what `match.listener.portNumber` compares with.
    pub port: u16,
    /// Where it really listens.
    pub listen: SocketAddr,
    /// Name of its route configuration.
    pub route_config: String,
    /// Its virtual hosts.
    pub virtual_hosts: Vec<VirtualHost>,
    /// How many entries of `x-forwarded-for`, counted from the right, are trusted. With 1, a request presents its
    /// client address as the last entry of that header.
    pub trusted_hops: u32,
    /// Counts requests as `istio_requests_total` when set.
    pub telemetry: Option<Telemetry>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualHost {
    /// Its name; outside of inbound listeners `host:port`.
    pub name: String,
    /// The domains it answers for.
    pub domains: Vec<String>,
    /// Its routes, the first match wins.
    pub routes: Vec<Route>,
}

/// A route to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name; Istio gives routes the names of the VirtualService's HTTP routes.
    pub name: String,
    /// Path prefix.
    pub prefix: String,
    /// Name of the cluster.
    pub cluster: String,
    /// The members of that cluster.
    pub endpoints: Vec<SocketAddr>,
}

/// The constant labels of `istio_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// `reporter`: `destination` for inbound listeners, else `source`.
    pub reporter: String,
    /// `destination_service`, a full host name.
    pub destination_service: String,
    /// `destination_workload_namespace`.
    pub namespace: String,
    /// `pod`.
    pub pod: String,
}

impl Listener {
    /// A sidecar's listener for a port of its workload: everything goes to `upstream`.
    pub fn inbound(port: u16, listen: SocketAddr, upstream: SocketAddr) -> Self {
        let route = Route {
            name: "default".to_owned(),
            prefix: "/".to_owned(),
            cluster: format!("inbound|{port}||"),
            endpoints: vec![upstream],
        };
        let host = VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
        };
        Self {
            context: Context::SidecarInbound,
            port,
            listen,
            route_config: format!("inbound|{port}||"),
            virtual_hosts: vec![host],
            trusted_hops: 0,
            telemetry: None,
        }
    }

    /// A sidecar's listener for calls to a port of other services; the route configuration has the port as its name.
    pub fn outbound(port: u16, listen: SocketAddr, virtual_hosts: Vec<VirtualHost>) -> Self {
        Self {
            context: Context::SidecarOutbound,
            port,
            listen,
            route_config: port.to_string(),
            virtual_hosts,
            trusted_hops: 0,
            telemetry: None,
        }
    }

    /// A gateway's listener; the route configuration is named `http.<port>`.
    pub fn gateway(port: u16, listen: SocketAddr, virtual_hosts: Vec<VirtualHost>) -> Self {
        let outbound = Self::outbound(port, listen, virtual_hosts);
        Self {
            context: Context::Gateway,
            route_config: format!("http.{port}"),
            ..outbound
        }
    }

    /// The same listener with trusted `x-forwarded-for` entries.
    #[must_use]
    pub fn trusting(mut self, hops: u32) -> Self {
        self.trusted_hops = hops;
        self
    }

    /// The same listener, counting its requests.
    #[must_use]
    pub fn counting(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// The listener's name in the configuration.
    pub fn name(&self) -> String {
        match self.context {
            Context::SidecarInbound => format!("inbound_{}", self.port),
            Context::SidecarOutbound => format!("outbound_{}", self.port),
            Context::Gateway => format!("gateway_{}", self.port),
        }
    }

    fn emit(&self) -> Value {
        let direction = if self.context == Context::SidecarInbound {
            "INBOUND"
        } else {
            "OUTBOUND"
        };
        json!({
            "name": self.name(),
            "address": address(self.listen),
            "traffic_direction": direction,
            "metadata": {"filter_metadata": {METADATA: {"context": self.context.as_str(), "port": self.port}}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": self.connection_manager(),
            }]}],
        })
    }

    fn connection_manager(&self) -> Value {
        let hosts: Vec<Value> = self.virtual_hosts.iter().map(VirtualHost::emit).collect();
        let mut manager = json!({
            "@type": HCM,
            "stat_prefix": self.name(),
            // The client address is what the connection or x-forwarded-for says, as rate limits by source need it.
            "use_remote_address": true,
            "xff_num_trusted_hops": self.trusted_hops,
            "route_config": {
                "name": self.route_config,
                "virtual_hosts": hosts,
                // A missing cluster is to fail at load, not as a 503 later.
                "validate_clusters": true,
            },
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        });
        if let Some(telemetry) = &self.telemetry {
            manager["access_log"] = json!([telemetry.emit()]);
        }
        manager
    }
}

impl VirtualHost {
    /// A virtual host `host:port` as Istio makes it for a service: one catch-all route named `default`.
    pub fn service(host: &str, port: u16, endpoints: Vec<SocketAddr>) -> Self {
        Self::with_routes(
            host,
            port,
            vec![Route {
                name: "default".to_owned(),
                prefix: "/".to_owned(),
                cluster: format!("outbound|{port}||{host}"),
                endpoints,
            }],
        )
    }

    /// A virtual host `host:port` with these routes.
    pub fn with_routes(host: &str, port: u16, routes: Vec<Route>) -> Self {
        Self {
            name: format!("{host}:{port}"),
            domains: vec![host.to_owned(), format!("{host}:{port}")],
            routes,
        }
    }

    fn emit(&self) -> Value {
        let route = |route: &Route| {
            json!({
                "name": route.name,
                "match": {"prefix": route.prefix},
                "route": {"cluster": route.cluster, "timeout": "0s"},
            })
        };
        let routes: Vec<Value> = self.routes.iter().map(route).collect();
        json!({"name": self.name, "domains": self.domains, "routes": routes})
    }
}

impl Telemetry {
    /// Envoy's own stats logger, counting and timing with Istio's names and labels. The counter appears as
    /// `envoy_istio_istio_requests_total`; [`trimtab_lab::prometheus`] renames it when it scrapes.
    fn emit(&self) -> Value {
        // A percent sign would begin a format operator.
        let fixed = |text: &str| text.replace('%', "%%");
        let tags: Vec<Value> = [
            ("reporter", fixed(&self.reporter)),
            ("destination_service", fixed(&self.destination_service)),
            ("destination_workload_namespace", fixed(&self.namespace)),
            ("pod", fixed(&self.pod)),
            ("response_code", "%RESPONSE_CODE%".to_owned()),
            ("response_flags", "%RESPONSE_FLAGS%".to_owned()),
        ]
        .into_iter()
        .map(|(name, format)| json!({"name": name, "value_format": format}))
        .collect();
        json!({
            "name": "envoy.access_loggers.stats",
            "typed_config": {
                "@type": STATS_LOGGER,
                "stat_prefix": "istio",
                "counters": [{"stat": {"name": "istio_requests_total", "tags": tags}, "value_fixed": 1}],
                "histograms": [{
                    "stat": {"name": "istio_request_duration_milliseconds", "tags": tags},
                    "unit": "Milliseconds",
                    "value_format": "%DURATION%",
                }],
            },
        })
    }
}

impl Proxy {
    /// A proxy without listeners. `labels` and `namespace` go to the node's metadata, as Istio's agent does it.
    pub fn new(
        id: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        admin: SocketAddr,
    ) -> Self {
        let app = labels.get("app").map_or(id, String::as_str);
        Self {
            id: id.to_owned(),
            cluster: format!("{app}.{namespace}"),
            metadata: json!({"NAMESPACE": namespace, "LABELS": labels}),
            admin,
            listeners: Vec::new(),
            xds: None,
            local_cluster: None,
            clusters: Vec::new(),
        }
    }

    /// The same proxy with one more listener.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The bootstrap configuration in Envoy's JSON form, with snake_case names.
    pub fn bootstrap(&self) -> Value {
        let listeners: Vec<Value> = self.listeners.iter().map(Listener::emit).collect();
        let mut bootstrap = json!({
            "node": {"id": self.id, "cluster": self.cluster, "metadata": self.metadata},
            "admin": {"address": address(self.admin)},
            "static_resources": {"listeners": listeners, "clusters": self.emit_clusters()},
            "layered_runtime": envoy::istio_runtime(),
            // Istio's extraction rules: the default ones cut Istio's cluster names at their dots.
            "stats_config": {"use_all_default_tags": false, "stats_tags": [
                {"tag_name": "cluster_name", "regex": r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"},
                {"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"},
            ]},
        });
        if let Some(local) = &self.local_cluster {
            bootstrap["cluster_manager"] = json!({"local_cluster_name": local.name});
        }
        bootstrap
    }

    fn emit_clusters(&self) -> Vec<Value> {
        let routes = self
            .listeners
            .iter()
            .flat_map(|l| &l.virtual_hosts)
            .flat_map(|host| &host.routes);
        // One cluster a name, also when several routes lead to it.
        let named: BTreeMap<&str, &[SocketAddr]> = routes
            .map(|route| (route.cluster.as_str(), route.endpoints.as_slice()))
            .collect();
        let mut clusters: Vec<Value> = named
            .into_iter()
            .map(|(name, members)| cluster(name, members, false))
            .collect();
        if let Some(xds) = self.xds {
            clusters.push(cluster(XDS_CLUSTER, &[xds], true));
        }
        if let Some(local) = &self.local_cluster {
            clusters.push(cluster(&local.name, &local.members, false));
        }
        clusters.extend(self.clusters.iter().cloned());
        clusters
    }
}

/// A static cluster; `http2` is what gRPC services need.
pub fn cluster(name: &str, members: &[SocketAddr], http2: bool) -> Value {
    let endpoints: Vec<Value> = members
        .iter()
        .map(|member| json!({"endpoint": {"address": address(*member)}}))
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if http2 {
        let mut options = Map::new();
        options.insert(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            json!({"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}),
        );
        cluster["typed_extension_protocol_options"] = Value::Object(options);
    }
    cluster
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
