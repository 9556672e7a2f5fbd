//! The bootstrap of a proxy: who it is, and where its configuration comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use trimtab_kit::envoy::re2::{MAX_PROGRAM, PROGRAM_SIZE_KEY};
use trimtab_xds::GROUP_KEY;

use crate::address::{XdsAddress, socket};

/// Cluster of the xDS server in the bootstrap.
pub const XDS_CLUSTER: &str = "trimtab";
/// Authority of `xdstp` names that the bootstrap leads to the xDS server.
pub const AUTHORITY: &str = "trimtab";
/// Authority of the names that standalone resources have: routes of one name may be served to sidecars of a mesh by the
/// same server, with other content.
pub(super) const OWN_AUTHORITY: &str = "trimtab-standalone";
/// `node.cluster` of a proxy without a group; Envoy needs one.
const NO_GROUP: &str = "standalone";
/// Without it Envoy ignores `config_sources`.
const XDSTP_FLAG: &str = "envoy.reloadable_features.xdstp_based_config_singleton_subscriptions";
const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS_CONTEXT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// Where the admin interface listens unless told otherwise: it can stop the proxy and shows its configuration.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Files of the connection to the xDS server, as the proxy sees them. It reads them when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsTls {
    /// Root certificates of the server, PEM.
    pub ca: PathBuf,
    /// The proxy's own certificate, then the intermediate ones, PEM: with a SPIFFE ID, which the server tells it by.
    pub certificate: PathBuf,
    /// Private key of that certificate, PEM.
    pub key: PathBuf,
    /// Name that the server's certificate must have; `None`: the host of the address.
    pub server_name: Option<String>,
}

/// What a bootstrap is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// `node.id`: one for each proxy.
    pub node: String,
    /// `node.cluster` and node metadata `TRIMTAB_GROUP`: `NAMESPACE/POD` for the proxy of a pod, and
    /// [`crate::FALLBACK_GROUP`] for a fallback proxy; `None`: all of the server's.
    pub group: Option<String>,
    /// The xDS server.
    pub xds: XdsAddress,
    /// The admin interface.
    pub admin: SocketAddr,
    /// TLS to the xDS server; `None`: plain.
    pub tls: Option<XdsTls>,
}

impl BootstrapOptions {
    /// A proxy without a group, TLS or a special admin address (`127.0.0.1:15000`).
    pub fn new(node: impl Into<String>, xds: XdsAddress) -> Self {
        Self {
            node: node.into(),
            group: None,
            xds,
            admin: ADMIN,
            tls: None,
        }
    }
}

/// A complete bootstrap as JSON, which Envoy reads: `envoy -c FILE`.
///
/// Listeners, clusters and all that they name come over one aggregated delta stream. Names of the authority
/// [`AUTHORITY`] are asked for on a second one to the same server.
pub fn bootstrap(options: &BootstrapOptions) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": node(options),
        "admin": {"address": socket(
            &options.admin.ip().to_string(), options.admin.port())},
        "dynamic_resources": {
            "ads_config": api("DELTA_GRPC"),
            "lds_config": ads,
            "cds_config": ads,
        },
        "config_sources": [{
            "authorities": [{"name": AUTHORITY}, {"name": OWN_AUTHORITY}],
            "api_config_source": api("AGGREGATED_DELTA_GRPC"),
            "resource_api_version": "V3",
        }],
        "static_resources": {"clusters": [cluster(options)]},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            XDSTP_FLAG: true,
            PROGRAM_SIZE_KEY: MAX_PROGRAM,
        }}]},
    })
}

fn node(options: &BootstrapOptions) -> Value {
    let mut node = Map::new();
    node.insert("id".into(), json!(options.node));
    let group = options.group.as_deref();
    node.insert("cluster".into(), json!(group.unwrap_or(NO_GROUP)));
    if let Some(group) = group {
        node.insert("metadata".into(), json!({GROUP_KEY: group}));
    }
    Value::Object(node)
}

fn api(api_type: &str) -> Value {
    json!({
        "api_type": api_type,
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
    })
}

fn cluster(options: &BootstrapOptions) -> Value {
    let XdsAddress { host, port } = &options.xds;
    let by_name = host.parse::<IpAddr>().is_err();
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": if by_name { "STRICT_DNS" } else { "STATIC" },
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                // A server that vanished is noticed without a request, of which there may be none for hours.
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                }},
            },
        },
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(host, *port)}},
        ]}]},
    });
    if by_name {
        cluster["dns_lookup_family"] = json!("V4_PREFERRED");
    }
    if let Some(tls) = &options.tls {
        cluster["transport_socket"] = transport(tls, host);
    }
    cluster
}

/// A certificate of the right root is not enough: it must be the server's.
fn transport(tls: &XdsTls, host: &str) -> Value {
    let name = tls.server_name.as_deref().unwrap_or(host);
    let kind = if name.starts_with("spiffe://") {
        "URI"
    } else if name.parse::<IpAddr>().is_ok() {
        "IP_ADDRESS"
    } else {
        "DNS"
    };
    let file = |path: &PathBuf| json!({"filename": path});
    let own = json!({"certificate_chain": file(&tls.certificate), "private_key": file(&tls.key)});
    let common = json!({
        "tls_certificates": [own],
        "validation_context": {
            "trusted_ca": file(&tls.ca),
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}],
        },
    });
    let mut context = json!({"@type": TLS_CONTEXT, "common_tls_context": common});
    if kind == "DNS" {
        context["sni"] = json!(name);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_t9_programs_of_expressions_may_be_as_large_as_in_a_mesh() {
        let made = bootstrap(&BootstrapOptions::new("p", "h:1".parse().unwrap()));
        let layer = &made["layered_runtime"]["layers"][0]["static_layer"];
        assert_eq!(layer["re2.max_program_size.error_level"], 32_768);
    }

    #[test]
    fn the_group_is_the_cluster_and_in_the_metadata() {
        let mut options = BootstrapOptions::new("p", "h:1".parse().unwrap());
        let plain = bootstrap(&options);
        assert_eq!(plain["node"], json!({"id": "p", "cluster": NO_GROUP}));
        options.group = Some("edge".into());
        let node = json!({"id": "p", "cluster": "edge", "metadata": {"TRIMTAB_GROUP": "edge"}});
        assert_eq!(bootstrap(&options)["node"], node);
    }

    #[test]
    fn the_server_is_told_by_the_name_in_its_certificate() {
        for (xds, name, kind) in [
            ("h:1", None, "DNS"),
            ("127.0.0.1:1", None, "IP_ADDRESS"),
            ("h:1", Some("spiffe://d/ns/a/sa/b"), "URI"),
        ] {
            let mut options = BootstrapOptions::new("p", xds.parse().unwrap());
            options.tls = Some(XdsTls {
                ca: "ca.pem".into(),
                certificate: "cert.pem".into(),
                key: "key.pem".into(),
                server_name: name.map(str::to_owned),
            });
            let made = bootstrap(&options);
            let context =
                &made["static_resources"]["clusters"][0]["transport_socket"]["typed_config"];
            let expected = name.unwrap_or(xds.split(':').next().unwrap());
            let names = &context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"];
            assert_eq!(
                *names,
                json!([{"san_type": kind, "matcher": {"exact": expected}}])
            );
        }
    }
}
