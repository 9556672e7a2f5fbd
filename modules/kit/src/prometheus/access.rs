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

/// Headers that the client needs for itself.
const OWN: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];

/// How a Prometheus is reached. A section of the configuration that asks one has all of these keys beside its own: it
/// repeats them, because serde's `flatten` would take the key out of the message about a bad value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Access {
    /// Base URL, `http://` or `https://`. A path in it is kept: `https://thanos.example/prom`.
    pub address: String,
    /// Time limit of one query.
    pub timeout: Duration,
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
}

impl Default for Access {
    fn default() -> Self {
        Self {
            address: String::new(),
            timeout: Duration::from_secs(5),
            bearer_token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            headers: BTreeMap::new(),
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
    /// The largest answer that is read, in bytes. Without a bound, a query that forgot to aggregate would cost the operator
    /// its memory.
    pub largest_answer: usize,
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
}

impl Access {
    /// Checks all that needs no file.
    pub fn check(&self, section: &Section) -> Result<(), KeyError> {
        let url = self.url(section)?;
        self.header_map(section)?;
        section.check_timeout("timeout", self.timeout)?;
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

    /// The base URL.
    pub(super) fn url(&self, section: &Section) -> Result<Url, KeyError> {
        let refused = |reason: &str| {
            section.wrong(
                "address",
                format!("{:?} is not usable ({reason})", self.address),
                "write an http:// or https:// URL such as http://prometheus.istio-system:9090",
            )
        };
        let url = Url::parse(&self.address).map_err(|e| refused(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(&format!("the scheme is {:?}", url.scheme())));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("it has a '?' or a '#'"));
        }
        Ok(url)
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
            if header == AUTHORIZATION && self.bearer_token_file.is_some() {
                return Err(wrong(
                    "is set, and bearerTokenFile sets the same header",
                    "remove one of them",
                ));
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: Section = Section {
        name: "a.prometheus",
        longest_timeout: Duration::from_secs(300),
        largest_answer: 1 << 20,
    };

    fn parse(text: &str) -> Access {
        let mut access: Access = serde_json::from_str(text).unwrap();
        if access.address.is_empty() {
            access.address = "https://p".to_owned();
        }
        access
    }

    #[test]
    fn what_is_right_is_taken() {
        let all = r#"{"address": "https://thanos.example/prom", "timeout": "300s", "bearerTokenFile": "/t", "caFile": "/ca",
            "certFile": "/cert", "keyFile": "/key", "headers": {"X-Scope-OrgID": "team a", "x-b": "1"}}"#;
        for text in [
            all,
            "{}",
            r#"{"address": "http://127.0.0.1:9090/"}"#,
            r#"{"headers": {"Authorization": "Basic eDp5"}}"#,
        ] {
            let access = parse(text);
            access.check(&SECTION).unwrap();
            let again = serde_json::from_str(&serde_json::to_string(&access).unwrap());
            assert_eq!(access, again.unwrap());
        }
        serde_json::from_str::<Access>(r#"{"tokenfile": "/t"}"#).unwrap_err();
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_the_fix() {
        for (text, key, fix) in [
            (r#"{"address": "p:9090"}"#, "address", "http://"),
            (r#"{"address": "ftp://p"}"#, "address", "http://"),
            (r#"{"address": "http://"}"#, "address", "http://"),
            (r#"{"address": "http://p/?a=b"}"#, "address", "http://"),
            (r#"{"timeout": "0"}"#, "timeout", "at most 5m"),
            (r#"{"timeout": "301s"}"#, "timeout", "at most 5m"),
            (r#"{"certFile": "/c"}"#, "certFile", "set keyFile"),
            (r#"{"keyFile": "/k"}"#, "keyFile", "set certFile"),
            (
                r#"{"address": "http://p", "caFile": "/ca"}"#,
                "caFile",
                "https://",
            ),
            (
                r#"{"address": "http://p", "certFile": "/c", "keyFile": "/k"}"#,
                "certFile",
                "https://",
            ),
            (r#"{"headers": {"a b": "c"}}"#, "headers.a b", "letters"),
            (r#"{"headers": {"": "c"}}"#, "headers.", "letters"),
            (r#"{"headers": {"a": "b\nc"}}"#, "headers.a", "one line"),
            (r#"{"headers": {"a": ""}}"#, "headers.a", "one line"),
            (
                r#"{"headers": {"A": "1", "a": "2"}}"#,
                "headers.a",
                "remove one",
            ),
            (
                r#"{"headers": {"Content-Length": "1"}}"#,
                "headers.Content-Length",
                "remove it",
            ),
            (
                r#"{"bearerTokenFile": "/t", "headers": {"authorization": "x"}}"#,
                "headers.authorization",
                "remove one",
            ),
        ] {
            let error = parse(text).check(&SECTION).unwrap_err();
            assert_eq!(error.key, format!("a.prometheus.{key}"), "{text}: {error}");
            assert!(error.fix.contains(fix), "{text}: {error}");
        }
    }
}
