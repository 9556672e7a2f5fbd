//! The modules of this binary. A new one is a crate and a line here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use trimtab_dataplane::XdsAddress;
use trimtab_dataplane::module::{Proxies, setup};
use trimtab_kit::host::Host;
use trimtab_kit::identity::PortSecurity;
use trimtab_kit::module::{Factory, SetupError};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;
use trimtab_metaprotocol::bootstrap::{XdsServer, config_map};
use trimtab_metaprotocol::module::Metaprotocol;

use crate::config::Config;

const LOOPBACK: [IpNet; 2] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// All of them, in the order in which they are set up.
pub fn all() -> Vec<Factory> {
    vec![
        Factory::of::<Limiter>(),
        Factory::of::<Metaprotocol>(),
        Factory::of::<Lazyload>(),
    ]
}

/// What plain Envoys are served in standalone mode, by the MetaProtocol section.
pub fn add_data_plane(
    config: &Config,
    proxies: &Proxies,
    host: &mut Host,
) -> Result<(), SetupError> {
    let (metaprotocol, proxies) = (config.of::<Metaprotocol>(), proxies.clone());
    let plain = config.xds.tls.is_none() && config.xds.tokens.is_none();
    let withhold = plain && !config.xds.plaintext_secrets;
    host.add("dataplane", |declare| {
        setup(&metaprotocol, proxies, withhold, declare);
        Ok(())
    })
}

/// The ConfigMap with which Aeraki's proxies in a namespace start.
pub fn aeraki_bootstrap(
    config: &Config,
    namespace: &str,
    xds: &XdsAddress,
    tls: bool,
) -> serde_json::Value {
    let server = XdsServer {
        cluster: config.of::<Metaprotocol>().aeraki_xds_cluster,
        host: xds.host.clone(),
        port: xds.port,
        tls,
    };
    config_map(namespace, &server)
}

/// Istio's root namespaces, as modules have them.
pub fn root_namespaces(config: &Config) -> [String; 2] {
    [
        config.of::<Limiter>().root_namespace,
        config.of::<Metaprotocol>().root_namespace,
    ]
}

/// Keys of the ports that want mTLS of the mesh.
pub fn mesh_ports(config: &Config) -> Vec<&'static str> {
    let mds = config.metrics.mds.as_ref().map(|mds| mds.security);
    let logs = config.of::<Lazyload>().learn.access_log;
    [
        ("metrics.mds.security", mds),
        (
            "lazyload.learn.accessLog.security",
            logs.map(|logs| logs.security),
        ),
    ]
    .into_iter()
    .filter_map(|(key, security)| (security == Some(PortSecurity::Mesh)).then_some(key))
    .collect()
}

/// In standalone mode the fallback's proxies have no pods: their access logs are known by the addresses where they listen.
/// Those on this machine come from any address of it. The answer is the configuration as it was.
pub fn trust_fallbacks(config: &mut Config) -> Config {
    let as_written = config.clone();
    let proxies = config.data_plane.as_ref();
    let fallback = proxies.and_then(|proxies| proxies.fallback.clone());
    let logs = config.of::<Lazyload>().learn.access_log;
    let (Some(fallback), Some(_)) = (fallback, logs) else {
        return as_written;
    };
    let here = fallback.addresses.iter().any(IpAddr::is_loopback);
    config.edit::<Lazyload>(|lazyload| {
        if let Some(logs) = &mut lazyload.learn.access_log {
            let proxies = fallback
                .addresses
                .iter()
                .map(|address| IpNet::from(*address));
            logs.trusted.extend(proxies);
            logs.trusted
                .extend(LOOPBACK.iter().filter(|_| here).copied());
        }
    });
    as_written
}

/// The lazyload section with what it takes from others.
pub fn lazyload(config: &Config) -> LazyloadConfig {
    LazyloadConfig {
        domain: config.mesh.domain.clone(),
        ..config.of::<Lazyload>()
    }
}

/// Objects that `translate` assumes where the input has none: the end of the rollout is what a review is about.
pub fn assumed_objects(config: &Config) -> Vec<serde_json::Value> {
    trimtab_lazyload::fallback::assumed(&lazyload(config))
}
