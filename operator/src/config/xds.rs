//! `xds:` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trimtab_crds::{Duration, duration};
use trimtab_xds::{Limits, NodeTrust, ServerOptions, TlsFiles};

/// The xDS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Xds {
    /// Where to listen. Loopback unless set; a cluster needs `0.0.0.0:15010`.
    pub address: SocketAddr,
    /// `host:port` as proxies reach it; written into generated EnvoyFilters. Empty: the address where it listens in
    /// standalone mode; in a cluster delivery ECDS is then refused.
    pub advertise: String,
    /// Certificates for mutual TLS; absent: the listener is plain.
    pub tls: Option<Tls>,
    /// Whether what a proxy says of itself opens resources to it.
    pub trust_nodes: Trust,
    /// Age at which connections are closed, so that proxies spread over replicas again; absent or empty: never.
    #[serde(deserialize_with = "duration::or_empty")]
    pub max_connection_age: Option<Duration>,
    /// Bounds on what one proxy may use.
    pub limits: XdsLimits,
}

impl Default for Xds {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 15010)),
            advertise: String::new(),
            tls: None,
            trust_nodes: Trust::default(),
            max_connection_age: None,
            limits: XdsLimits::default(),
        }
    }
}

/// Files of mutual TLS, all PEM; read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate of the server, then the intermediate ones.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities of proxies' certificates, usually the mesh's root.
    pub client_ca: PathBuf,
    /// Trust domains that are accepted; empty: each that the authorities vouch for.
    pub trust_domains: Vec<String>,
}

/// Whether node ids, groups and, without TLS, namespaces are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Only on a plain listener.
    #[default]
    PlainOnly,
    /// Also beside a certificate.
    Always,
    /// Never.
    Never,
}

/// Bounds on what one proxy may use; passing one ends its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct XdsLimits {
    /// Bytes of one request.
    pub message_bytes: usize,
    /// Names that one stream may ask for.
    pub names_per_stream: usize,
    /// Streams of one identity.
    pub streams_per_identity: usize,
    /// Connections of all; one address other than loopback may have a quarter.
    pub connections: usize,
    /// Streams of all.
    pub streams: usize,
}

impl Default for XdsLimits {
    fn default() -> Self {
        let Limits {
            message_bytes,
            names_per_stream,
            streams_per_identity,
            connections,
            streams,
            ..
        } = Limits::default();
        Self {
            message_bytes,
            names_per_stream,
            streams_per_identity,
            connections,
            streams,
        }
    }
}

impl Xds {
    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        if let Some(age) = self.max_connection_age
            && age < Duration::from_secs(1)
        {
            return Err(format!(
                "xds.maxConnectionAge: {age} is shorter than 1s: write for example 30m"
            ));
        }
        if let Some(tls) = &self.tls {
            for (key, path) in [
                ("certificate", &tls.certificate),
                ("key", &tls.key),
                ("clientCa", &tls.client_ca),
            ] {
                if path.as_os_str().is_empty() {
                    return Err(format!(
                        "xds.tls.{key}: name a PEM file, or leave xds.tls out for a plain listener"
                    ));
                }
            }
        }
        let limits = &self.limits;
        for (key, number) in [
            ("messageBytes", limits.message_bytes),
            ("namesPerStream", limits.names_per_stream),
            ("streamsPerIdentity", limits.streams_per_identity),
            ("connections", limits.connections),
            ("streams", limits.streams),
        ] {
            if number == 0 {
                return Err(format!(
                    "xds.limits.{key} is 0, so that no proxy could be served: write a larger number"
                ));
            }
        }
        Ok(())
    }

    /// As the server takes them.
    pub fn options(&self) -> ServerOptions {
        let tls = self.tls.as_ref().map(|tls| TlsFiles {
            trust_domains: tls.trust_domains.clone(),
            ..TlsFiles::new(&tls.certificate, &tls.key, &tls.client_ca)
        });
        ServerOptions {
            tls,
            trust_nodes: match self.trust_nodes {
                Trust::PlainOnly => NodeTrust::PlainOnly,
                Trust::Always => NodeTrust::Always,
                Trust::Never => NodeTrust::Never,
            },
            limits: Limits {
                message_bytes: self.limits.message_bytes,
                names_per_stream: self.limits.names_per_stream,
                streams_per_identity: self.limits.streams_per_identity,
                connections: self.limits.connections,
                streams: self.limits.streams,
                ..Limits::default()
            },
            max_connection_age: self.max_connection_age.map(Into::into),
            ..ServerOptions::default()
        }
    }
}
