//! TLS whose certificates may change while the server runs.

use std::fmt;
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
use crate::identity::SpiffeId;
use crate::options::TlsFiles;
use crate::stats::Counts;

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

/// A certificate of the mesh, all PEM, and the authorities of its peers.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshCertificate {
    /// The certificate, then the intermediate ones.
    pub chain: String,
    /// The private key.
    pub key: String,
    /// The authorities whose certificates are accepted.
    pub roots: String,
}

impl fmt::Debug for MeshCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshCertificate").finish_non_exhaustive()
    }
}

/// Who peers are.
#[derive(Clone, Debug)]
pub(crate) enum Clients {
    /// They show no certificate.
    Unknown,
    /// They show one of these trust domains; of any, if there are none.
    Of(Vec<String>),
}

/// What a new connection is met with.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) clients: Clients,
}

/// The certificates of a port, which may change while it is open: new connections see the new ones.
#[derive(Debug)]
pub struct Tls {
    name: &'static str,
    current: RwLock<Option<Active>>,
    counts: Arc<Counts>,
}

impl Tls {
    fn new(name: &'static str, counts: Arc<Counts>, current: Option<Active>) -> Arc<Self> {
        Arc::new(Self {
            name,
            current: RwLock::new(current),
            counts,
        })
    }

    /// Client certificates are asked for. Reads the files, then polls them until `shutdown`. `name` is for log lines.
    pub async fn of_files(
        name: &'static str,
        files: TlsFiles,
        counts: Arc<Counts>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, TlsError> {
        let material = Material::read(&files).await?;
        let source = Self::new(name, counts, Some(of_material(&files, &material)?));
        let follower = Arc::clone(&source);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow(&files, material.fingerprint()) => {}
            }
        });
        Ok(source)
    }

    /// Client certificates are asked for. Somebody else keeps the certificate fresh; while there is none, all connections
    /// are refused. Peers must be of one of the trust domains, or of the certificate's own if there are none.
    pub fn of_mesh(
        name: &'static str,
        certificate: watch::Receiver<Option<MeshCertificate>>,
        trust_domains: Vec<String>,
        counts: Arc<Counts>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let source = Self::new(name, counts, None);
        let load = move |certificate: &Option<MeshCertificate>| {
            let certificate = certificate.as_ref()?;
            Some(of_mesh(certificate, &trust_domains))
        };
        source.take(certificate, load, shutdown);
        source
    }

    /// Clients show no certificate. Somebody else keeps that of the server fresh.
    pub fn of_certificate(
        name: &'static str,
        mut certificate: watch::Receiver<ServerCertificate>,
        counts: Arc<Counts>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, TlsError> {
        let first = without_clients(&certificate.borrow_and_update())?;
        let source = Self::new(name, counts, Some(first));
        let load = |certificate: &ServerCertificate| Some(without_clients(certificate));
        source.take(certificate, load, shutdown);
        Ok(source)
    }

    /// The configuration for a new connection.
    pub(crate) fn current(&self) -> Option<Active> {
        self.current.read().clone()
    }

    /// Takes what is there, and then each new one until `shutdown`.
    fn take<C: Send + Sync + 'static>(
        self: &Arc<Self>,
        mut certificate: watch::Receiver<C>,
        load: impl Fn(&C) -> Option<Result<Active, TlsError>> + Send + 'static,
        shutdown: CancellationToken,
    ) {
        let here = Arc::clone(self);
        if self.current.read().is_none() {
            certificate.mark_changed();
        }
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = certificate.changed() => if changed.is_err() { return },
                }
                let loaded = load(&certificate.borrow_and_update());
                if let Some(loaded) = loaded {
                    here.replace(loaded);
                }
            }
        });
    }

    fn replace(&self, loaded: Result<Active, TlsError>) {
        let port = self.name;
        match loaded {
            Ok(active) => {
                *self.current.write() = Some(active);
                Counts::add(&self.counts.tls_reloads);
                tracing::info!(port, "new certificates are in use");
            }
            Err(error) => {
                Counts::add(&self.counts.tls_reload_failures);
                tracing::warn!(port, %error, "the previous certificates stay in use");
            }
        }
    }

    async fn follow(&self, files: &TlsFiles, mut seen: [u64; 3]) {
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
                    of_material(files, &material)
                }
                // Half of a replacement may be visible; it is reported once, not at each poll.
                Err(_) if failing => continue,
                Err(error) => {
                    failing = true;
                    Err(error)
                }
            };
            self.replace(loaded);
        }
    }
}

fn unusable(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::Unusable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn of_material(files: &TlsFiles, material: &Material) -> Result<Active, TlsError> {
    let chain = certificates(&files.certificate, &material.certificate)?;
    let key = key(&files.key, &material.key)?;
    let roots = roots(&files.client_ca, &material.client_ca)?;
    Ok(Active {
        config: mutual(&files.certificate, chain, key, roots)?,
        clients: Clients::Of(files.trust_domains.clone()),
    })
}

/// What messages call a certificate that is not from a file.
const ISSUED: &str = "(issued)";

fn of_mesh(certificate: &MeshCertificate, domains: &[String]) -> Result<Active, TlsError> {
    let issued = Path::new(ISSUED);
    let chain = certificates(issued, certificate.chain.as_bytes())?;
    let own = chain.first().map(SpiffeId::of_certificate);
    let domains = match own {
        Some(Ok(own)) if domains.is_empty() => vec![own.trust_domain().to_owned()],
        Some(Err(error)) if domains.is_empty() => return Err(unusable(issued, error)),
        _ => domains.to_vec(),
    };
    let key = key(issued, certificate.key.as_bytes())?;
    let roots = roots(Path::new("(roots)"), certificate.roots.as_bytes())?;
    Ok(Active {
        config: mutual(issued, chain, key, roots)?,
        clients: Clients::Of(domains),
    })
}

/// For a certificate that is not from a file, and clients without one.
fn without_clients(certificate: &ServerCertificate) -> Result<Active, TlsError> {
    let issued = Path::new(ISSUED);
    let chain = certificates(issued, certificate.chain.as_bytes())?;
    let key = key(issued, certificate.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unusable(issued, error))?;
    Ok(Active {
        config: finished(config),
        clients: Clients::Unknown,
    })
}

fn mutual(
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(path, error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
        })
        .map_err(|error| unusable(path, error))?;
    Ok(finished(config))
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| unusable(path, format!("no PEM private key in it: {error}")))
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, pem)? {
        roots
            .add(authority)
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn finished(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring back an identity whose certificate is not looked at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, format!("not PEM: {error}")))?;
    if list.is_empty() {
        return Err(unusable(path, "no PEM certificate in it"));
    }
    Ok(list)
}
