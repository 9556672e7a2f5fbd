//! TLS of one connection, and who its peer is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::bounds::Bounds;
use super::connection::{Connection, Io};
use super::ends::Ends;
use super::table::Slot;
use crate::identity::{IdentityError, SpiffeId};
use crate::stats::Counts;
use crate::tls::{Active, Clients, Tls};

/// Handshakes under way at a time; the others wait, and those of which nothing came do not count.
pub(super) const HANDSHAKES: usize = 256;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a handshake needs.
pub(super) struct Handshake {
    pub(super) port: &'static str,
    pub(super) tls: Arc<Tls>,
    pub(super) turns: Arc<Semaphore>,
    pub(super) counts: Arc<Counts>,
    pub(super) bounds: Bounds,
    pub(super) sender: mpsc::Sender<io::Result<Connection>>,
}

impl Handshake {
    pub(super) async fn run(self, stream: TcpStream, mut ends: Ends, slot: Slot) {
        // Silence takes no turn from others.
        let spoke = tokio::time::timeout(HANDSHAKE, stream.readable()).await;
        let shaken = match spoke {
            Ok(_) => {
                // The semaphore is never closed.
                let _turn = self.turns.acquire().await;
                tokio::select! {
                    () = slot.close.cancelled() => Err("its place was needed".to_owned()),
                    shaken = shake(&self.tls, stream) => shaken,
                }
            }
            Err(_) => Err("the client said nothing".to_owned()),
        };
        match shaken {
            Ok((io, identity)) => {
                ends.identity = identity.map(Arc::new);
                let connection = Connection::new(io, ends, slot, &self.bounds);
                // The server may be gone meanwhile, and then so is the connection.
                drop(self.sender.send(Ok(connection)).await);
            }
            Err(reason) => {
                Counts::add(&self.counts.tls_refused);
                tracing::debug!(port = self.port, peer = %ends.peer, reason, "a connection was refused");
            }
        }
    }
}

async fn shake(tls: &Tls, stream: TcpStream) -> Result<(Io, Option<SpiffeId>), String> {
    let Some(Active { config, clients }) = tls.current() else {
        return Err("this side has no certificate yet".to_owned());
    };
    let stream = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| format!("the TLS handshake failed: {error}"))?;
    let identity = match clients {
        Clients::Unknown => None,
        Clients::Of(domains) => {
            let certificates = stream.get_ref().1.peer_certificates();
            Some(identified(certificates, &domains).map_err(|error| error.to_string())?)
        }
    };
    Ok((Io::Tls(Box::new(stream)), identity))
}

/// Whose certificate it is.
fn identified(
    certificates: Option<&[CertificateDer<'_>]>,
    domains: &[String],
) -> Result<SpiffeId, IdentityError> {
    let certificate = certificates.and_then(<[_]>::first);
    let certificate = certificate.ok_or(IdentityError::Missing)?;
    let spiffe = SpiffeId::of_certificate(certificate)?;
    if !domains.is_empty() && !domains.iter().any(|domain| domain == spiffe.trust_domain()) {
        return Err(IdentityError::TrustDomain(spiffe.trust_domain().to_owned()));
    }
    Ok(spiffe)
}
