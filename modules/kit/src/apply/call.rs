//! Calls to the API server, each with a time limit; those that change something are admitted first.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::{CALL_LIMIT, WriteAdmission};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No answer in time.
    #[error("{what}: no answer from the API server within {}s", limit.as_secs_f64())]
    Timeout {
        /// Verb and object.
        what: String,
        /// The time limit.
        limit: Duration,
    },
    /// It was not begun: it waits until this replica leads.
    #[error("{what}: this replica does not lead")]
    NotLeading {
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
                _ => "ApiError",
            },
            Self::NotLeading { .. } => "NotLeading",
            Self::Foreign { .. } => "Conflict",
            Self::NotInstalled { .. } => "NotInstalled",
            Self::Encode { .. } => "EncodeError",
        }
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

/// Whether a 404 is about the API and not about an object or a namespace, which it would name.
pub(super) fn is_unknown_kind(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let named = status.details.as_ref().is_some_and(|d| !d.name.is_empty());
    status.code == 404 && !named
}

/// Runs a call that changes nothing.
pub async fn read<T>(
    what: impl Fn() -> String,
    read: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApplyError> {
    within(CALL_LIMIT, what, read).await
}

/// Runs a call that changes something, if this replica may.
pub async fn call<T>(
    admission: &WriteAdmission,
    what: impl Fn() -> String,
    write: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApplyError> {
    let Ok(permit) = admission.admit() else {
        return Err(ApplyError::NotLeading { what: what() });
    };
    within(permit.limit(), what, write).await
}

async fn within<T>(
    limit: Duration,
    what: impl Fn() -> String,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApplyError> {
    let end = Instant::now() + limit;
    let mut timer = std::pin::pin!(tokio::time::sleep_until(end));
    let mut call = std::pin::pin!(call);
    // The time is looked at first: a process that was stopped for longer must not send what it has not sent, nor try again.
    let answer = poll_fn(|cx| {
        if timer.as_mut().poll(cx).is_ready() || Instant::now() >= end {
            return Poll::Ready(None);
        }
        call.as_mut().poll(cx).map(Some)
    });
    match answer.await {
        Some(Ok(value)) => Ok(value),
        Some(Err(source)) => Err(ApplyError::Api {
            what: what(),
            source: Box::new(source),
        }),
        None => Err(ApplyError::Timeout {
            what: what(),
            limit,
        }),
    }
}
