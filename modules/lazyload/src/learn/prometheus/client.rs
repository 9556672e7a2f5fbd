//! Asks Prometheus one instant query, and reads the answer.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use prometheus_http_query::Client as QueryClient;
use serde::Deserialize;

/// An answer beyond this is a query that forgot to aggregate.
const LARGEST_ANSWER: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a server's text is shown.
const SHOWN: usize = 300;

/// Prometheus cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The address is no HTTP URL.
    #[error(
        "lazyload.learn.prometheus.address: {address:?} is not usable ({reason}): write an http:// or https:// URL \
         such as http://prometheus.istio-system:9090"
    )]
    Address {
        /// What was written.
        address: String,
        /// Why it is refused.
        reason: String,
    },
    /// It did not answer in time.
    #[error(
        "{address} did not answer within {timeout:?}: check its load, or raise lazyload.learn.prometheus.timeout"
    )]
    Timeout {
        /// Whom.
        address: String,
        /// The time limit.
        timeout: Duration,
    },
    /// It cannot be reached, or what it says is no answer.
    #[error("{address}: {reason}")]
    Answer {
        /// Whom.
        address: String,
        /// What is wrong, and what to change.
        reason: String,
    },
}

/// One series: its labels and its value.
pub(super) type Row = (BTreeMap<String, String>, f64);

/// A usable answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// Something may be missing in it.
    pub(super) warning: Option<String>,
}

pub(super) struct Client {
    http: QueryClient,
    address: String,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(address: &str, timeout: Duration) -> Result<Self, AskError> {
        let refused = |reason: String| AskError::Address {
            address: address.to_owned(),
            reason,
        };
        let url = reqwest::Url::parse(address).map_err(|e| refused(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(format!("the scheme is {:?}", url.scheme())));
        }
        // reqwest is built without a TLS provider of its own; a provider that the host has already installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| refused(chain(&e)))?;
        Ok(Self {
            http: QueryClient::from(http, address).map_err(|e| refused(chain(&e)))?,
            address: address.to_owned(),
            timeout,
        })
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) async fn ask(&self, query: &str) -> Result<Answer, AskError> {
        match tokio::time::timeout(self.timeout, self.request(query)).await {
            Ok(Ok(body)) => parse(&body).map_err(|reason| self.failed(reason)),
            Ok(Err(reason)) => Err(self.failed(reason)),
            Err(_) => Err(AskError::Timeout {
                address: self.address.clone(),
                timeout: self.timeout,
            }),
        }
    }

    async fn request(&self, query: &str) -> Result<Vec<u8>, String> {
        // Prometheus stops too when nobody waits any more.
        let millis = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let request = self.http.query(query).timeout(millis);
        let response = request.post_raw().await.map_err(|e| {
            format!(
                "cannot be asked: {}; check the address and that Prometheus runs",
                chain(&e)
            )
        })?;
        let mut response = response;
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                format!("the answer broke off: {}; it may be restarting", chain(&e))
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(format!(
                    "the answer is larger than {} MiB; aggregate in the query, by caller and host",
                    LARGEST_ANSWER >> 20
                ));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn failed(&self, reason: String) -> AskError {
        AskError::Answer {
            address: self.address.clone(),
            reason,
        }
    }
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
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// Reads the body of an answer. The error says what is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Answer, String> {
    let (data, warnings) = match serde_json::from_slice(body) {
        Ok(Body::Success { data, warnings }) => (data, warnings),
        Ok(Body::Error { kind, error }) => {
            return Err(format!(
                "the query is refused ({kind}): {}; correct the query in lazyload.learn.prometheus",
                shorten(&error)
            ));
        }
        Err(e) => {
            return Err(format!(
                "no answer of Prometheus ({e}): {}; check the address",
                shorten(&String::from_utf8_lossy(body))
            ));
        }
    };
    if data.kind != "vector" {
        return Err(format!(
            "the query gives a {}; write one that gives a counter by caller and host",
            data.kind
        ));
    }
    let items: Vec<Item> = serde_json::from_value(data.result).map_err(|e| {
        format!("the query gives no plain counters ({e}); sum counters by caller and host")
    })?;
    let rows = items.into_iter().map(|item| {
        // What is no number never moves, and is skipped as malformed.
        let value = item.value.1.parse().unwrap_or(f64::NAN);
        (item.metric, value)
    });
    Ok(Answer {
        rows: rows.collect(),
        warning: (!warnings.is_empty()).then(|| {
            format!(
                "the answer may lack series: {}",
                shorten(&warnings.join("; "))
            )
        }),
    })
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
