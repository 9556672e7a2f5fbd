//! How a Prometheus is reached, and what is wrong with what a user wrote of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Url;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;

/// Bytes of one answer, unless configured.
pub const MAX_BYTES: usize = 4 << 20;
/// Series of one answer, unless configured.
pub const MAX_SERIES: usize = 10_000;

/// What is asked, below the base URL.
pub(super) const QUERY_PATH: &str = "/api/v1/query";
/// Parameters of a query, which an address would say for all of them.
const TAKEN: [&str; 5] = ["query", "time", "timeout", "lookback_delta", "limit"];

/// Headers that the client needs for itself.
const OWN: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];

/// How a Prometheus is reached. A section of the configuration that asks one has all of these keys beside its own: it
/// repeats them, because serde's `flatten` would take the key out of the message about a bad value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Access {
    /// Base URL, `http://` or `https://`. A path in it is kept, and parameters are sent with each query:
    /// `https://thanos.example/prom?tenant=shop`.
    pub address: String,
    /// Time limit of one query.
    pub timeout: Duration,
    /// User name and password, in place of a token.
    pub basic_auth: Option<BasicAuth>,
    /// File that holds a bearer token alone.
    pub bearer_token_file: Option<PathBuf>,
    /// PEM file with the CAs that Prometheus' certificate may be signed by, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate, then its intermediates. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of the client certificate, not encrypted. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// More headers of each query, for example `X-Scope-OrgID` for the tenant of a Mimir.
    pub headers: BTreeMap<String, String>,
    /// The largest answer that is read, in bytes. Without a bound, a query that forgot to aggregate would cost the operator
    /// its memory.
    pub max_bytes: usize,
    /// The most series that an answer may have.
    pub max_series: usize,
}

/// User name and password of HTTP's basic authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// File that holds the password alone.
    pub password_file: PathBuf,
}

/// User and password that stand in an address.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Userinfo {
    pub(super) username: String,
    pub(super) password: String,
    /// As it is written, percent-encoded.
    pub(super) encoded: String,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            address: String::new(),
            timeout: Duration::from_secs(5),
            basic_auth: None,
            bearer_token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            headers: BTreeMap::new(),
            max_bytes: MAX_BYTES,
            max_series: MAX_SERIES,
        }
    }
}

/// The section of the configuration that asks, and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its path, for example `metrics.prometheus`.
    pub name: &'static str,
    /// The longest time limit that a query may have.
    pub longest_timeout: Duration,
}

/// A key of the configuration has a value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}; {fix}")]
pub struct KeyError {
    /// Path of the key.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

impl Section {
    /// An error about a key of this section.
    pub fn wrong(&self, key: &str, problem: impl Into<String>, fix: &str) -> KeyError {
        KeyError {
            key: format!("{}.{key}", self.name),
            problem: problem.into(),
            fix: fix.to_owned(),
        }
    }

    /// Refuses a time limit that is zero or too long.
    pub fn check_timeout(&self, key: &str, timeout: Duration) -> Result<(), KeyError> {
        if timeout.is_zero() || timeout > self.longest_timeout {
            return Err(self.wrong(
                key,
                format!("is {timeout}"),
                &format!(
                    "write a duration above 0s and at most {}",
                    self.longest_timeout
                ),
            ));
        }
        Ok(())
    }

    /// Refuses bounds that let nothing in, or more than all answers together may have.
    pub fn check_bounds(&self, key: &str, bytes: usize, series: usize) -> Result<(), KeyError> {
        let most = super::budget::TOTAL;
        for (name, value, most) in [("maxBytes", bytes, most), ("maxSeries", series, usize::MAX)] {
            if value == 0 || value > most {
                let fix = format!("write a number from 1 to {most}");
                return Err(self.wrong(&format!("{key}{name}"), format!("is {value}"), &fix));
            }
        }
        Ok(())
    }
}

impl Access {
    /// Checks all that needs no file.
    pub fn check(&self, section: &Section) -> Result<(), KeyError> {
        let (url, userinfo) = self.url(section)?;
        self.header_map(section)?;
        section.check_timeout("timeout", self.timeout)?;
        section.check_bounds("", self.max_bytes, self.max_series)?;
        self.check_credentials(section, userinfo.is_some())?;
        let tls = [
            ("caFile", &self.ca_file),
            ("certFile", &self.cert_file),
            ("keyFile", &self.key_file),
        ];
        if let Some((key, _)) = tls.iter().find(|(_, file)| file.is_some())
            && url.scheme() == "http"
        {
            return Err(section.wrong(
                key,
                "is set, and the address has no TLS",
                "write an https:// address, or remove the key",
            ));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Err(section.wrong(
                "certFile",
                "is set without keyFile",
                "set keyFile to the private key of this certificate, or remove certFile",
            )),
            (None, Some(_)) => Err(section.wrong(
                "keyFile",
                "is set without certFile",
                "set certFile to the certificate of this key, or remove keyFile",
            )),
            _ => Ok(()),
        }
    }

