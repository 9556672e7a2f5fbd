//! Asks Prometheus one instant query.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use prometheus_http_query::{Client, Error};
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::Outcome;
use super::answer::{Body, Vector};
use super::config::PrometheusConfig;
use super::plan::Query;
use crate::sources::{Failure, SourceError};

/// An answer beyond this is a query that forgot to aggregate; reading it would cost the operator its memory.
const LARGEST_ANSWER: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a server's error text is shown.
const SHOWN: usize = 300;

/// How far back Prometheus looks by default. An age beyond it limits nothing more.
const LOOKBACK: Duration = Duration::from_secs(300);

/// The value of the Authorization header.
pub(super) type Token = HeaderValue;

pub(super) struct Prometheus {
    client: Client,
    address: String,
    token_file: Option<PathBuf>,
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Prometheus {
    pub(super) fn new(config: &PrometheusConfig) -> Result<Self, SourceError> {
        let refused = |reason: String| SourceError::Address {
            address: config.address.clone(),
            reason,
        };
        let url = reqwest::Url::parse(&config.address).map_err(|e| refused(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(format!("the scheme is {:?}", url.scheme())));
        }
        // reqwest is built without a TLS provider of its own; a provider that the host has already installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| SourceError::Client {
                source_name: "prometheus",
                reason: chain(&e),
            })?;
        let client = Client::from(http, &config.address).map_err(|e| refused(chain(&e)))?;
        Ok(Self {
            client,
            address: config.address.clone(),
            token_file: config.bearer_token_file.clone(),
        })
    }

    /// Reads the bearer token, if one is configured.
    pub(super) async fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let bad = |reason: String| {
            Failure::Error(format!(
                "bearerTokenFile {}: {reason}; mount a file that holds the token alone",
                path.display()
            ))
        };
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|e| bad(e.to_string()))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
            .map_err(|e| bad(e.to_string()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Asks one query. The caller limits the time.
    pub(super) async fn ask(&self, query: &Query, token: Option<&Token>) -> Outcome {
        match query.max_age {
            None => match self.request(&query.text, query.timeout, None, token).await {
                Err(failure) => Outcome::refused(failure),
                Ok(vector) => Outcome {
                    warnings: vector.warnings,
                    answer: Ok(vector.series()),
                    requests: 1,
                },
            },
            Some(max_age) => self.ask_with_ages(query, max_age, token).await,
        }
    }

    /// The timestamps of an answer are those of the evaluation, so ages need a query of their own. It is not
    /// limited in age, so that it also shows what a limited evaluation leaves out.
    async fn ask_with_ages(
        &self,
        query: &Query,
        max_age: Duration,
        token: Option<&Token>,
    ) -> Outcome {
        // On a line of its own, the bracket is safe from a comment at the end of the query.
        let ages = format!("timestamp({}\n)", query.text);
        let (values, ages) = tokio::join!(
            self.request(&query.text, query.timeout, Some(max_age), token),
            self.request(&ages, query.timeout, None, token),
        );
        let (answer, warnings) = match (values, ages) {
            (Err(failure), _) | (Ok(_), Err(failure @ Failure::Timeout)) => (Err(failure), 0),
            (Ok(values), Ok(ages)) => {
                let warnings = values.warnings + ages.warnings;
                (values.with_ages(&ages, max_age), warnings)
            }
            // Not every query has ages; a scalar has none.
            (Ok(values), Err(_)) => (Ok(values.series()), 1),
        };
        Outcome {
            answer,
            warnings,
            requests: 2,
        }
    }

    async fn request(
        &self,
        text: &str,
        timeout: Duration,
        max_age: Option<Duration>,
        token: Option<&Token>,
    ) -> Result<Vector, Failure> {
        // Prometheus stops too when nobody waits any more.
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let mut request = self.client.query(text).timeout(millis);
        if let Some(age) = max_age.filter(|age| *age < LOOKBACK) {
            // Reaches into expressions. Prometheus before 2.44 does not know it and ignores it.
            request = request.query("lookback_delta", format!("{}ms", age.as_millis()));
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let response = request.post_raw().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        let body = read(response).await?;
        match serde_json::from_slice(&body) {
            Ok(Body::Success { data, warnings }) => Vector::parse(data, warnings.len() as u64),
            Ok(Body::Error { kind, .. }) if kind == "timeout" || kind == "canceled" => {
                Err(Failure::Timeout)
            }
            Ok(Body::Error { kind, error }) => Err(Failure::Error(format!(
                "Prometheus refused the query ({kind}): {}; correct the query of this handler",
                shorten(&error)
            ))),
            Err(e) => Err(Failure::Error(format!(
                "{} answered HTTP {status} with no Prometheus result ({e}): {}; check that `address` is the base URL of Prometheus and that access is allowed",
                self.address,
                shorten(&String::from_utf8_lossy(&body))
            ))),
        }
    }

    fn unreachable(&self, error: &Error) -> Failure {
        if let Error::Client(e) = error
            && e.inner().is_some_and(reqwest::Error::is_timeout)
        {
            return Failure::Timeout;
        }
        Failure::Error(format!(
            "{} cannot be asked: {}; check `address` and that Prometheus runs",
            self.address,
            chain(error)
        ))
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| {
            Failure::Error(format!(
                "the answer of Prometheus broke off: {}; it may be restarting",
                chain(&e)
            ))
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Failure::Error(format!(
                "the answer is larger than {} MiB; aggregate in the query, for example `sum by (namespace, pod)`",
                LARGEST_ANSWER >> 20
            )));
        }
        body.extend_from_slice(&chunk);
    }
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain("...".chars()).collect()
    }
}

/// An error with its causes; the outermost text alone hides "connection refused".
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
