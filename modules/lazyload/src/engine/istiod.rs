//! Whether istiod knows exclusions.

use std::time::Duration;

use trimtab_crds::fence::Mode;
use trimtab_kit::istiod::Release;

use super::{Desired, Engine, Entry};
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

    /// What becomes of a fence when nothing can be excluded: in mode `Auto` it does without a Sidecar, else the last good one
    /// stays. `None`: it is tried.
    pub(super) fn without_exclusions(&self, entry: &Entry) -> Option<(ProgrammedState, Desired)> {
        let auto = entry.modes.tighten.is_some();
        if auto && (self.is_old() || self.refuses()) {
            return Some((ProgrammedState::Open, Desired::None));
        }
        let release = self.release.filter(|_| self.is_old())?;
        let why = format!("istiod is {release}");
        Some((ProgrammedState::Unsupported(unsupported(&why)), Desired::Keep))
    }
}

/// What to do about an istiod that does not know exclusions.
pub(super) fn unsupported(why: &str) -> String {
    format!(
        "mode Exclude needs a Sidecar that knows exclusions, which Istio has since 1.31: {why}; the last good Sidecar stays: upgrade Istio, or set mode to Observe, Enforce or Auto"
    )
}

impl Engine {
    /// Whether anybody wants to know what istiod is.
    pub fn asks_istiod(&self) -> bool {
        let inner = self.inner.lock();
        let mut fences = inner.fences.values();
        fences.any(|e| e.mode == Mode::Exclude || e.modes.tighten.is_some())
    }

    /// There is no istiod: exclusions are taken to be known.
    pub fn without_istiod(&self) {
        self.istiod.lock().assumed = true;
    }

    /// What istiod says of itself.
    pub fn note_release(&self, release: Release) {
        let changed = {
            let mut istiod = self.istiod.lock();
            let before = istiod.clone();
            istiod.release = Some(release);
            before != *istiod
        };
        if changed {
            tracing::info!(%release, "istiod says its version");
            self.istiod_moved();
        }
    }

    /// The API server refused exclusions, or took them.
    pub(super) fn note_refusal(&self, refused: bool) {
        let changed = {
            let mut istiod = self.istiod.lock();
            let before = istiod.refused.is_some();
            istiod.refused = refused.then(|| self.clock.monotonic());
            before != refused
        };
        if changed {
            self.istiod_moved();
        }
    }

    /// Lets fences of mode `Auto` try again after a while.
    pub(super) fn retry_exclusions(&self) {
        let now = self.clock.monotonic();
        let mut istiod = self.istiod.lock();
        let over = istiod.refused.is_some_and(|then| now >= then + RETRY);
        if over {
            istiod.refused = None;
            drop(istiod);
            self.istiod_moved();
        }
    }

    fn istiod_moved(&self) {
        let mut inner = self.inner.lock();
        let wide = inner.fences.iter();
        let wide = wide.filter(|(_, e)| e.mode == Mode::Exclude || e.modes.excluded.is_some());
        let wide: Vec<_> = wide.map(|(key, _)| key.clone()).collect();
        inner.again.extend(wide);
        drop(inner);
        self.wake.notify_one();
    }
}
