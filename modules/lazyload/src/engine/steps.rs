//! What is told of the steps of mode `Auto`.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use kube::Resource;
use trimtab_crds::Duration;
use trimtab_crds::fence::{AutoStatus, ServiceFence};
use trimtab_kit::condition::Draft;
use trimtab_kit::events::{Event, Step};

use super::{Engine, Entry};
use crate::config::LazyloadConfig;
use crate::object::FenceKey;
use crate::tighten::{Turn, Wait};

/// Condition of fences of mode `Auto`.
const KIND: &str = "Tightened";

/// Steps since the start.
#[derive(Debug, Default)]
pub struct Turns {
    tightened: AtomicU64,
    back: AtomicU64,
}

impl Turns {
    /// To `Enforce`.
    pub fn tightened(&self) -> u64 {
        self.tightened.load(Ordering::Relaxed)
    }

    /// Back.
    pub fn went_back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// A fence has taken a step.
    pub(super) fn tell(&self, key: &FenceKey, turn: Turn, bound: u64) {
        let window = self.config().auto.window;
        let (reason, warning, note) = match turn {
            Turn::Tightened => (
                "Tightened",
                false,
                "only hosts that were called, or are named, are in scope now: nothing else was called for long enough".to_owned(),
            ),
            Turn::WentBack(calls) => (
                "WentBack",
                true,
                format!("everything is in scope again: {calls} calls in {window} went to the fallback, PassthroughCluster or BlackHoleCluster, and {bound} would have been usual"),
            ),
        };
        let counter = match turn {
            Turn::Tightened => &self.turns.tightened,
            Turn::WentBack(_) => &self.turns.back,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::info!(fence = %key, reason, note);
        let uid = self.index.resolve(key).map(|resolved| resolved.uid);
        self.events.tell(Step {
            event: Event {
                api_version: ServiceFence::api_version(&()).into_owned(),
                kind: ServiceFence::kind(&()).into_owned(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: uid.unwrap_or_default(),
                field: "spec.mode".to_owned(),
                reason,
                note,
            },
            warning,
        });
    }
}

/// What the status says of mode `Auto`.
pub(super) fn auto(
    entry: &Entry,
    carried: bool,
    config: &LazyloadConfig,
    now: Timestamp,
) -> Option<(AutoStatus, Draft)> {
    let tighten = entry.modes.tighten.as_ref()?;
    let status = tighten.to_status(&config.auto);
    let draft = |tight, reason, message: String| Draft::new(KIND, tight, reason, message);
    let of = |text: &Option<String>, all: Duration| {
        let text = text.as_deref().unwrap_or("0s");
        format!("{text} of {all}")
    };
    if tighten.enforced {
        let message = format!(
            "only the scope is in the Sidecar; it goes back when more than {} calls in {} miss it",
            tighten.bound(&config.auto),
            config.auto.window
        );
        return Some((status, draft(true, "Tightened", message)));
    }
    if config.learn.prometheus.is_none() {
        let message = "nothing proves that nothing is missed: set lazyload.learn.prometheus";
        return Some((status, draft(false, "NoTelemetry", message.to_owned())));
    }
    let draft = match tighten.waits_for(carried, &config.auto, now) {
        Wait::Learning(_) => draft(
            false,
            "Learning",
            format!(
                "the telemetry of all workloads was complete for {} (lazyload.auto.learn)",
                of(&status.watched, config.auto.learn)
            ),
        ),
        Wait::Quiet(_) => draft(
            false,
            "CallsOutside",
            format!(
                "no call outside the scope was seen for {} of watched time (lazyload.auto.quiet)",
                of(&status.quiet, config.auto.quiet)
            ),
        ),
        Wait::Hold(until) => draft(
            false,
            "Held",
            format!("this step is young: it does not tighten before {until} (lazyload.auto.hold)"),
        ),
        Wait::Fallback => draft(
            false,
            "NoFallback",
            "calls out of scope are not carried yet: see FallbackReady, or set lazyload.fallback.enabled to false".to_owned(),
        ),
        Wait::Telemetry => draft(
            false,
            "Learning",
            "it tightens with the next complete telemetry".to_owned(),
        ),
    };
    Some((status, draft))
}
