//! `trimtab aeraki-bootstrap`: the ConfigMaps without which Aeraki's proxies do not start.

use std::path::PathBuf;

use clap::{Args, FromArgMatches};
use trimtab_dataplane::XdsAddress;

use crate::config::Config;
use crate::manifests::yaml;
use crate::modules;

/// What is printed.
#[derive(Clone, Debug, Args)]
pub struct AerakiBootstrapArgs {
    /// Namespaces with Aeraki's proxies
    #[arg(required = true, value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// The xDS server as these proxies reach it
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "aeraki.istio-system:15010"
    )]
    xds: XdsAddress,
    /// Configuration file: of it count xds.tls and metaprotocol.aerakiXdsCluster
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The xDS server speaks TLS, as with xds.tls in the configuration or tls.secretName in the chart
    #[arg(long)]
    tls: bool,
}

impl AerakiBootstrapArgs {
    /// The arguments of a command line, without the names of program and command.
    pub fn of(args: &[String]) -> Result<Self, clap::Error> {
        let command =
            Self::augment_args(clap::Command::new("aeraki-bootstrap").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// The ConfigMaps as YAML.
    pub fn text(&self, config: &Config) -> anyhow::Result<String> {
        let tls = self.tls || config.xds.tls.is_some();
        let mut out = String::new();
        for namespace in &self.namespaces {
            out.push_str("---\n");
            let map = modules::aeraki_bootstrap(config, namespace, &self.xds, tls);
            out.push_str(&yaml(&map)?);
        }
        Ok(out)
    }
}
