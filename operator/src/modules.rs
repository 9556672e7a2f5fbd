//! The modules of this binary. A new one is a crate and a line here.

use trimtab_dataplane::XdsAddress;
use trimtab_dataplane::module::{Proxies, setup};
use trimtab_kit::host::Host;
use trimtab_kit::module::{Factory, SetupError};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::module::Lazyload;
use trimtab_limiter::module::Limiter;
use trimtab_metaprotocol::bootstrap::{XdsServer, config_map};
use trimtab_metaprotocol::module::Metaprotocol;

use crate::config::Config;

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
    host.add("dataplane", |declare| {
        setup(&metaprotocol, proxies, declare);
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
