//! Why a call failed.

use kube::core::Status;

use super::CALL_TIMEOUT;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No answer in time.
    #[error("{what}: no answer from the API server within {}s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Verb and object.
        what: String,
    },
    /// The API server refused.
    #[error("{what}: {source}")]
    Api {
        /// Verb and object.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Somebody else's object has the name.
    #[error(
        "{what}: there is such an object that Trimtab has not made: it is left alone; delete or rename it"
    )]
    Foreign {
        /// Verb and object.
        what: String,
    },
    /// The API server does not serve the kind.
    #[error("{what}: {remedy}")]
    NotInstalled {
        /// Verb and object.
        what: String,
        /// What to install.
        remedy: String,
    },
    /// The object cannot be encoded.
    #[error("{what}: {source}")]
    Encode {
        /// Verb and object.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// PascalCase reason for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "ApiTimeout",
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(s) if s.code == 403 => "Forbidden",
                kube::Error::Api(s) if s.code == 404 => "NotFound",
                kube::Error::Api(s) if s.code == 409 => "Conflict",
                kube::Error::Api(s) if s.code == 422 => "Invalid",
                kube::Error::Api(s) if is_too_large(s) => "RequestEntityTooLarge",
                _ => "ApiError",
            },
            Self::Foreign { .. } => "Conflict",
            Self::NotInstalled { .. } => "NotInstalled",
            Self::Encode { .. } => "EncodeError",
        }
    }

    /// Whether the object is larger than the API server or its store takes: it will not be taken later either.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Api { source, .. }
            if matches!(source.as_ref(), kube::Error::Api(status) if is_too_large(status)))
    }

    /// HTTP status of the API server's answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The API server has a code for requests that it does not read, and passes on what etcd says of others.
fn is_too_large(status: &Status) -> bool {
    let says = |text: &str| status.message.contains(text);
    status.code == 413
        || says("etcdserver: request is too large")
        || says("trying to send message larger than max")
}
