//! Asks Prometheus one instant query.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_http_query::{Client, Error};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use super::Outcome;
use super::config::PrometheusConfig;
use super::plan::Query;
use super::series::{Answer, Series};
use crate::sources::{Failure, SourceError};

/// An answer beyond this is a query that forgot to aggregate; reading it would cost the operator its memory.
const LARGEST_ANSWER: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a server's error text is shown.
const SHOWN: usize = 300;

/// The value of the Authorization header.
pub(super) type Token = HeaderValue;

pub(super) struct Prometheus {
    client: Client,
    address: String,
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Body {
    Success {
        data: Data,
        #[serde(default)]
        warnings: Vec<String>,
    },
    Error {
        #[serde(default, rename = "errorType")]
        kind: String,
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<VectorItem>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct VectorItem {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A parsed answer with the time of its oldest sample.
struct Parsed {
    series: Vec<Series>,
    oldest: Option<f64>,
    warnings: u64,
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
        match self.request(query, query.max_age, token).await {
            Err(failure) => Outcome::refused(failure),
            Ok(parsed) => match query.max_age {
                Some(max_age) if parsed.series.is_empty() => {
                    self.explain_empty(query, max_age, parsed.warnings, token)
                        .await
                }
                max_age => Outcome {
                    answer: judge_age(parsed.series, parsed.oldest, max_age),
                    warnings: parsed.warnings,
                    requests: 1,
                },
            },
        }
    }

    /// Nothing young enough: one more query without the age limit tells old samples from no samples.
    async fn explain_empty(
        &self,
        query: &Query,
        max_age: Duration,
        warnings: u64,
        token: Option<&Token>,
    ) -> Outcome {
        let answer: Answer = match self.request(query, None, token).await {
            Ok(parsed) if parsed.series.is_empty() => Ok(Vec::new()),
            // Young after all: the sample arrived between the two queries.
            Ok(parsed) if max_age >= LOOKBACK => {
                judge_age(parsed.series, parsed.oldest, Some(max_age))
            }
            Ok(_) => Err(Failure::Stale),
            Err(failure) => Err(failure),
        };
        Outcome {
            answer,
            warnings,
            requests: 2,
        }
    }

    async fn request(
        &self,
        query: &Query,
        max_age: Option<Duration>,
        token: Option<&Token>,
    ) -> Result<Parsed, Failure> {
        // Prometheus stops too when nobody waits any more.
        let millis = i64::try_from(query.timeout.as_millis()).unwrap_or(i64::MAX);
        let mut request = self.client.query(&query.text).timeout(millis);
        if let Some(age) = max_age.filter(|age| *age < LOOKBACK) {
            // The timestamps of an answer are those of the evaluation, so the age of samples can only be limited in the query itself.
            request = request.query("lookback_delta", format!("{}ms", age.as_millis()));
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let response = request.post_raw().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        let body = read(response).await?;
        match serde_json::from_slice(&body) {
            Ok(Body::Success { data, warnings }) => parse(data, warnings.len() as u64),
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

/// How far back Prometheus looks by default; a longer age cannot be promised.
const LOOKBACK: Duration = Duration::from_secs(300);

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

fn parse(data: Data, warnings: u64) -> Result<Parsed, Failure> {
    let items = match data {
        Data::Vector(items) => items,
        Data::Scalar(value) => vec![VectorItem {
            metric: BTreeMap::new(),
            value: Some(value),
        }],
        Data::Matrix(_) | Data::String(_) => {
            return Err(Failure::Error(
                "the query gives a range or a string where numbers are needed; wrap the range, for example in `rate(...)`".to_owned(),
            ));
        }
    };
    let mut oldest: Option<f64> = None;
    let mut series = Vec::with_capacity(items.len());
    for item in items {
        let Some((at, text)) = item.value else {
            return Err(Failure::Error("the query gives histograms where numbers are needed; use `histogram_quantile(...)`".to_owned()));
        };
        let value = text.parse().map_err(|_| {
            Failure::Error(format!(
                "Prometheus wrote {text:?} where a number is needed"
            ))
        })?;
        oldest = Some(oldest.map_or(at, |o| o.min(at)));
        series.push(Series {
            labels: item.metric,
            value,
        });
    }
    Ok(Parsed {
        series,
        oldest,
        warnings,
    })
}

/// Refuses answers that a cache in between has kept too long.
fn judge_age(series: Vec<Series>, oldest: Option<f64>, max_age: Option<Duration>) -> Answer {
    let (Some(oldest), Some(max_age)) = (oldest, max_age) else {
        return Ok(series);
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    if now - oldest > max_age.as_secs_f64() {
        Err(Failure::Stale)
    } else {
        Ok(series)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Parsed, Failure> {
        match serde_json::from_str(text).unwrap() {
            Body::Success { data, warnings } => parse(data, warnings.len() as u64),
            Body::Error { error, .. } => Err(Failure::Error(error)),
        }
    }

    #[test]
    fn warnings_are_counted_not_errors() {
        let parsed = answer(
            r#"{"status":"success","warnings":["w1","w2"],"data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[9.5,"+Inf"]}]}}"#,
        )
        .unwrap();
        assert_eq!(
            (parsed.warnings, parsed.oldest, parsed.series[0].value),
            (2, Some(9.5), f64::INFINITY)
        );
    }

    #[test]
    fn a_scalar_is_one_series_and_a_range_is_refused() {
        let scalar =
            answer(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}"#)
                .unwrap();
        assert_eq!((scalar.series.len(), scalar.series[0].value), (1, 4.0));
        let range = answer(
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}}"#,
        );
        assert!(matches!(range, Err(Failure::Error(text)) if text.contains("rate")));
    }

    #[test]
    fn old_answers_are_stale() {
        let series = || {
            vec![Series {
                labels: BTreeMap::new(),
                value: 1.0,
            }]
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let limit = Some(Duration::from_secs(60));
        assert_eq!(
            judge_age(series(), Some(now - 61.0), limit),
            Err(Failure::Stale)
        );
        assert_eq!(judge_age(series(), Some(now - 30.0), limit), Ok(series()));
        assert_eq!(judge_age(series(), Some(now - 3600.0), None), Ok(series()));
    }
}
