//! `xds:` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trimtab_crds::{Duration, duration};
use trimtab_kit::identity::{AuthorityConfig, TokenConfig};
use trimtab_xds::{Limits, NodeTrust, Security, ServerOptions, TlsFiles};

/// The xDS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Xds {
    /// Where to listen. Loopback unless set; a cluster needs `0.0.0.0:15010`.
    pub address: SocketAddr,
    /// `host:port` as proxies reach it; written into generated EnvoyFilters. Empty: the address where it listens in
    /// standalone mode; in a cluster delivery ECDS is then refused.
    pub advertise: String,
    /// Certificates for mutual TLS.
    pub tls: Option<Tls>,
    /// TLS by an authority of Trimtab's own, and proxies that show their ServiceAccount tokens. Without it and without
    /// `tls` the listener is plain.
    pub tokens: Option<XdsTokens>,
    /// A plain listener may be reached from other machines: whoever does so is believed what it says of itself.
    pub plaintext: bool,
    /// Without TLS anybody who reaches the port may ask: true lets passwords of Redis objects be in the answers to plain
    /// Envoys all the same.
    pub plaintext_secrets: bool,
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
            tokens: None,
            plaintext: false,
            plaintext_secrets: false,
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

impl Tls {
    /// Whether all files are named. `section`: where this stands.
    pub(super) fn check(&self, section: &str) -> Result<(), String> {
        for (key, path) in [
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("clientCa", &self.client_ca),
        ] {
            if path.as_os_str().is_empty() {
                return Err(format!(
                    "{section}.{key}: name a PEM file, or leave {section} out for a plain listener"
                ));
            }
        }
        Ok(())
    }

    /// As servers take them.
    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            trust_domains: self.trust_domains.clone(),
            ..TlsFiles::new(&self.certificate, &self.key, &self.client_ca)
        }
    }
}

/// ServiceAccount tokens of proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct XdsTokens {
    /// The token's file in the proxies. The default is where Istio mounts it in every sidecar and gateway.
    pub file: String,
    /// Audiences of which a token must have one.
    pub audiences: Vec<String>,
    /// Trust domain of the identities.
    pub trust_domain: String,
    /// The Secret with the authority, made when it is not there.
    pub authority: AuthorityConfig,
}

impl Default for XdsTokens {
    fn default() -> Self {
        let TokenConfig {
            audiences,
            trust_domain,
        } = TokenConfig::default();
        Self {
            file: "/var/run/secrets/tokens/istio-token".to_owned(),
            audiences,
            trust_domain,
            authority: AuthorityConfig::default(),
        }
    }
}

impl XdsTokens {
    /// What is asked of tokens.
    pub fn reviews(&self) -> TokenConfig {
        TokenConfig {
            audiences: self.audiences.clone(),
            trust_domain: self.trust_domain.clone(),
        }
    }

    fn check(&self) -> Result<(), String> {
        for (key, empty) in [
            ("file", self.file.is_empty()),
            ("trustDomain", self.trust_domain.is_empty()),
            ("authority.namespace", self.authority.namespace.is_empty()),
            ("authority.name", self.authority.name.is_empty()),
            // An API server would take its own audience then, which every pod's default token has.
            ("audiences", self.audiences.iter().all(String::is_empty)),
        ] {
            if empty {
                return Err(format!(
                    "xds.tokens.{key} is empty: leave it out for the default"
                ));
            }
        }
        Ok(())
    }
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
            tls.check("xds.tls")?;
        }
        if let Some(tokens) = &self.tokens {
            if self.tls.is_some() {
                return Err(
                    "xds.tls and xds.tokens are both set: keep one, a client shows a certificate or a token"
                        .to_owned(),
                );
            }
            tokens.check()?;
        }
        let plain = self.tls.is_none() && self.tokens.is_none();
        if plain && !self.plaintext && !self.address.ip().is_loopback() {
            return Err(format!(
                "xds.address: {} is reached from other machines, and nobody could tell who asks: set xds.tokens (proxies in Kubernetes) or xds.tls, or xds.plaintext: true if everybody who reaches the port may read everything",
                self.address
            ));
        }
        if self.plaintext && !plain {
            return Err(
                "xds.plaintext is set beside xds.tls or xds.tokens: remove one of them".to_owned(),
            );
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

    /// Plain, or with the certificates of files.
    pub fn security(&self) -> Security {
        let files = self.tls.as_ref().map(Tls::files);
        files.map_or(Security::Plain, Security::Certificates)
    }

    /// As the server takes them.
    pub fn options(&self, security: Security) -> ServerOptions {
        ServerOptions {
            security,
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
