//! Asks Prometheus instant queries.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_http_query::{Client as QueryClient, Error as QueryError};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Identity, StatusCode, Url};

use super::access::{Access, KeyError, Section};
use super::answer::{Answer, NoAnswer, parse, shorten};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const MOST_REDIRECTS: usize = 5;
/// How far back Prometheus looks by default. An age beyond it limits nothing more.
const LOOKBACK: Duration = Duration::from_secs(300);

/// A query that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not within the time limit.
    #[error("{address} did not answer in time; check its load, or raise {section}.timeout")]
    Timeout {
        /// Who was asked.
        address: String,
        /// The section of the configuration with the time limit.
        section: &'static str,
    },
    /// It cannot be asked, or what it says is of no use: the text says what to change.
    #[error("{0}")]
    Failed(String),
}

impl From<KeyError> for AskError {
    fn from(error: KeyError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Asks one Prometheus.
pub struct Client {
    access: Access,
    section: Section,
    headers: HeaderMap,
    /// The address, with a path prefix if there is one.
    url: Url,
    /// The address for messages, without a password that may be in it.
    shown: String,
    made: Mutex<Option<Made>>,
}

/// Connections, and what they were made with.
struct Made {
    tls: Tls,
    http: QueryClient,
}

/// Contents of the files.
#[derive(PartialEq)]
struct Tls {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

/// A client with the token and the certificates of this moment.
pub struct Connection<'c> {
    client: &'c Client,
    http: QueryClient,
    token: Option<HeaderValue>,
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(self.client).finish()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the configuration. Nothing is asked or read yet, so that neither a Prometheus that is down nor a file that
    /// is not mounted yet stops a start.
    pub fn new(access: Access, section: Section) -> Result<Self, KeyError> {
        access.check(&section)?;
        let mut url = access.url(&section)?;
        let mut shown = url.clone();
        // These fail only for URLs that `Access::check` refuses.
        let _ = shown.set_password(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
        }
        Ok(Self {
            headers: access.header_map(&section)?,
            shown: shown.as_str().trim_end_matches('/').to_owned(),
            url,
            access,
            section,
            made: Mutex::default(),
        })
    }

    /// The time limit of a query that has none of its own.
    pub fn timeout(&self) -> Duration {
        *self.access.timeout
    }

    /// Reads the files of the configuration, which are replaced when tokens and certificates are renewed. Connections are
    /// made anew when their certificates have changed.
    pub async fn open(&self) -> Result<Connection<'_>, AskError> {
        let access = &self.access;
        let token = self
            .read("bearerTokenFile", access.bearer_token_file.as_deref())
            .await?;
        let token = token.map(|text| self.token(&text)).transpose()?;
        let tls = Tls {
            ca: self.read("caFile", access.ca_file.as_deref()).await?,
            certificate: self.read("certFile", access.cert_file.as_deref()).await?,
            key: self.read("keyFile", access.key_file.as_deref()).await?,
        };
        let mut made = self.made.lock();
        let http = match &*made {
            Some(made) if made.tls == tls => made.http.clone(),
            _ => {
                let http = self.build(&tls)?;
                *made = Some(Made {
                    tls,
                    http: http.clone(),
                });
                http
            }
        };
        Ok(Connection {
            client: self,
            http,
            token,
        })
    }

    async fn read(&self, key: &str, file: Option<&Path>) -> Result<Option<Vec<u8>>, KeyError> {
        let Some(file) = file else { return Ok(None) };
        let content = tokio::fs::read(file).await;
        content.map(Some).map_err(|e| {
            let problem = format!("{} cannot be read: {e}", file.display());
            self.section
                .wrong(key, problem, "mount the file, readable for Trimtab")
        })
    }

    fn token(&self, content: &[u8]) -> Result<HeaderValue, KeyError> {
        let text = String::from_utf8_lossy(content);
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| {
            self.section.wrong(
                "bearerTokenFile",
                "holds more than a token",
                "write a file that holds the token alone",
            )
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn build(&self, tls: &Tls) -> Result<QueryClient, KeyError> {
        // reqwest is built without a TLS provider of its own; a provider that the host has already installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::custom(redirect))
            .default_headers(self.headers.clone());
        if let Some(ca) = &tls.ca {
            builder = builder.tls_certs_only(self.certificates("caFile", ca)?);
        }
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            self.certificates("certFile", certificate)?;
            let pem = [certificate.as_slice(), key].join(&b'\n');
            let identity = Identity::from_pem(&pem).map_err(|_| {
                self.section.wrong(
                    "keyFile",
                    "holds no private key",
                    "write it in PEM, not encrypted",
                )
            })?;
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|e| {
            let (key, fix) = if tls.key.is_some() {
                (
                    "keyFile",
                    "write the key of the first certificate in certFile",
                )
            } else if tls.ca.is_some() {
                ("caFile", "write certificates of CAs in PEM")
            } else {
                (
                    "caFile",
                    "name the CAs in it, or install those of this host",
                )
            };
            let problem = format!("gives no TLS configuration: {}", chain(&e));
            self.section.wrong(key, problem, fix)
        })?;
        QueryClient::from(http, self.url.as_str()).map_err(|e| {
            self.section
                .wrong("address", e.to_string(), "write an http or https URL")
        })
    }

    fn certificates(&self, key: &str, pem: &[u8]) -> Result<Vec<Certificate>, KeyError> {
        let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(self
                .section
                .wrong(key, "holds no certificate", "write it in PEM"));
        }
        Ok(certificates)
    }

    fn late(&self) -> AskError {
        AskError::Timeout {
            address: self.shown.clone(),
            section: self.section.name,
        }
    }

    fn unreachable(&self, error: &QueryError) -> AskError {
        if let QueryError::Client(e) = error
            && e.inner().is_some_and(reqwest::Error::is_timeout)
        {
            return self.late();
        }
        // The URL may have a password in it.
        let text = chain(error).replace(self.url.as_str().trim_end_matches('/'), &self.shown);
        let (name, tls) = (self.section.name, self.url.scheme() == "https");
        let files = if tls {
            ", caFile, certFile and keyFile"
        } else {
            ""
        };
        AskError::Failed(format!(
            "{} cannot be asked: {}; check {name}.address{files}, and that Prometheus runs",
            self.shown, text
        ))
    }

    fn no_answer(&self, error: NoAnswer, status: StatusCode, body: &[u8]) -> AskError {
        match error {
            NoAnswer::Late => self.late(),
            NoAnswer::Query(text) => AskError::Failed(text),
            NoAnswer::Foreign(e) => AskError::Failed(format!(
                "{} answered HTTP {status} with no Prometheus result ({e}): {}; check that {}.address is the base URL of Prometheus and that access is allowed",
                self.shown,
                shorten(&String::from_utf8_lossy(body)),
                self.section.name,
            )),
        }
    }
}

impl Connection<'_> {
    /// Asks one query. `max_age` limits how old the samples may be that it uses.
    pub async fn ask(
        &self,
        query: &str,
        timeout: Duration,
        max_age: Option<Duration>,
    ) -> Result<Answer, AskError> {
        tokio::time::timeout(timeout, self.request(query, timeout, max_age))
            .await
            .unwrap_or_else(|_| Err(self.client.late()))
    }

