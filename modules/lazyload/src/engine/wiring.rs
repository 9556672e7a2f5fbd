//! The fallback, in an order in which no call is lost: pods first, then the EnvoyFilters, then Sidecars.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::istio::EnvoyFilter;

use super::{Engine, Work};
use crate::config::{GlobalSidecarMode, LazyloadConfig};
use crate::fallback::{self, FallbackInput, NAME};
use crate::scope::{Services, Settings};
use crate::status::FallbackState;

/// What is known of the fallback.
#[derive(Debug, Default)]
pub struct WiringState {
    /// Namespaces of fallbacks that have had ready pods since their Service is there.
    ready: BTreeSet<String>,
    /// HTTP ports that are wired, by what the last write put in place. `None`: nothing was written yet.
    written: Option<BTreeMap<String, BTreeSet<u16>>>,
    /// What stopped the last write.
    error: Option<String>,
}

/// What must be there for the fallback.
#[derive(Clone, Debug, Default)]
pub struct Wiring {
    /// EnvoyFilters; those of a fallback without pods are not among them.
    pub filters: Vec<EnvoyFilter>,
    /// Ports that the Service of each fallback must have, by its namespace, when they differ from what it has.
    pub ports: BTreeMap<String, BTreeSet<u16>>,
    /// Port of the fallback's pods that takes HTTP.
    pub target: u16,
    /// What is wired when it is written.
    state: BTreeMap<String, BTreeSet<u16>>,
}

/// Namespaces of fallbacks.
fn places(config: &LazyloadConfig) -> BTreeSet<String> {
    if !config.fallback.enabled || config.fallback.passthrough_by_default {
        return BTreeSet::new();
    }
    match config.fallback.global_sidecar_mode {
        GlobalSidecarMode::Cluster => BTreeSet::from([config.fallback_namespace().to_owned()]),
        GlobalSidecarMode::Namespace => config.fallback.namespace.iter().cloned().collect(),
    }
}

fn host(config: &LazyloadConfig, namespace: &str) -> String {
    format!("{NAME}.{namespace}.svc.{}", config.domain)
}

/// What scopes need to know of the configuration.
pub(super) fn settings(config: &LazyloadConfig) -> Settings {
    let hosts = places(config).iter().map(|n| host(config, n)).collect();
    Settings::new(config, hosts)
}

impl Engine {
    /// What calls of a namespace to hosts out of scope meet.
    pub fn fallback_state(&self, namespace: &str) -> FallbackState {
        let config = self.config();
        let places = places(&config);
        if places.is_empty() {
            return FallbackState::Unused;
        }
        let place = match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => places.first().map(String::as_str),
            GlobalSidecarMode::Namespace => places.get(namespace).map(String::as_str),
        };
        let Some(place) = place else {
            return FallbackState::NotReady(format!(
                "namespace {namespace} has no fallback: add it to lazyload.fallback.namespace, or set globalSidecarMode to cluster"
            ));
        };
        let inner = self.inner.lock();
        if let Some(error) = &inner.wiring.error {
            return FallbackState::NotReady(format!("its EnvoyFilters cannot be written: {error}"));
        }
        if !inner.wiring.ready.contains(place) {
            return FallbackState::NotReady(format!(
                "there is no ready pod of Service {place}/{NAME}: install it with the chart's value fallback.enabled, or set lazyload.fallback.enabled to false"
            ));
        }
        let wired = inner
            .wiring
            .written
            .as_ref()
            .is_some_and(|w| w.contains_key(place));
        if wired {
            FallbackState::Ready
        } else {
            FallbackState::NotReady("its EnvoyFilters are not written yet".to_owned())
        }
    }

    /// Looks whether fallbacks have come or gone, or ports have changed. True: there is something to write.
    pub(super) fn wiring_changed(&self) -> bool {
        let config = self.config();
        let mut ready = BTreeSet::new();
        for namespace in places(&config) {
            let host = host(&config, &namespace);
            let (there, endpoints) = {
                let mesh = self.index.services();
                let entries = mesh.host(&host);
                let counts = entries.iter().map(|entry| mesh.endpoints(entry));
                (!entries.is_empty(), counts.sum::<usize>())
            };
            let was = self.inner.lock().wiring.ready.contains(&namespace);
            // Pods that are restarted take nothing away: their Service stays.
            if there && (was || endpoints > 0) {
                ready.insert(namespace);
            }
        }
        let ports = self.ports.all();
        let mut inner = self.inner.lock();
        let wanted: BTreeMap<String, BTreeSet<u16>> =
            ready.iter().map(|n| (n.clone(), ports.clone())).collect();
        let moved = inner.wiring.ready != ready;
        inner.wiring.ready = ready;
        if moved {
            let all: Vec<_> = inner.fences.keys().cloned().collect();
            inner.again.extend(all);
        }
        let nothing = inner.wiring.written.is_none() && config.fallback.passthrough_by_default;
        inner.wiring.written.as_ref() != Some(&wanted) || nothing
    }

    /// Hosts of the fallback's Services.
    pub fn fallback_hosts(&self) -> BTreeSet<String> {
        let config = self.config();
        places(&config).iter().map(|n| host(&config, n)).collect()
    }

    /// What must be there now.
    pub fn wiring(&self) -> Wiring {
        let config = self.config();
        let ready = self.inner.lock().wiring.ready.clone();
        let found = self.ports.all();
        let input = FallbackInput {
            config: (*config).clone(),
            ports: found.clone(),
            ..FallbackInput::default()
        };
        let wanted = input.all_ports();
        let mut out = Wiring {
            target: input.proxy_options().http.port(),
            ..Wiring::default()
        };
        let mut in_force = config.as_ref().clone();
        match config.fallback.global_sidecar_mode {
            // Without a fallback, unknown calls go where Istio sends them.
            GlobalSidecarMode::Cluster => {
                in_force.fallback.enabled = config.fallback.enabled
                    && (config.fallback.passthrough_by_default || !ready.is_empty());
            }
            GlobalSidecarMode::Namespace => {
                in_force.fallback.namespace.retain(|n| ready.contains(n));
            }
        }
        out.filters = fallback::filters(&FallbackInput {
            config: in_force,
            ..input
        });
        for namespace in &ready {
            out.state.insert(namespace.clone(), found.clone());
            let entries = self.index.services().host(&host(&config, namespace));
            let has: BTreeSet<u16> = entries
                .iter()
                .flat_map(|e| e.ports.iter().map(|p| p.number))
                .collect();
            if !wanted.is_subset(&has) {
                out.ports.insert(namespace.clone(), wanted.clone());
            }
        }
        out
    }

    /// How the write of the wiring went.
    pub fn note_wiring(&self, wiring: &Wiring, error: Option<String>) {
        let mut inner = self.inner.lock();
        let before = (inner.wiring.written.is_some(), inner.wiring.error.clone());
        let new_places = inner
            .wiring
            .written
            .as_ref()
            .is_none_or(|w| !w.keys().eq(wiring.state.keys()));
        if error.is_none() {
            inner.wiring.written = Some(wiring.state.clone());
        }
        let failed = before.1 != error;
        inner.wiring.error = error;
        if failed || new_places {
            let all: Vec<_> = inner.fences.keys().cloned().collect();
            inner.again.extend(all);
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Queues the first look at the fallback.
    pub fn begin(&self) {
        self.queue.push(Work::Wiring, ());
    }
}
