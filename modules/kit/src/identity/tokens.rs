//! Whose ServiceAccount token it is, by the API server's TokenReview.

use std::collections::HashMap;
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
use tokio::sync::Semaphore;
use trimtab_mesh::DEFAULT_DOMAIN;
use trimtab_xds::{AuthenticateError, Authenticated, Authenticator, SpiffeId};

use crate::clock::Clock;

/// How long an answer is used again. A deleted ServiceAccount keeps its access for this long.
const KEEP: Duration = Duration::from_secs(60);
/// The same for a refusal.
const KEEP_REFUSAL: Duration = Duration::from_secs(10);
/// Reviews under way at the same time.
const CONCURRENT: usize = 32;
/// How long a review may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that are kept; passing it forgets them all.
const MOST: usize = 20_000;
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

type Answer = Result<Authenticated, String>;

/// The answer about one token and until when, on the monotonic clock, it counts. Locked while the token is under review, so that
/// all streams of a proxy cost one review.
#[derive(Default)]
struct Known(tokio::sync::Mutex<Option<(Duration, Answer)>>);

/// Asks the API server, and keeps its answers for a while.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    config: TokenConfig,
    clock: Arc<dyn Clock>,
    /// By the digest of the token: tokens themselves are not kept.
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
    permits: Semaphore,
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
            known: Mutex::default(),
            permits: Semaphore::new(CONCURRENT),
        }
    }

    fn known(&self, token: &str) -> Arc<Known> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.as_ref());
        let mut known = self.known.lock();
        if known.len() >= MOST && !known.contains_key(&key) {
            known.clear();
        }
        known.entry(key).or_default().clone()
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, AuthenticateError> {
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
        let asking = async {
            // Never closed.
            let _permit = self.permits.acquire().await;
            self.api.create(&PostParams::default(), &review).await
        };
        let reviewed = tokio::time::timeout(TIMEOUT, asking).await;
        let reviewed = reviewed.map_err(|_| unavailable(format!("no answer in {TIMEOUT:?}")))?;
        let reviewed = reviewed.map_err(|error| unavailable(error.to_string()))?;
        Ok(reviewed.status.unwrap_or_default())
    }
}

#[async_trait]
impl Authenticator for TokenReviewer {
    async fn authenticate(&self, token: &str) -> Result<Authenticated, AuthenticateError> {
        if token.len() > LONGEST {
            let why = format!("the token is longer than {LONGEST} bytes");
            return Err(AuthenticateError::Refused(why));
        }
        let known = self.known(token);
        let mut slot = known.0.lock().await;
        let now = self.clock.monotonic();
        let kept = slot.as_ref().filter(|(until, _)| now < *until);
        let answer = if let Some((_, answer)) = kept {
            answer.clone()
        } else {
            let status = self.review(token).await?;
            let answer = identity(&self.config, &status, expiry(token));
            let keep = if answer.is_ok() { KEEP } else { KEEP_REFUSAL };
            *slot = Some((now + keep, answer.clone()));
            answer
        };
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
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(user: &str, audiences: &[&str]) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(audiences.iter().map(|&a| a.to_owned()).collect()),
            user: Some(UserInfo {
                username: Some(user.to_owned()),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    #[test]
    fn only_accounts_with_the_audience_are_accepted() {
        let config = TokenConfig::default();
        let account = "system:serviceaccount:shop:cart";
        let of = |status: &TokenReviewStatus| identity(&config, status, None);
        let good = of(&status(account, &["istio-ca"])).unwrap();
        assert_eq!(good.id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
        for (refused, word) in [
            (status(account, &["vault"]), "not for istio-ca"),
            (status(account, &[]), "not for istio-ca"),
            (status("admin", &["istio-ca"]), "admin is no ServiceAccount"),
            (TokenReviewStatus::default(), "does not accept"),
        ] {
            let error = of(&refused).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_end_of_a_token_is_read() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"exp": 1700000000}"#);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(expiry(&format!("h.{payload}.s")), Some(end));
        assert_eq!(expiry("opaque"), None);
    }
}