    async fn request(
        &self,
        query: &str,
        timeout: Duration,
        max_age: Option<Duration>,
    ) -> Result<Answer, AskError> {
        // Prometheus stops too when nobody waits any more.
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let mut request = self.http.query(query).timeout(millis);
        if let Some(age) = max_age.filter(|age| *age < LOOKBACK) {
            // Reaches into expressions. Prometheus before 2.44 does not know it and ignores it.
            request = request.query("lookback_delta", format!("{}ms", age.as_millis()));
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let response = request.post_raw().await;
        let response = response.map_err(|e| self.client.unreachable(&e))?;
        let status = response.status();
        let body = self.read(response).await?;
        parse(&body).map_err(|e| self.client.no_answer(e, status, &body))
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, AskError> {
        let largest = self.client.section.largest_answer;
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                AskError::Failed(format!(
                    "the answer of Prometheus broke off: {}; it may be restarting",
                    chain(&e.without_url())
                ))
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > largest {
                return Err(AskError::Failed(format!(
                    "the answer is larger than {} MiB; aggregate in the query, for example `sum by (namespace, pod)`",
                    largest >> 20
                )));
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// Follows to the same host only, and not out of TLS: headers may be secrets. The statuses other than these make a GET
/// without the query of a POST.
fn redirect(attempt: Attempt<'_>) -> Action {
    let keeps_method = matches!(
        attempt.status(),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    );
    let next = attempt.url();
    let same_host = attempt.previous().last().is_some_and(|from| {
        from.host() == next.host() && (next.scheme() == "https" || from.scheme() == "http")
    });
    if keeps_method && same_host && attempt.previous().len() <= MOST_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
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
