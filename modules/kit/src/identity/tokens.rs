//! Whose ServiceAccount token it is, by the API server's TokenReview.

mod kept;
mod turns;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_xds::{AuthenticateError, Authenticated, Authenticator, SpiffeId};

use crate::clock::Clock;
use kept::{Answer, Digest, Kept};
use turns::Turns;

/// How long a review may take, from its begin.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token, in bytes. Those of ServiceAccounts have one or two thousand.
const LONGEST: usize = 16 * 1024;

/// Which tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenConfig {
    /// Audiences of which a token must have one. Istio's sidecars have a token of `istio-ca`.
    pub audiences: Vec<String>,
    /// Trust domain of the identities, `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub trust_domain: String,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            audiences: vec!["istio-ca".to_owned()],
            trust_domain: DEFAULT_DOMAIN.to_owned(),
        }
    }
}

/// Asks the API server, and keeps its answers for a while.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    config: TokenConfig,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    /// Locked while a token is under review, so that all streams of a proxy cost one review.
    under_review: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    turns: Turns,
}

impl std::fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TokenReviewer").field(&self.config).finish()
    }
}

impl TokenReviewer {
    /// A reviewer without answers.
    pub fn new(client: Client, config: TokenConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            api: Api::all(client),
            config,
            clock,
            kept: Mutex::default(),
            under_review: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// What is known of a token, or what the API server says of it.
    async fn judge(&self, token: &str, peer: Option<IpAddr>) -> Result<Answer, AuthenticateError> {
        let key = digest(token);
        if let Some(answer) = self.kept.lock().get(&key, self.clock.monotonic()) {
            return Ok(answer);
        }
        let under_review = UnderReview::of(self, key);
        let _reviewing = under_review.lock.lock().await;
        if let Some(answer) = self.kept.lock().get(&key, self.clock.monotonic()) {
            return Ok(answer);
        }
        let status = self.review(token, peer).await?;
        let answer = identity(&self.config, &status, expiry(token));
        self.kept.lock().put(key, &answer, self.clock.monotonic());
        Ok(answer)
    }

    async fn review(
        &self,
        token: &str,
        peer: Option<IpAddr>,
    ) -> Result<TokenReviewStatus, AuthenticateError> {
        let unavailable = |why: String| {
            AuthenticateError::Unavailable(format!("the token could not be reviewed: {why}"))
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(self.config.audiences.clone()),
            },
            ..TokenReview::default()
        };
        let turn = self.turns.next(peer).await;
        let _turn = turn.ok_or_else(|| {
            unavailable("too many tokens of this address wait for a review".to_owned())
        })?;
        let options = PostParams::default();
        let asking = self.api.create(&options, &review);
        let reviewed = tokio::time::timeout(TIMEOUT, asking).await;
        let reviewed = reviewed.map_err(|_| unavailable(format!("no answer in {TIMEOUT:?}")))?;
        let reviewed = reviewed.map_err(|error| unavailable(error.to_string()))?;
        Ok(reviewed.status.unwrap_or_default())
    }
}

#[async_trait]
impl Authenticator for TokenReviewer {
    async fn authenticate(
        &self,
        token: &str,
        peer: Option<IpAddr>,
    ) -> Result<Authenticated, AuthenticateError> {
        if token.len() > LONGEST {
            let why = format!("the token is longer than {LONGEST} bytes");
            return Err(AuthenticateError::Refused(why));
        }
        let answer = self.judge(token, peer).await?;
        let authenticated = answer.map_err(AuthenticateError::Refused)?;
        let wall = SystemTime::from(self.clock.now());
        if authenticated.expires.is_some_and(|at| at <= wall) {
            return Err(AuthenticateError::Refused(
                "the token has expired".to_owned(),
            ));
        }
        Ok(authenticated)
    }
}

fn digest(token: &str) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    key
}

/// A token under review, forgotten when nobody waits for it any more.
struct UnderReview<'r> {
    reviewer: &'r TokenReviewer,
    token: Digest,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'r> UnderReview<'r> {
    fn of(reviewer: &'r TokenReviewer, token: Digest) -> Self {
        let mut all = reviewer.under_review.lock();
        let lock = all.entry(token).or_default().clone();
        Self {
            reviewer,
            token,
            lock,
        }
    }
}

impl Drop for UnderReview<'_> {
    fn drop(&mut self) {
        let mut all = self.reviewer.under_review.lock();
        // One count is this one, one the map's.
        if Arc::strong_count(&self.lock) <= 2 {
            all.remove(&self.token);
        }
    }
}

/// Whose token it is; the error says why it is not accepted.
fn identity(
    config: &TokenConfig,
    status: &TokenReviewStatus,
    expires: Option<SystemTime>,
) -> Answer {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("not authenticated");
        return Err(format!(
            "the API server does not accept the token ({why}): show a ServiceAccount token with audience {}",
            config.audiences.join(" or ")
        ));
    }
    // An API server that knows no audiences names none: it would accept a token meant for somebody else.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|a| config.audiences.contains(a)) {
        return Err(format!(
            "the token is not for {}: mount one with this audience",
            config.audiences.join(" or ")
        ));
    }
    let user = status.user.as_ref().and_then(|u| u.username.as_deref());
    let account = user.and_then(|u| u.strip_prefix("system:serviceaccount:")?.split_once(':'));
    let Some((namespace, name)) = account else {
        return Err(format!(
            "{} is no ServiceAccount: show the token of one",
            user.unwrap_or("the user")
        ));
    };
    let uri = format!("spiffe://{}/ns/{namespace}/sa/{name}", config.trust_domain);
    let id = SpiffeId::parse(&uri).map_err(|error| error.to_string())?;
    Ok(Authenticated { id, expires })
}

/// The claim `exp` of a JWT. It is read only of tokens that the API server has accepted.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_u64()?))
}

#[cfg(test)]
mod tests;
