//! `trimtab bootstrap`: the file that a plain Envoy starts with.

use std::net::SocketAddr;
use std::path::PathBuf;

use trimtab_dataplane::{BootstrapOptions, XdsAddress, XdsTls, bootstrap};

/// Arguments of `trimtab bootstrap`.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    /// Name of the proxy, one for each
    #[arg(long, value_name = "ID")]
    node: String,
    /// What the proxy is served: NAMESPACE/POD for the one of a pod, trimtab/fallback for a fallback proxy; absent: all
    #[arg(long)]
    group: Option<String>,
    /// The xDS server, e.g. 127.0.0.1:15010
    #[arg(long, value_name = "HOST:PORT")]
    xds: XdsAddress,
    /// The proxy's admin interface
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15000")]
    admin: SocketAddr,
    /// Root certificates of the xDS server, PEM; --ca, --cert and --key come together
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// The proxy's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<PathBuf>,
    /// Name in the certificate of the xDS server; absent: the host of --xds
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
}

impl BootstrapArgs {
    /// The bootstrap as JSON text, which `envoy -c FILE` reads.
    pub fn text(self) -> anyhow::Result<String> {
        let tls = self.ca.zip(self.cert).zip(self.key);
        let options = BootstrapOptions {
            node: self.node,
            group: self.group,
            xds: self.xds,
            admin: self.admin,
            tls: tls.map(|((ca, certificate), key)| XdsTls {
                ca,
                certificate,
                key,
                server_name: self.server_name,
            }),
        };
        let mut text = serde_json::to_string_pretty(&bootstrap(&options))?;
        text.push('\n');
        Ok(text)
    }
}