    /// One way to say who asks, not two.
    fn check_credentials(&self, section: &Section, in_address: bool) -> Result<(), KeyError> {
        let header = self
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        let ways = [
            ("bearerTokenFile", self.bearer_token_file.is_some()),
            ("basicAuth", self.basic_auth.is_some()),
            ("address", in_address),
            ("headers.Authorization", header),
        ];
        let mut set = ways.iter().filter(|(_, set)| *set).map(|(key, _)| *key);
        if let (Some(first), Some(second)) = (set.next(), set.next()) {
            let problem = if second == "address" {
                format!("has a user name in it, and {first} says who asks, too")
            } else {
                format!("is set, and {first} says who asks, too")
            };
            return Err(section.wrong(second, problem, "remove one of them"));
        }
        let Some(basic) = &self.basic_auth else {
            return Ok(());
        };
        // A colon would end the name.
        if basic.username.is_empty() || basic.username.contains(':') {
            return Err(section.wrong(
                "basicAuth.username",
                "is empty or has a ':'",
                "write the name of the user",
            ));
        }
        if basic.password_file.as_os_str().is_empty() {
            return Err(section.wrong(
                "basicAuth.passwordFile",
                "is not set",
                "name a file that holds the password alone",
            ));
        }
        Ok(())
    }

    /// The base URL without a slash at the end of its path, with its parameters, and the user and the password that stood in it: no message that shows
    /// the URL can show them.
    pub(super) fn url(&self, section: &Section) -> Result<(Url, Option<Userinfo>), KeyError> {
        let refused = |reason: &str| {
            section.wrong(
                "address",
                format!(
                    "{:?} is not usable ({reason})",
                    without_secrets(&self.address)
                ),
                "write an http:// or https:// URL such as http://prometheus.istio-system:9090",
            )
        };
        let mut url = Url::parse(&self.address).map_err(|e| refused(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(&format!("the scheme is {:?}", url.scheme())));
        }
        if url.fragment().is_some() {
            return Err(refused("it has a '#', and what follows is never sent"));
        }
        if let Some((taken, _)) = url.query_pairs().find(|(name, _)| TAKEN.contains(&&**name)) {
            return Err(refused(&format!(
                "the parameter {taken:?} belongs to each query of its own"
            )));
        }
        if url.path().trim_end_matches('/').ends_with(QUERY_PATH) {
            return Err(refused(
                "it ends with the path of a query, which is appended to it",
            ));
        }
        let userinfo = userinfo(&url);
        // These fail only for URLs without a host, which have been refused.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok((url, userinfo))
    }

    /// The headers of users.
    pub(super) fn header_map(&self, section: &Section) -> Result<HeaderMap, KeyError> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = |problem: &str, fix: &str| {
                section.wrong(&format!("headers.{}", name.escape_debug()), problem, fix)
            };
            let header: HeaderName = name.parse().map_err(|_| {
                wrong(
                    "is no name of a header",
                    "write letters, digits and '-', for example X-Scope-OrgID",
                )
            })?;
            let value = HeaderValue::from_str(value).ok().filter(|v| !v.is_empty());
            let mut value = value.ok_or_else(|| {
                wrong(
                    "is empty, or has a character that a header cannot have",
                    "write one line of ASCII text",
                )
            })?;
            // It may be a key of an API: not for logs.
            value.set_sensitive(true);
            if OWN.contains(&header) {
                return Err(wrong("is set by Trimtab itself", "remove it"));
            }
            if map.insert(header, value).is_some() {
                return Err(wrong(
                    "is there twice: upper and lower case are the same",
                    "remove one of them",
                ));
            }
        }
        Ok(map)
    }
}

fn userinfo(url: &Url) -> Option<Userinfo> {
    let encoded = url.password().unwrap_or_default().to_owned();
    if url.username().is_empty() && encoded.is_empty() {
        return None;
    }
    Some(Userinfo {
        username: percent_decoded(url.username()),
        password: percent_decoded(&encoded),
        encoded,
    })
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An address for messages, also one that is no URL: all before the last `@` may be a password, and parameters a key.
fn without_secrets(address: &str) -> String {
    let (before, after) = match address.rsplit_once('@') {
        Some((before, after)) => (Some(before), after),
        None => (None, address),
    };
    let after = match after.split_once('?') {
        Some((base, _)) => format!("{base}?***"),
        None => after.to_owned(),
    };
    let Some(before) = before else {
        return after;
    };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    let scheme = if scheme.is_empty() {
        String::new()
    } else {
        format!("{scheme}://")
    };
    format!("{scheme}***@{after}")
}

#[cfg(test)]
mod tests;
