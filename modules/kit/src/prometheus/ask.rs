//! One query, and its answer within bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::answer::{Answer, NoAnswer, parse, shorten, size};
use super::budget::Held;
use super::client::{AskError, Client, chain};

/// How far back Prometheus looks by default. An age beyond it limits nothing more.
const LOOKBACK: Duration = Duration::from_secs(300);

/// Bounds of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that are read.
    pub bytes: usize,
    /// Series.
    pub series: usize,
    /// Path of the keys with the bounds, for the error: `maxBytes` and `maxSeries` are appended.
    pub keys: &'static str,
    /// The namespace whose limiter asks; `None`: the configuration does.
    pub owner: Option<Arc<str>>,
}

/// A client with the token and the certificates of this moment.
pub struct Connection<'c> {
    pub(super) client: &'c Client,
    pub(super) http: reqwest::Client,
    pub(super) authorization: Option<HeaderValue>,
    /// What no message may have in it.
    pub(super) secrets: Vec<String>,
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(self.client).finish()
    }
}

impl Connection<'_> {
    /// Asks one query of the configuration. `max_age` limits how old the samples may be that it uses.
    pub async fn ask(
        &self,
        query: &str,
        timeout: Duration,
        max_age: Option<Duration>,
    ) -> Result<Answer, AskError> {
        self.ask_within(query, timeout, max_age, &self.client.bounds())
            .await
    }

    /// The same with other bounds.
    pub async fn ask_within(
        &self,
        query: &str,
        timeout: Duration,
        max_age: Option<Duration>,
        bounds: &Bounds,
    ) -> Result<Answer, AskError> {
        let asked = tokio::time::timeout(timeout, self.request(query, timeout, max_age, bounds))
            .await
            .unwrap_or_else(|_| Err(self.client.late()));
        match asked {
            Ok(mut answer) => {
                for warning in &mut answer.warnings {
                    *warning = self.scrub(warning);
                }
                Ok(answer)
            }
            Err(AskError::Failed(text)) => Err(AskError::Failed(self.scrub(&text))),
            Err(late) => Err(late),
        }
    }

    /// A text without secrets.
    fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret, "***");
        }
        text
    }

    async fn request(
        &self,
        query: &str,
        timeout: Duration,
        max_age: Option<Duration>,
        bounds: &Bounds,
    ) -> Result<Answer, AskError> {
        let client = self.client;
        // Prometheus stops too when nobody waits any more.
        let mut form = vec![
            ("query", query.to_owned()),
            ("timeout", format!("{}ms", timeout.as_millis())),
        ];
        if let Some(age) = max_age.filter(|age| *age < LOOKBACK) {
            // Reaches into expressions. Prometheus before 2.44 does not know it and ignores it.
            form.push(("lookback_delta", format!("{}ms", age.as_millis())));
        }
        // A POST, as a query may be longer than an address.
        let mut request = self.http.post(client.url.clone()).form(&form);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = request.send().await;
        let response = response.map_err(|e| client.unreachable(&e.without_url()))?;
        let status = response.status();
        let mut held = client.budget.open(bounds.owner.clone());
        let body = self.read(response, bounds, &mut held).await?;
        let mut answer =
            parse(&body, bounds.series).map_err(|e| self.no_answer(e, status, &body, bounds))?;
        drop(body);
        // What was read is gone, what came of it stays for a while.
        held.shrink_to(0);
        if !held.grow(size(&answer.rows)) {
            return Err(client.full());
        }
        answer.held = Some(held);
        Ok(answer)
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        bounds: &Bounds,
        held: &mut Held,
    ) -> Result<Vec<u8>, AskError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                AskError::Failed(format!(
                    "the answer of Prometheus broke off: {}; it may be restarting",
                    chain(&e.without_url())
                ))
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > bounds.bytes {
                let what = format!("{} bytes", bounds.bytes);
                return Err(self.client.too_large(bounds, "maxBytes", &what));
            }
            if !held.grow(chunk.len()) {
                return Err(self.client.full());
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn no_answer(
        &self,
        error: NoAnswer,
        status: StatusCode,
        body: &[u8],
        bounds: &Bounds,
    ) -> AskError {
        let client = self.client;
        match error {
            NoAnswer::Late => client.late(),
            NoAnswer::Query(text) => AskError::Failed(text),
            NoAnswer::Series => {
                let what = format!("{} series", bounds.series);
                client.too_large(bounds, "maxSeries", &what)
            }
            NoAnswer::Foreign(e) => AskError::Failed(format!(
                "{} answered HTTP {status} with no Prometheus result ({e}): {}; check that {}.address is the base URL of Prometheus and that access is allowed",
                client.shown,
                // Before it is cut, which could leave half of a secret.
                shorten(&self.scrub(&String::from_utf8_lossy(body))),
                client.section.name,
            )),
        }
    }
}
