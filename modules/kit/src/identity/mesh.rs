//! A certificate of the mesh's own authority for this process, from istiod: `istio.v1.auth.IstioCertificateService`.
//!
//! istiod signs for any ServiceAccount that shows a token of audience `istio-ca`; the certificate has the SPIFFE ID of the account and no
//! DNS name, so it is good between proxies of the mesh and not for `google_grpc`.

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

/// Life that is asked for; istiod may give less.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Least pause between two certificates, however short their lives are.
const SHORTEST: Duration = Duration::from_secs(5);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MeshCaConfig {
    /// `host:port` of istiod's secure port; its certificate must have the host.
    pub address: String,
    /// The root of the mesh: the ConfigMap `istio-ca-root-cert`, mounted.
    pub root_file: PathBuf,
    /// A projected ServiceAccount token with audience `istio-ca`.
    pub token_file: PathBuf,
}

impl Default for MeshCaConfig {
    fn default() -> Self {
        Self {
            address: "istiod.istio-system.svc:15012".to_owned(),
            root_file: "/var/run/secrets/istio/root-cert.pem".into(),
            token_file: "/var/run/secrets/tokens/istio-token".into(),
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MeshCaError {
    /// A file of the configuration.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The root is no certificate.
    #[error("{0} has no PEM certificate")]
    Root(PathBuf),
    /// The address has no host or port.
    #[error("'{0}' is no host:port")]
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

/// Asks istiod once; the certificate, and when it ends.
pub async fn obtain(config: &MeshCaConfig) -> Result<(MeshCertificate, Timestamp), MeshCaError> {
    let roots = read(&config.root_file).await?;
    let token = read(&config.token_file).await?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // istiod takes the name from the token, whatever is asked for.
    params.distinguished_name = DistinguishedName::new();
    let ask = CertificateRequest {
        csr: params.serialize_request(&key)?.pem()?,
        validity_duration: i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX),
    };
    let refused =
        |status: Status| MeshCaError::Refused(config.address.clone(), Box::new(status));
    let mut grpc = tonic::client::Grpc::new(connect(config, &roots).await?);
    grpc.ready()
        .await
        .map_err(|e| MeshCaError::Connect(config.address.clone(), e.to_string()))?;
    let mut request = Request::new(ask);
    request.set_timeout(TIMEOUT);
    let bearer = format!("Bearer {}", token.trim());
    let bearer = bearer
        .parse()
        .map_err(|_| refused(Status::invalid_argument("the token is not printable")))?;
    request.metadata_mut().insert("authorization", bearer);
    let codec = tonic_prost::ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(METHOD), codec);
    let mut chain = answer.await.map_err(refused)?.into_inner().cert_chain;
    let leaf = chain.first().map(String::as_str).unwrap_or_default();
    let ends = ends_of(leaf)
        .map_err(|why| refused(Status::data_loss(format!("no certificate in its answer: {why}"))))?;
    // Peers have the root.
    chain.pop();
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
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(root.as_bytes()) {
        let added = certificate.map(|c| roots.add(c));
        if !matches!(added, Ok(Ok(()))) {
            return Err(MeshCaError::Root(config.root_file.clone()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |why: String| MeshCaError::Connect(config.address.clone(), why);
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let wrong = || MeshCaError::Address(config.address.clone());
    let (host, _) = config.address.rsplit_once(':').ok_or_else(wrong)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    let address = config.address.clone();
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Channel::from_static("http://istiod")
        .connect_timeout(TIMEOUT)
        .connect_with_connector(dial)
        .await
        .map_err(|error| failed(source_of(&error)))
}

/// tonic says "transport error" and no more.
fn source_of(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Asks for a new certificate at half of each one's life until `shutdown`, and again after a failure; the last one stays in use
/// meanwhile.
pub async fn renew(
    config: MeshCaConfig,
    mut ends: Timestamp,
    certificate: watch::Sender<MeshCertificate>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let half = |ends: Timestamp| {
        let left = Duration::try_from(ends - clock.now()).unwrap_or_default();
        (left / 2).max(SHORTEST)
    };
    let mut pause = half(ends);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match obtain(&config).await {
            Ok((new, until)) => {
                ends = until;
                certificate.send_replace(new);
                half(ends)
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate of the mesh is not renewed yet; the last one stays in use");
                RETRY
            }
        };
    }
}
