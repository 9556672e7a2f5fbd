//! Calls to the API server, each with a time limit; those that change something are admitted first.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::ApplyError;
use crate::lease::{CALL_LIMIT, WriteAdmission};

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
