//! A certificate of the mesh's own authority for this process, from istiod: `istio.v1.auth.IstioCertificateService`.
//!
//! istiod signs for any ServiceAccount that shows a token of audience `istio-ca`; the certificate has the SPIFFE ID of the account and no
//! DNS name, so it is good between proxies of the mesh (`envoy_grpc`) and not for `google_grpc`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use trimtab_xds::MeshCertificate;

use super::authority::ends_of;
use crate::clock::Clock;
use crate::readiness::ReadinessGate;

/// Life that is asked for; istiod may give less.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Least pause between two certificates, however short their lives are.
const SHORTEST: Duration = Duration::from_secs(5);
/// Pause after a failure, which doubles with each further one up to the second.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// How often the file of the root is looked at.
const POLL: Duration = Duration::from_secs(5);
/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// With less life left than one part of this many, the missing renewal is told in `/readyz`.
const LATE: u32 = 4;
const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Where certificates of the mesh come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MeshCaConfig {
    /// `host:port` of istiod's secure port.
    pub address: String,
    /// A name in istiod's certificate; empty: the host of the address.
    pub server_name: String,
    /// The root of the mesh: the ConfigMap `istio-ca-root-cert`, mounted.
    pub root_file: PathBuf,
    /// A projected ServiceAccount token with audience `istio-ca`.
    pub token_file: PathBuf,
    /// Trust domains of peers; empty: that of the own certificate.
    pub trust_domains: Vec<String>,
}

impl Default for MeshCaConfig {
    fn default() -> Self {
        Self {
            address: "istiod.istio-system.svc:15012".to_owned(),
            server_name: String::new(),
            root_file: "/var/run/secrets/istio/root-cert.pem".into(),
            token_file: "/var/run/secrets/tokens/istio-token".into(),
            trust_domains: Vec::new(),
        }
    }
}

impl MeshCaConfig {
    /// Checks what types cannot say. The error names the key below the section, and the fix.
    pub fn check(&self) -> Result<(), String> {
        self.name().map_err(|error| {
            format!(
                "address or serverName: {error}: write for example istiod.istio-system.svc:15012"
            )
        })?;
        for (key, path) in [
            ("rootFile", &self.root_file),
            ("tokenFile", &self.token_file),
        ] {
            if path.as_os_str().is_empty() {
                return Err(format!("{key} is empty: leave it out for the default"));
            }
        }
        Ok(())
    }

    /// The name that istiod's certificate must have.
    fn name(&self) -> Result<ServerName<'static>, MeshCaError> {
        let wrong = || MeshCaError::Address(self.address.clone());
        let (host, port) = self.address.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let own = Some(self.server_name.as_str()).filter(|name| !name.is_empty());
        let host = own.unwrap_or(host).trim_matches(['[', ']']);
        ServerName::try_from(host.to_owned()).map_err(|_| wrong())
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MeshCaError {
    /// A file of the configuration.
    #[error("cannot read {0}: {1}: mount it, see docs/install.md")]
    Read(PathBuf, #[source] std::io::Error),
    /// The root is no certificate.
    #[error("{0} has no PEM certificate: mount the ConfigMap istio-ca-root-cert there")]
    Root(PathBuf),
    /// The address has no host or port.
    #[error("'{0}' is no host:port with a name or address")]
    Address(String),
    /// istiod cannot be reached.
    #[error("istiod at {0} cannot be reached: {1}")]
    Connect(String, String),
    /// istiod refused.
    #[error("istiod at {0} issues no certificate: {1}")]
    Refused(String, Box<Status>),
    /// The key or the request could not be made.
    #[error("no certificate request could be made: {0}")]
    Make(#[from] rcgen::Error),
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    /// The leaf first, the root last.
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// Asks istiod once for a certificate with at most this life; the certificate, and when it ends.
pub async fn obtain(
    config: &MeshCaConfig,
    life: Duration,
) -> Result<(MeshCertificate, Timestamp), MeshCaError> {
    let late = || MeshCaError::Connect(config.address.clone(), format!("no answer in {TIMEOUT:?}"));
    let asked = tokio::time::timeout(TIMEOUT, ask(config, life)).await;
    asked.map_err(|_| late())?
}

async fn ask(
    config: &MeshCaConfig,
    life: Duration,
) -> Result<(MeshCertificate, Timestamp), MeshCaError> {
    let roots = read(&config.root_file).await?;
    let token = read(&config.token_file).await?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // istiod takes the name from the token, whatever is asked for.
    params.distinguished_name = DistinguishedName::new();
    let ask = CertificateRequest {
        csr: params.serialize_request(&key)?.pem()?,
        validity_duration: i64::try_from(life.as_secs()).unwrap_or(i64::MAX),
    };
    let refused = |status: Status| MeshCaError::Refused(config.address.clone(), Box::new(status));
    let mut grpc = tonic::client::Grpc::new(connect(config, &roots).await?);
    grpc.ready()
        .await
        .map_err(|e| MeshCaError::Connect(config.address.clone(), e.to_string()))?;
    let mut request = Request::new(ask);
    let bearer = format!("Bearer {}", token.trim()).parse();
    let bearer =
        bearer.map_err(|_| refused(Status::invalid_argument("the token is not printable")))?;
    request.metadata_mut().insert("authorization", bearer);
    let codec = tonic_prost::ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(METHOD), codec);
    let mut chain = answer.await.map_err(refused)?.into_inner().cert_chain;
    let leaf = chain.first().map(String::as_str).unwrap_or_default();
    let ends = ends_of(leaf).map_err(|why| {
        refused(Status::data_loss(format!(
            "no certificate in its answer: {why}"
        )))
    })?;
    if chain.len() > 1 {
        // Peers have the root.
        chain.pop();
    }
    let certificate = MeshCertificate {
        chain: chain.concat(),
        key: key.serialize_pem(),
        roots,
    };
    Ok((certificate, ends))
}

async fn read(path: &Path) -> Result<String, MeshCaError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| MeshCaError::Read(path.to_owned(), error))
}

async fn connect(config: &MeshCaConfig, root: &str) -> Result<Channel, MeshCaError> {
    let failed = |why: String| MeshCaError::Connect(config.address.clone(), why);
    let tls = client_config(root).ok_or_else(|| MeshCaError::Root(config.root_file.clone()))?;
    let connector = TlsConnector::from(Arc::new(tls));
    let (name, address) = (config.name()?, config.address.clone());
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Channel::from_static("http://istiod")
        .connect_with_connector(dial)
        .await
        .map_err(|error| failed(source_of(&error)))
}

/// For a server with a certificate of these roots; `None`: they are none.
fn client_config(roots: &str) -> Option<ClientConfig> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(certificate.ok()?).ok()?;
    }
    if store.is_empty() {
        return None;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(config)
}

