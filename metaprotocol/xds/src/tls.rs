//! TLS whose certificates may change while the server runs.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::authenticate::ServerCertificate;
use crate::error::TlsError;
use crate::options::TlsFiles;
use crate::stats::Stats;

/// The contents of the three files.
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Material {
    async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate).await?,
            key: read(&files.key).await?,
            client_ca: read(&files.client_ca).await?,
        })
    }

    fn fingerprint(&self) -> [u64; 3] {
        [&self.certificate, &self.key, &self.client_ca].map(|content| xxh3_64(content))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
}

/// The configuration in use.
#[derive(Debug)]
pub(crate) struct TlsSource {
    /// Clients must have a certificate of one of these trust domains, of any if there are none; `None`: they show no certificate.
    pub(crate) trust_domains: Option<Vec<String>>,
    current: RwLock<Arc<ServerConfig>>,
}

impl TlsSource {
    /// Reads the files, then polls them until `shutdown`.
    pub(crate) async fn of_files(
        files: TlsFiles,
        stats: Arc<Stats>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, TlsError> {
        let material = Material::read(&files).await?;
        let source = Arc::new(Self {
            current: RwLock::new(configure(&files, &material)?),
            trust_domains: Some(files.trust_domains.clone()),
        });
        let follower = Arc::clone(&source);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow(&files, stats, material.fingerprint()) => {}
            }
        });
        Ok(source)
    }

    /// The configuration for a new connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// A certificate that somebody else keeps fresh, and clients without one.
    pub(crate) fn of_certificate(
        mut certificate: watch::Receiver<ServerCertificate>,
        stats: Arc<Stats>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, TlsError> {
        let first = without_clients(&certificate.borrow_and_update())?;
        let source = Arc::new(Self {
            trust_domains: None,
            current: RwLock::new(first),
        });
        let follower = Arc::clone(&source);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = certificate.changed() => if changed.is_err() { return },
                }
                let loaded = without_clients(&certificate.borrow_and_update());
                follower.replace(loaded, &stats);
            }
        });
        Ok(source)
    }

    fn replace(&self, loaded: Result<Arc<ServerConfig>, TlsError>, stats: &Stats) {
        match loaded {
            Ok(config) => {
                *self.current.write() = config;
                Stats::add(&stats.tls_reloads, 1);
                tracing::info!("the xDS server uses the new certificates");
            }
            Err(error) => {
                Stats::add(&stats.tls_reload_failures, 1);
                tracing::warn!(%error, "the xDS server keeps the previous certificates");
            }
        }
    }

    async fn follow(&self, files: &TlsFiles, stats: Arc<Stats>, mut seen: [u64; 3]) {
        // A zero interval would be a busy loop.
        let pause = files.poll.max(std::time::Duration::from_millis(10));
        let mut failing = false;
        loop {
            tokio::time::sleep(pause).await;
            let loaded = match Material::read(files).await {
                Ok(material) if material.fingerprint() == seen => continue,
                Ok(material) => {
                    seen = material.fingerprint();
                    failing = false;
                    configure(files, &material)
                }
                // Half of a replacement may be visible; it is reported once, not at each poll.
                Err(_) if failing => continue,
                Err(error) => {
                    failing = true;
                    Err(error)
                }
            };
            self.replace(loaded, &stats);
        }
    }
}

fn configure(files: &TlsFiles, material: &Material) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |path: &Path, reason: String| TlsError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let chain = certificates(&files.certificate, &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|error| unusable(&files.key, format!("no PEM private key in it: {error}")))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.client_ca, &material.client_ca)? {
        roots
            .add(authority)
            .map_err(|error| unusable(&files.client_ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&files.client_ca, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
        })
        .map_err(|error| unusable(&files.certificate, error.to_string()))?;
    Ok(finished(config))
}

/// For a certificate that is not from a file.
fn without_clients(certificate: &ServerCertificate) -> Result<Arc<ServerConfig>, TlsError> {
    let made = Path::new("(issued)");
    let unusable = |reason: String| TlsError::Unusable {
        path: made.to_owned(),
        reason,
    };
    let chain = certificates(made, certificate.chain.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|error| unusable(format!("no PEM private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unusable(error.to_string()))?;
    Ok(finished(config))
}

fn finished(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring back an identity whose certificate is not looked at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |reason: String| TlsError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(format!("not PEM: {error}")))?;
    if list.is_empty() {
        return Err(unusable("no PEM certificate in it".to_owned()));
    }
    Ok(list)
}
