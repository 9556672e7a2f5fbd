//! A client with a certificate of the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::Channel;
use trimtab_xds::MeshCertificate;

/// As proxies verify: the authorities decide, and certificates of the mesh have no DNS name.
#[derive(Debug)]
struct NoName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for NoName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn config(pair: &MeshCertificate) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pair.roots.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes());
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoName(verifier.build().unwrap())))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn dial(at: SocketAddr, pair: &MeshCertificate) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(config(pair)));
    let tcp = TcpStream::connect(at).await?;
    connector.connect(ServerName::from(at.ip()), tcp).await
}

/// The certificate that a server shows.
pub async fn leaf(at: SocketAddr, pair: &MeshCertificate) -> Result<Vec<u8>, String> {
    let stream = dial(at, pair).await.map_err(|error| error.to_string())?;
    let shown = stream.get_ref().1.peer_certificates();
    Ok(shown.unwrap()[0].to_vec())
}

/// A channel with this certificate; without one in plain text.
pub async fn channel(at: SocketAddr, pair: Option<&MeshCertificate>) -> Result<Channel, Status> {
    let endpoint = Channel::from_shared(format!("http://{at}")).unwrap();
    let channel = match pair.cloned() {
        None => endpoint.connect().await,
        Some(pair) => {
            let connect = tower::service_fn(move |_: tonic::transport::Uri| {
                let pair = pair.clone();
                async move { dial(at, &pair).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connect).await
        }
    };
    channel.map_err(|error| Status::unavailable(error.to_string()))
}
