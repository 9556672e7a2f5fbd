//! Whether istiod knows exclusions.

use std::time::Duration;

use trimtab_kit::istiod::Release;

use crate::status::ProgrammedState;

/// After a refusal, fences of mode `Auto` do without exclusions for this long: istiod may be another one then.
const RETRY: Duration = Duration::from_secs(600);

/// What is known of istiod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Istiod {
    /// There is none to ask: files and plain proxies are taken for the newest.
    pub(super) assumed: bool,
    /// What it says.
    release: Option<Release>,
    /// When the API server refused exclusions, on the monotonic clock.
    refused: Option<Duration>,
}

impl Istiod {
    /// It says that it does not know exclusions.
    pub(super) fn is_old(&self) -> bool {
        !self.assumed && self.release.is_some_and(|r| r < Release::EXCLUSIONS)
    }

    /// It certainly knows them.
    pub(super) fn is_new(&self) -> bool {
        let says = self.release.is_some_and(|r| r >= Release::EXCLUSIONS);
        self.assumed || (says && self.refused.is_none())
    }

    /// The API server has refused them lately.
    pub(super) fn refuses(&self) -> bool {
        self.refused.is_some()
    }

    /// It says its version.
    pub(super) fn says(&mut self, release: Release) {
        self.release = Some(release);
    }

    /// The API server refused them at this time, or took them.
    pub(super) fn refused(&mut self, at: Option<Duration>) {
        self.refused = at;
    }

    /// Forgets a refusal that is old. Whether there was one.
    pub(super) fn retries(&mut self, now: Duration) -> bool {
        let over = self.refused.is_some_and(|then| now >= then + RETRY);
        if over {
            self.refused = None;
        }
        over
    }

    /// Where a fence stands for which nothing can be excluded; `None`: it is tried.
    pub(super) fn without_exclusions(&self, auto: bool) -> Option<ProgrammedState> {
        if auto && (self.is_old() || self.refuses()) {
            return Some(ProgrammedState::Open);
        }
        let release = self.release.filter(|_| self.is_old())?;
        let why = format!("istiod is {release}");
        Some(ProgrammedState::Unsupported(unsupported(&why)))
    }
}

/// What to do about an istiod that does not know exclusions.
pub(super) fn unsupported(why: &str) -> String {
    format!(
        "mode Exclude needs a Sidecar that knows exclusions, which Istio has since 1.31: {why}; the last good Sidecar stays: upgrade Istio, or set mode to Observe, Enforce or Auto"
    )
}
