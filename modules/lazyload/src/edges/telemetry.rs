//! What telemetry tells besides calls to services: who was watched when, and calls that went astray.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::object::Caller;

/// Windows that wait to be taken, at most; the oldest goes: time that is not counted proves nothing.
const MOST_WINDOWS: usize = 256;

/// A window in which workloads were watched: the time between two complete answers, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its number, from 1.
    pub number: u64,
    /// How long it was.
    pub by: Duration,
    /// Whose telemetry was complete in it.
    pub callers: BTreeSet<Caller>,
}

/// Calls that reached no service of the mesh by its own cluster: they went to the fallback, `PassthroughCluster` or
/// `BlackHoleCluster`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// HTTP requests.
    pub http: u64,
    /// TCP connections, which name no host.
    pub tcp: u64,
}

/// What is new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Windows that are over, in their order.
    pub windows: Vec<Window>,
    /// Calls that went astray, by the workload.
    pub strays: BTreeMap<Caller, Strays>,
    /// Workloads of which calls were forgotten or not kept: what was watched of them proves nothing.
    pub unproven: BTreeSet<Caller>,
}

#[derive(Debug, Default)]
pub(super) struct Telemetry {
    windows: VecDeque<Window>,
    strays: BTreeMap<Caller, Strays>,
    unproven: BTreeSet<Caller>,
    number: Arc<AtomicU64>,
}

impl Telemetry {
    /// How many windows are over.
    pub(super) fn number(&self) -> Arc<AtomicU64> {
        self.number.clone()
    }

    pub(super) fn window(&mut self, callers: BTreeSet<Caller>, by: Duration) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        if self.windows.len() >= MOST_WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(Window {
            number,
            by,
            callers,
        });
    }

    pub(super) fn strays(&mut self, strays: BTreeMap<Caller, Strays>) {
        for (caller, more) in strays {
            let all = self.strays.entry(caller).or_default();
            all.http += more.http;
            all.tcp += more.tcp;
        }
    }

    pub(super) fn unproven(&mut self, callers: impl IntoIterator<Item = Caller>) {
        self.unproven.extend(callers);
    }

    pub(super) fn drain(&mut self) -> Told {
        Told {
            windows: std::mem::take(&mut self.windows).into(),
            strays: std::mem::take(&mut self.strays),
            unproven: std::mem::take(&mut self.unproven),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.strays.is_empty() && self.unproven.is_empty()
    }
}
