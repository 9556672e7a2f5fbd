//! Clients that show a bearer token in place of a certificate.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::watch;
use tonic::Status;

use crate::identity::SpiffeId;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The identity.
    pub id: SpiffeId,
    /// When the token ends; its streams end then, and clients come back with a new token.
    pub expires: Option<SystemTime>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// The token is not good; the client gets `UNAUTHENTICATED`.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows now; the client gets `UNAVAILABLE` and tries again.
    #[error("{0}")]
    Unavailable(String),
}

/// Judges tokens.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Whose token it is, and from which address it came. Called for each new stream, so answers should be kept for a while.
    async fn authenticate(
        &self,
        token: &str,
        peer: Option<IpAddr>,
    ) -> Result<Authenticated, AuthenticateError>;
}

/// Certificate and key of the server, both PEM; the certificate with the intermediate ones after it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The certificates.
    pub chain: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

/// TLS without client certificates: clients show a token.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The certificate in use; new connections see a new one.
    pub certificate: watch::Receiver<ServerCertificate>,
    /// Who judges the tokens.
    pub authenticator: Arc<dyn Authenticator>,
}

/// Whose request it is, by its `authorization` header.
pub(crate) async fn authenticated(
    authenticator: &dyn Authenticator,
    peer: Option<IpAddr>,
    headers: &tonic::codegen::http::HeaderMap,
) -> Result<Authenticated, Status> {
    let header = headers.get("authorization").and_then(|h| h.to_str().ok());
    let token = header.and_then(|h| {
        let (scheme, token) = h.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| {
        Status::unauthenticated(
            "the request has no bearer token; send the ServiceAccount token of the proxy in the authorization header",
        )
    })?;
    authenticator
        .authenticate(token, peer)
        .await
        .map_err(|error| match error {
            AuthenticateError::Refused(why) => Status::unauthenticated(why),
            AuthenticateError::Unavailable(why) => Status::unavailable(why),
        })
}
