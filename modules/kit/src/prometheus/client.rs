//! Asks Prometheus instant queries.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Identity, StatusCode, Url};

use super::access::{Access, KeyError, QUERY_PATH, Section, Userinfo};
use super::ask::{Bounds, Connection};
use super::budget::AnswerBudget;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const MOST_REDIRECTS: usize = 5;

/// A shorter text than this is no secret, and would be found in every message.
const SHORTEST_SECRET: usize = 3;
/// The same for a parameter of the address, which may be the name of a tenant.
const SHORTEST_KEY: usize = 12;

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
    pub(super) section: Section,
    headers: HeaderMap,
    /// Where queries go: below the path prefix of the address if there is one, with its parameters, and without a user.
    pub(super) url: Url,
    userinfo: Option<Userinfo>,
    /// The address for messages.
    pub(super) shown: String,
    pub(super) budget: AnswerBudget,
    made: Mutex<Option<Made>>,
}

/// Connections, and what they were made with.
#[derive(Clone)]
struct Made {
    tls: Tls,
    http: reqwest::Client,
}

/// Contents of the files.
#[derive(Clone, PartialEq)]
struct Tls {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
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
        let (url, userinfo) = access.url(&section)?;
        // Parameters may be keys of an API: not for messages.
        let mut bare = url.clone();
        bare.set_query(None);
        let bare = bare.as_str().trim_end_matches('/');
        let shown = match &userinfo {
            Some(_) => bare.replacen("://", "://***@", 1),
            None => bare.to_owned(),
        };
        let mut url = url;
        let path = format!("{}{QUERY_PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Self {
            headers: access.header_map(&section)?,
            url,
            userinfo,
            shown,
            access,
            section,
            budget: AnswerBudget::default(),
            made: Mutex::default(),
        })
    }

    /// The same with a budget that other clients use, too.
    #[must_use]
    pub fn with_budget(mut self, budget: AnswerBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The bounds of an answer to the configuration.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            bytes: self.access.max_bytes,
            series: self.access.max_series,
            keys: "",
            owner: None,
        }
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
        let basic = access.basic_auth.as_ref();
        let password = self
            .read(
                "basicAuth.passwordFile",
                basic.map(|basic| basic.password_file.as_path()),
            )
            .await?;
        let tls = Tls {
            ca: self.read("caFile", access.ca_file.as_deref()).await?,
            certificate: self.read("certFile", access.cert_file.as_deref()).await?,
            key: self.read("keyFile", access.key_file.as_deref()).await?,
        };
        let made = self.made(tls)?;
        let authorization = match (token, password, &self.userinfo) {
            (Some(token), _, _) => Some(self.token(&token)?),
            (None, Some(password), _) => {
                let username = basic.map_or("", |basic| basic.username.as_str());
                let password = String::from_utf8_lossy(&password);
                self.basic(&made, username, password.trim())?
            }
            (None, None, Some(user)) => self.basic(&made, &user.username, &user.password)?,
            (None, None, None) => None,
        };
        Ok(Connection {
            secrets: self.secrets(authorization.as_ref()),
            client: self,
            http: made.http,
            authorization,
        })
    }

    /// Connections for these certificates.
    fn made(&self, tls: Tls) -> Result<Made, KeyError> {
        let mut made = self.made.lock();
        if let Some(made) = &*made
            && made.tls == tls
        {
            return Ok(made.clone());
        }
        let http = self.build(&tls)?;
        let new = Made { tls, http };
        *made = Some(new.clone());
        Ok(new)
    }

    /// The header of basic authentication.
    fn basic(
        &self,
        made: &Made,
        username: &str,
        password: &str,
    ) -> Result<Option<HeaderValue>, KeyError> {
        let request = made.http.get(self.url.clone());
        let request = request.basic_auth(username, Some(password)).build();
        let header = request
            .ok()
            .and_then(|mut r| r.headers_mut().remove(AUTHORIZATION));
        let mut header = header.ok_or_else(|| {
            let fix = "write a file that holds the password alone";
            self.section
                .wrong("basicAuth.passwordFile", "cannot be sent", fix)
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// What no message may have in it: a server may repeat the header that it refuses.
    fn secrets(&self, authorization: Option<&HeaderValue>) -> Vec<String> {
        let mut out = Vec::new();
        // A key of an API, unlike the name of a tenant, is long.
        let parameters = self.url.query_pairs().map(|(_, value)| value.into_owned());
        out.extend(parameters.filter(|value| value.len() >= SHORTEST_KEY));
        if let Some(user) = &self.userinfo {
            out.extend([user.password.clone(), user.encoded.clone()]);
        }
        let set = self.headers.get(AUTHORIZATION);
        for value in authorization.into_iter().chain(set) {
            let text = value.to_str().unwrap_or_default();
            out.extend(text.split_once(' ').map(|(_, secret)| secret.to_owned()));
            out.push(text.to_owned());
        }
        out.retain(|secret| secret.len() >= SHORTEST_SECRET);
        out.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        out
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

    fn build(&self, tls: &Tls) -> Result<reqwest::Client, KeyError> {
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
        builder.build().map_err(|e| {
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

    pub(super) fn late(&self) -> AskError {
        AskError::Timeout {
            address: self.shown.clone(),
            section: self.section.name,
        }
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> AskError {
        if error.is_timeout() {
            return self.late();
        }
        let text = chain(error);
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

    pub(super) fn too_large(&self, bounds: &Bounds, key: &str, what: &str) -> AskError {
        let name = self.section.name;
        AskError::Failed(format!(
            "the answer has more than {what}; aggregate in the query, for example `sum by (namespace, pod)`, or raise {name}.{}{key}",
            bounds.keys
        ))
    }

    pub(super) fn full(&self) -> AskError {
        AskError::Failed(format!(
            "{} answers more than the memory for all answers under way has room for; let queries give fewer series",
            self.shown
        ))
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
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
