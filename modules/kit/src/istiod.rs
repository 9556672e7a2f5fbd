//! What istiod says of itself.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;

/// For the whole exchange: a version is a few bytes from next door.
const BOUND: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const LONGEST: usize = 1024;

/// A release of Istio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl Release {
    /// The first whose Sidecar knows exclusions.
    pub const EXCLUSIONS: Self = Self {
        major: 1,
        minor: 31,
    };

    /// Reads what istiod says: `1.31.0-REVISION-Clean`, `1.32-alpha.SHA-...`. `None`: a build that does not say.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '.');
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse().ok()
        };
        let major = parts.next()?.parse().ok()?;
        let minor = number(parts.next()?)?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Asks istiod's monitoring port at `address`, such as `http://istiod.istio-system:15014`. The error says what failed.
pub async fn release(address: &str) -> Result<Release, String> {
    let url = format!("{}/version", address.trim_end_matches('/'));
    let failed = |error: &dyn fmt::Display| format!("{url}: {error}");
    let target: Url = url.parse().map_err(|error| failed(&error))?;
    // reqwest wants one also where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(BOUND)
        .build()
        .map_err(|error| failed(&error))?;
    let answer = client.get(target).send().await;
    let mut answer = answer.map_err(|error| failed(&error.without_url()))?;
    if !answer.status().is_success() {
        return Err(failed(&answer.status()));
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|error| failed(&error.without_url()))?
    {
        text.extend_from_slice(&chunk);
        if text.len() > LONGEST {
            return Err(failed(&"that is no version"));
        }
    }
    let text = String::from_utf8_lossy(&text);
    Release::read(&text).ok_or_else(|| failed(&format!("{:?} is no version", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_istiod_says_them() {
        for (text, wanted) in [
            ("1.31.0-9739e10eb9d7-Clean", Some((1, 31))),
            ("1.30.4-unknown-unknown", Some((1, 30))),
            ("1.32-alpha.12ab-12ab-Modified", Some((1, 32))),
            ("1.31", Some((1, 31))),
            ("2.0.1\n", Some((2, 0))),
            ("unknown-unknown-unknown", None),
            ("", None),
            ("1", None),
            ("<html>", None),
        ] {
            let found = Release::read(text).map(|r| (r.major, r.minor));
            assert_eq!(found, wanted, "{text}");
        }
        assert!(Release::read("1.4.2").unwrap() < Release::EXCLUSIONS);
        assert!(Release::read("2.0.0").unwrap() > Release::EXCLUSIONS);
    }
}