/// tonic says "transport error" and no more.
fn source_of(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Keeps a certificate of the mesh until `shutdown`: a new one at half of each one's life and when the root changes, and again,
/// with growing pauses, after a failure. The last one stays in use meanwhile. `gate`: blocks readiness until the first attempt.
pub async fn keep_mesh_certificate(
    config: MeshCaConfig,
    certificate: watch::Sender<Option<MeshCertificate>>,
    clock: Arc<dyn Clock>,
    gate: ReadinessGate,
    shutdown: CancellationToken,
) {
    let keeper = Keeper {
        config,
        certificate,
        clock,
        gate,
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = keeper.run() => {}
    }
}

struct Keeper {
    config: MeshCaConfig,
    certificate: watch::Sender<Option<MeshCertificate>>,
    clock: Arc<dyn Clock>,
    gate: ReadinessGate,
}

impl Keeper {
    async fn run(self) {
        let mut late = None;
        let mut retry = RETRY[0];
        loop {
            let pause = match obtain(&self.config, LIFE).await {
                Ok((new, ends)) => {
                    let left = Duration::try_from(ends - self.clock.now()).unwrap_or_default();
                    late = Some(self.clock.monotonic() + left / LATE * (LATE - 1));
                    retry = RETRY[0];
                    self.certificate.send_replace(Some(new));
                    self.gate.release();
                    (left / 2).max(SHORTEST)
                }
                Err(error) => {
                    if late.is_none_or(|late| self.clock.monotonic() >= late) {
                        self.gate.fail(&error.to_string());
                    }
                    tracing::warn!(%error, again = ?retry, "no new certificate of the mesh");
                    let pause = retry;
                    retry = (retry * 2).min(RETRY[1]);
                    pause
                }
            };
            self.until(pause).await;
        }
    }

    /// Waits, but not after a change of the root.
    async fn until(&self, pause: Duration) {
        let end = self.clock.monotonic() + pause;
        loop {
            let left = end.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(POLL)).await;
            let Ok(roots) = read(&self.config.root_file).await else {
                continue;
            };
            let changed = self.certificate.send_if_modified(|known| {
                let known = known.as_mut().filter(|known| known.roots != roots);
                // Peers with certificates of the new root are known at once, whatever becomes of our own.
                known.map(|known| known.roots = roots).is_some()
            });
            if changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        let checked = |address: &str, name: &str| {
            MeshCaConfig {
                address: address.to_owned(),
                server_name: name.to_owned(),
                ..MeshCaConfig::default()
            }
            .check()
        };
        assert_eq!(MeshCaConfig::default().check(), Ok(()));
        assert_eq!(checked("[::1]:15012", "istiod.istio-system.svc"), Ok(()));
        assert_eq!(checked("127.0.0.1:15012", ""), Ok(()));
        for (address, name) in [("istiod", ""), ("istiod:x", ""), (":1", ""), ("a:1", "a b")] {
            let error = checked(address, name).unwrap_err();
            assert!(error.contains("istiod.istio-system.svc:15012"), "{error}");
        }
    }
}
